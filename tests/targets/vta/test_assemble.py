"""Streams of whole steps and of chains of them compute what the specs mean, on every hardware."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inception_deploy.errors import DeployError
from inception_deploy.kernels.spec import Pooling, Reads, Reduce, Share, Stage, Term, Vta
from inception_deploy.kernels.vta import isa, tiling
from inception_deploy.kernels.vta.bound import bound
from inception_deploy.kernels.vta.config import Config
from inception_deploy.kernels.vta.tiling import Tiling
from inception_deploy.lower.plan import Ref
from inception_deploy.targets.vta import cycles
from inception_deploy.targets.vta.assemble import Work, assemble

from .steps import Layer, Network, accelerator

KERNELS = [(1, 1), (3, 3), (5, 5), (7, 7), (1, 7), (7, 1), (1, 3), (3, 1), (2, 3)]

CONFIGS = [
    Config(),
    Config(log_block=3, log_uop_buffer=12, log_inp_buffer=12, log_wgt_buffer=14, log_acc_buffer=14),
    Config(log_block=5, log_uop_buffer=13, log_inp_buffer=14, log_wgt_buffer=19, log_acc_buffer=16),
    Config(log_batch=1, log_inp_buffer=14, log_wgt_buffer=17),
    Config(log_inp_buffer=13, log_wgt_buffer=17, log_acc_buffer=16),
]


def out_size(size: int, kernel: int, stride: int, pad: int, dilation: int = 1) -> int:
    return (size + 2 * pad - (kernel - 1) * dilation - 1) // stride + 1


@st.composite
def steps(draw: st.DrawFn, block: int = 16, rows: int = 1) -> Vta:
    """Any step whose sums stay in int32."""
    height, width = draw(st.integers(1, 13)), draw(st.integers(1, 13))
    out_blocks = draw(st.integers(1, 5))
    kernel = draw(st.sampled_from(KERNELS))
    stride = draw(st.sampled_from([(1, 1), (2, 2), (2, 1)]))
    dilation = draw(st.sampled_from([(1, 1), (2, 2)]))
    pad = (draw(st.integers(-1, kernel[0])), draw(st.integers(-1, kernel[1])))
    inner = tuple(
        out_size(size, *rest) for size, *rest in zip((height, width), kernel, stride, pad, dilation, strict=True)
    )
    if min(inner) < 1:
        kernel, stride, dilation, pad, inner = (1, 1), (1, 1), (1, 1), (0, 0), (height, width)

    def term(geometry: bool) -> Term:
        own = draw(st.booleans())
        span = draw(st.integers(1, 3)) if own else 0
        group = draw(st.sampled_from([d for d in range(1, out_blocks + 1) if out_blocks % d == 0])) if own else 1
        blocks = out_blocks // group * span if own else draw(st.integers(1, 5))
        more: dict[str, Any] = {"reads": Reads.OWN if own else Reads.ALL, "span": span, "group": group}
        more["shared"] = draw(st.booleans())
        if geometry:
            return Term(blocks, height, width, kernel, stride, pad, dilation, **more)
        return Term(blocks, *inner, shift=draw(st.integers(0, 2)), **more)

    def stage(terms: tuple[Term, ...]) -> Stage:
        bias = draw(st.sampled_from(["", "tiles", "words"]))
        return Stage(
            terms, bias=bias, bias_tiles=draw(st.integers(1, 2)) if bias == "tiles" else 0,
            lead=draw(st.integers(0, 4)), shift=draw(st.integers(14, 24)), shifts=draw(st.booleans()),
            low=draw(st.sampled_from([-128, 0])), high=draw(st.sampled_from([127, 100])),
        )  # fmt: skip

    stages = [stage((term(geometry=True), *(term(geometry=False) for _ in range(draw(st.integers(0, 1))))))]
    if draw(st.booleans()):
        stages.append(stage((term(geometry=False),)))
    pooling, outer = None, inner
    if draw(st.booleans()):
        window = draw(st.sampled_from([(3, 3), (2, 2), (1, 3), (3, 2)]))
        step = draw(st.sampled_from([(1, 1), (2, 2), (1, 2)]))
        around = (draw(st.integers(0, window[0] - 1)), draw(st.integers(0, window[1] - 1)))
        size = tuple(out_size(n, *rest) for n, *rest in zip(inner, window, step, around, strict=True))
        if min(size) > 0:
            reduce = draw(st.sampled_from(list(Reduce)))
            pooling, outer = Pooling(reduce, *inner, window, step, around), size
    found = Vta(rows, out_blocks, *outer, tuple(stages), pooling, block, rows=rows)
    special = draw(st.integers(0, 3))
    if special == 0:
        stages[-1] = replace(stages[-1], shift=0, shifts=False, low=None, high=None)
        found = replace(found, stages=tuple(stages), planes=4)
    if special < 2:
        corner = (draw(st.integers(0, 2)), draw(st.integers(0, 2)))
        whole = tuple(n + c + draw(st.integers(0, 2)) for n, c in zip(outer, corner, strict=True))
        found = replace(found, whole=whole, corner=corner)
    if special > 0:
        found = replace(found, split=draw(st.sampled_from([(), *shares(out_blocks)])))
    return found


def shares(blocks: int) -> Iterator[tuple[Share, ...]]:
    """All ways to give so many blocks to several outputs."""
    for last in range(1, blocks):
        for first in [(Share(blocks - last),), *shares(blocks - last)]:
            yield (*first, Share(last))


@given(st.data())
@settings(max_examples=30, deadline=None)
def test_a_step_in_any_tiling(data: st.DataObject) -> None:
    config = data.draw(st.sampled_from(CONFIGS))
    spec = data.draw(steps(config.block, config.batch))
    profile = data.draw(st.sampled_from(["hls", "chisel"]))
    at = accelerator(profile, config)
    found = list(tiling.candidates(spec, at, **{name: data.draw(st.integers(1, 2)) for name in tiling.CONTEXTS}))
    if not found:
        return
    cut = replace(
        data.draw(st.sampled_from(found)), deep=data.draw(st.booleans()), uops=data.draw(st.sampled_from([1, 32])),
        snake=data.draw(st.booleans()), piece=data.draw(st.sampled_from([1, 16, 64])),
    )  # fmt: skip
    layer = Layer(spec, [None] * len(spec.terms), cut)
    network = Network([layer, layer], at, data.draw(st.integers(0, 2**31)))
    network.check()
    if data.draw(st.booleans()):
        network.check("fsim")


def test_a_distance_between_rounds_that_are_none_is_not_encoded() -> None:
    """Inputs of one block of outputs that take more of INP than a factor's bits say."""
    config = Config(log_batch=1, log_inp_buffer=14, log_wgt_buffer=17)
    term = Term(3, 9, 9, (7, 7), (2, 2), (6, 3), (2, 2), Reads.OWN, 3)
    spec = Vta(2, 1, 5, 2, (Stage((term,), shift=20, low=-128, high=127),), rows=2)
    cut = Tiling(3, 1, 1, deep=True, uops=32, inputs=1, weights=1, sums=1)
    Network([Layer(spec, [None], cut)], accelerator("hls", config)).check()


