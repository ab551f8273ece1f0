"""Assembled networks in compiled models, on the simulator and on an executor that shares nothing with it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inception_deploy.kernels.spec import Reads, Stage, Term, Vta
from inception_deploy.kernels.vta.profiles import PROFILES
from inception_deploy.lower.plan import Kernel, Memory, MemoryKind, Plan, Port, Ref, Step, port_memory
from inception_deploy.runtime import compiled
from inception_deploy.targets import library, link, vta_library
from inception_deploy.targets.vta import driver, pieces
from inception_deploy.targets.vta.assemble import assemble

from . import products
from .steps import ARENA, WEIGHTS, Layer, Network, accelerator


def plan(network: Network) -> tuple[Plan, list[pieces.Stream]]:
    """A network whose inputs and last value are ports of the model; one stream."""
    moved = {place: Ref(port_memory(MemoryKind.INPUT, n), 0) for n, (place, _) in enumerate(network.given)}
    moved[network.wanted[-1][0]] = Ref(port_memory(MemoryKind.OUTPUT, 0), 0)
    works = [
        replace(work, args=tuple(moved.get(r.offset, r) if r.memory == ARENA else r for r in work.args))
        for work in network.works
    ]
    inputs = tuple(Port(f"in{n}", value.shape, "int8") for n, (_, value) in enumerate(network.given))
    output = Port("out", network.wanted[-1][1].shape, "int8")
    steps, kernels = [], {}
    for number, work in enumerate(works):
        kernels[work.name] = Kernel(work.name, work.spec, work.tiling, len(work.args), 1)
        steps.append(Step(work.name, work.args, number, (work.name,), "conv", work.name, work.spec.macs, device="vta"))
    ports = [(MemoryKind.INPUT, n, port.bytes) for n, port in enumerate(inputs)] + [
        (MemoryKind.OUTPUT, 0, output.bytes)
    ]
    table = (
        Memory(ARENA, "vta", MemoryKind.ARENA, network.end),
        Memory(WEIGHTS, "vta", MemoryKind.WEIGHTS, len(network.weights)),
        *(Memory(port_memory(kind, n), "vta", kind, size, port=n) for kind, n, size in ports),
    )
    made = Plan("vta:sim", inputs, (output,), kernels, tuple(steps), bytes(network.weights), table)
    return made, [assemble(works, network.at)]


def layers(seed: int) -> list[Layer]:
    """A small network with strides, wide layers and a shortcut."""
    random = np.random.default_rng(seed)
    size, blocks, found = int(random.integers(9, 24)), int(random.integers(1, 6)), []
    for number in range(4):
        kernel, outs = [(3, 3), (1, 1), (1, 7), (5, 5)][int(random.integers(4))], int(random.integers(1, 12))
        terms = (Term(blocks, size, size, kernel, pad=(kernel[0] // 2, kernel[1] // 2)),)
        stage = Stage(terms, bias="tiles", bias_tiles=1, shift=13, low=[-128, 0][number % 2], high=127)
        found.append(Layer(Vta(1, outs, size, size, (stage,)), [number - 1 if number else None]))
        blocks = outs
    shortcut = Term(blocks, size, size, reads=Reads.OWN, span=1, shared=True)
    stage = Stage((Term(blocks, size, size), shortcut), shift=14, low=0, high=127)
    return [*found, Layer(Vta(1, blocks, size, size, (stage,)), [3, 3])]


@pytest.fixture(scope="module")
def second(tmp_path_factory, tiny) -> Path:
    path = tmp_path_factory.mktemp("drivers") / "libsecond.so"
    driver.link([link.compile_c((products.C / "second.c").read_text(), "second.c", tiny.triple)], path, tiny.triple)
    return path


@pytest.mark.parametrize("seed", range(3))
def test_a_network_is_exact_on_both(tiny, tmp_path, second, seed):
    network = Network(layers(seed), accelerator("hls"), seed)
    made, streams = plan(network)
    config = network.at.config
    whole = pieces.with_streams(made, streams, config)
    part = vta_library.part(whole, streams, config, tiny.triple, simulated=PROFILES["hls"])
    library.write_library(whole, [part], tmp_path, triple=tiny.triple)
    given = [value for _, value in network.given]
    for named in (None, second):
        with compiled.load(tmp_path, threads=1, driver=named) as model:
            for _ in range(2):
                np.testing.assert_array_equal(model.run(*given)[0], network.wanted[-1][1])
            assert [time.name for time in model.profile(*given)] == [f"layer{n}" for n in range(5)]