@st.composite
def chains(draw: st.DrawFn) -> list[Layer]:
    """Layers that read the one before, or any other of the same shape as a shortcut."""
    height, width, blocks = draw(st.integers(3, 30)), draw(st.integers(3, 30)), draw(st.integers(1, 20))
    layers: list[Layer] = []
    shapes: list[tuple[int, int, int]] = []
    for number in range(draw(st.integers(2, 6))):
        kernel = draw(st.sampled_from([(1, 1), (3, 3), (1, 5)]))
        stride = draw(st.sampled_from([(1, 1), (1, 1), (2, 2)]))
        pad = (kernel[0] // 2, kernel[1] // 2)
        outs = draw(st.integers(1, 20))
        shape = (outs, *(out_size(n, *rest) for n, *rest in zip((height, width), kernel, stride, pad, strict=True)))
        terms = [Term(blocks, height, width, kernel, stride, pad)]
        inputs: list[int | None] = [number - 1 if number else None]
        same = [at for at, other in enumerate(shapes) if other == shape]
        if same and draw(st.booleans()):
            terms.append(Term(*shape, reads=Reads.OWN, span=1, shared=True))
            inputs.append(draw(st.sampled_from(same)))
        stage = Stage(tuple(terms), bias="tiles", bias_tiles=1, shift=14, low=0, high=127)
        layers.append(Layer(Vta(1, *shape, (stage,)), inputs))
        shapes.append(shape)
        blocks, height, width = shape
    return layers


@given(chains(), st.sampled_from(["hls", "chisel"]))
@settings(max_examples=10, deadline=None)
def test_a_chain(layers: list[Layer], profile: str) -> None:
    Network(layers, accelerator(profile)).check()


@pytest.mark.parametrize("profile", ["hls", "chisel"])
def test_a_bottleneck_takes_little_more_than_its_bound(profile: str) -> None:
    def layer(blocks: int, outs: int, kernel: int, before: int | None, shortcut: bool = False) -> Layer:
        terms = [Term(blocks, 14, 14, (kernel, kernel), pad=(kernel // 2, kernel // 2))]
        if shortcut:
            terms.append(Term(outs, 14, 14, reads=Reads.OWN, span=1, shared=True))
        stage = Stage(tuple(terms), bias="tiles", bias_tiles=1, shift=15, low=0, high=127)
        return Layer(Vta(1, outs, 14, 14, (stage,)), [before, before - 2] if shortcut and before else [before])

    block = [layer(64, 16, 1, None), layer(16, 16, 3, 0), layer(16, 64, 1, 1), layer(64, 16, 1, 2)]
    block += [layer(16, 16, 3, 3), layer(16, 64, 1, 4, shortcut=True)]
    block[-1].inputs = [4, 2]
    at = accelerator(profile)
    network = Network(block, at)
    network.check()
    found = cycles.measure(network.stream.instructions, at.config, at.board)
    assert found.cycles < 1.08 * sum(bound(each.spec, at).cycles for each in block)


def test_a_stream_starts_without_waiting_and_ends_with_finish() -> None:
    at = accelerator()
    spec = Vta(1, 2, 5, 5, (Stage((Term(2, 5, 5),), shift=9, low=-128, high=127),))
    stream = Network([Layer(spec, [None]), Layer(spec, [0])], at).stream
    found = [isa.decode(piece, at.config) for piece in isa.instructions(stream.instructions, "the stream")]
    assert found[-1].opcode is isa.Opcode.FINISH
    assert found[-1]["pop_next"] == 1
    first = next(it for it in found if it.engine == "compute")
    assert not first["pop_prev"]
    assert not first["pop_next"]
    assert [end for _, end in stream.steps[:-1]] == [first for first, _ in stream.steps[1:]]
    assert stream.steps[0][0] == 0
    assert stream.steps[-1][1] == len(found) - 1
    moved = [number for number, it in enumerate(found) if it.kind == "memory" and it["x_size"]]
    assert [row.instruction for row in stream.relocations] == moved


def test_an_argument_between_elements_is_refused() -> None:
    spec = Vta(1, 2, 5, 5, (Stage((Term(2, 5, 5),), shift=9, low=-128, high=127),))
    at = accelerator()
    refs = (Ref("arena", 0), Ref("weights", 64), Ref("arena", 4096))
    with pytest.raises(DeployError, match="tiles0 of conv lies at byte 64, between elements of 256"):
        assemble([Work("conv", spec, tiling.choose(spec, at), refs)], at)


@given(
    st.integers(4, 20), st.integers(1, 12), st.sampled_from([(3, 3), (3, 2), (2, 3), (4, 1)]), st.sampled_from([1, 2]),
    st.integers(0, 1), st.sampled_from(list(Reduce)), st.integers(1, 4), st.sampled_from(["", "tiles", "words"]),
)  # fmt: skip
@settings(max_examples=25, deadline=None)
def test_tiles_take_rows_that_the_one_before_has_computed(
    height: int, width: int, window: tuple[int, int], stride: int, pad: int, reduce: Reduce, rows: int, bias: str
) -> None:
    pads = (min(pad, window[0] - 1), min(pad, window[1] - 1))
    size = [out_size(n, k, stride, p) for n, k, p in zip((height, width), window, pads, strict=True)]
    if min(size) < 1:
        return
    stage = Stage((Term(2, height, width, (3, 1), pad=(1, 0)),), bias=bias, bias_tiles=int(bias == "tiles"), shift=16, low=-128,
                  high=127)  # fmt: skip
    pooling = Pooling(reduce, height, width, window, (stride, stride), pads)
    spec = Vta(1, 2, *size, (stage,), pooling)
    at = accelerator()
    Network([Layer(spec, [None], Tiling(rows, size[1], 1, deep=True))], at).check()
