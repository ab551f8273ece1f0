"""Tuning of a VTA: the same records each time, whatever stops it; no network slower; every bit the same."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import onnx
import pytest

from inception_deploy import targets
from inception_deploy.errors import DeployError
from inception_deploy.kernels.spec import Stage, Term, Vta
from inception_deploy.kernels.table import VERSIONS, versions_of
from inception_deploy.kernels.vta import tiling
from inception_deploy.kernels.vta.config import Config
from inception_deploy.lower.lower import lower
from inception_deploy.progress import NONE, Stopwatch
from inception_deploy.quantize import integer_network, quantize
from inception_deploy.runtime.compiled import load as load_library
from inception_deploy.targets.vta.cycles import measure
from inception_deploy.targets.vta.streams import streams
from inception_deploy.targets.vta_target import VtaTarget
from inception_deploy.tuning import database, modelled
from inception_deploy.tuning.database import RECORDS, WORKLOADS
from inception_deploy.tuning.space import Space
from inception_deploy.tuning.task import Task, plain
from inception_deploy.tuning.tuned import Better, identity, load, tunable, with_choices

from ..lower import test_integers as networks


def target_of(name: str = "vta:pynq") -> VtaTarget:
    found = tunable(targets.parse(name), "int8")
    assert isinstance(found, VtaTarget)
    return found


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    """Branches, a pool, an add: small steps, of which several are alike."""
    made, pictures = networks.model_of(networks.branches)
    return quantize(made, pictures, scheme="power-of-two").model


def tuned(folder: Path, model: onnx.ModelProto, trials: int, *, resume: bool = False) -> dict:
    target = target_of()
    owner = identity("net", target)
    opened = database.resume(folder, owner)[0] if resume else database.create(folder, owner)
    with opened:
        return modelled.tune(model, target, opened, trials, Stopwatch(NONE))


def content(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in (WORKLOADS, RECORDS)]


def test_the_same_records_each_time_and_after_a_kill(model, tmp_path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    found = tuned(one, model, 20)
    assert found["trials"] == 20
    assert content(one)[1].count(b"\n") == 20 + found["tasks"]
    tuned(other, model, 20)
    assert content(one) == content(other)
    lines = content(other)[1].splitlines(keepends=True)
    (other / RECORDS).write_bytes(b"".join(lines[:17]) + lines[17][:40])
    assert tuned(other, model, 20, resume=True) == found
    assert content(one) == content(other)


def test_the_network_is_what_the_model_says_and_not_slower(model, folder) -> None:
    found = tuned(folder, model, 60)
    assert found["bound_cycles"] < found["after_cycles"] <= found["before_cycles"]
    assert found["after_cycles"] < found["before_cycles"], "of so small steps the analytic choice is not the best one"
    assert found["kept"] == sum(row["kept"] for row in found["layers"]) <= found["better"]
    taken = load(folder, "net", target_of())
    total = 0
    for stream in streams(lower(model, taken), taken.vta):
        total += measure(stream.instructions, taken.vta.config, taken.vta.board).cycles
    assert total == found["after_cycles"]
    manifest = taken.manifest()
    assert manifest["judged"] == "modelled"
    assert len(manifest["kernels"]) >= 1
    assert all(row["ratio"] < 1 and {"rows", "snake", "weights"} <= row["knobs"].keys() for row in manifest["kernels"])


def test_nothing_is_left_to_try(folder) -> None:
    """A network of one small step has few choices; the search ends when all were judged."""
    made, pictures = networks.model_of(networks.plain)
    found = tuned(folder, quantize(made, pictures, scheme="power-of-two").model, 10_000)
    assert 10 < found["trials"] < 10_000


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ("vta:zcu104", "is of target vta:pynq at int8, not vta:zcu104 at int8"),
        ("vta:pynq@", "1x16_i8w8a32_15_15_18_17 .*not .*1x16_i8w8a32_15_14_18_17"),
    ],
)
def test_a_record_is_of_one_configuration(folder, tmp_path, other, message) -> None:
    with database.create(folder, identity("net", target_of())):
        pass
    file = tmp_path / "config.json"
    if other.endswith("@"):
        file.write_text(json.dumps(Config().document() | {"LOG_INP_BUFF_SIZE": 14}))
        other += str(file)
    with pytest.raises(DeployError, match=message):
        load(folder, "net", target_of(other))
    file.write_text(json.dumps(Config().document()))
    assert not load(folder, "net", target_of(f"vta:pynq@{file}")).choices, "what is in a file counts, not where it lies"


def test_another_board_behind_the_same_name_is_another_one(folder) -> None:
    target = target_of()
    slower = replace(target, vta=replace(target.vta, board=replace(target.vta.board, latency=96)))
    with database.create(folder, identity("net", slower)), pytest.raises(DeployError, match="20, 96, 24 and 0 cycles"):
        load(folder, "net", target)


@pytest.mark.parametrize("seed", range(3))
def test_every_bit_in_any_choice(seed: int, tmp_path: Path) -> None:
    """One context or two, forwards or back, whatever tiles: the network computes the same."""
    make = (networks.branches, networks.pools, networks.deep)[seed]
    made, pictures = networks.model_of(make)
    quantized = quantize(made, pictures, scheme="power-of-two").model
    target = target_of("vta:sim")
    random = Random(seed)
    tasks = list(modelled.tasks_of(lower(quantized, target)))
    choices = {task.key: Better(task, random.choice(Space(task, target).sample(random, 40)), 0.9) for task in tasks}
    goal = with_choices(target, choices)
    plan = lower(quantized, goal)
    assert len(goal.used) == len({kernel.symbol for kernel in plan.kernels.values() if isinstance(kernel.spec, Vta)})
    goal.build(plan, tmp_path)
    with load_library(tmp_path) as compiled:
        want = integer_network.reference(quantized, {quantized.graph.input[0].name: pictures[:2]})
        for one, other in zip(compiled.run(pictures[:2]), want, strict=True):
            assert np.array_equal(one, other)


def step(shift: int = 9, low: int = 0) -> Vta:
    stage = Stage((Term(4, 14, 14, (3, 3), pad=(1, 1)),), bias="tiles", bias_tiles=1, shift=shift, low=low, high=127)
    return Vta(1, 8, 14, 14, (stage,))


def test_a_task_is_what_takes_time() -> None:
    """Other scales shift by other amounts: as many instructions, the same task."""
    assert plain(step()) == plain(step(shift=3, low=-100)) != plain(step(shift=20))


def test_a_task_comes_back_from_its_module() -> None:
    task = Task(plain(step()), False, 1, ())
    module = database.workload(task)
    assert database.task_of(module) == task
    assert versions_of(task.spec, False) == {"vta.step": VERSIONS["vta.step"]}
    assert database.outdated(module) == []


def test_a_search_has_tiles_orders_and_contexts() -> None:
    target = target_of()
    space = Space(Task(plain(step()), False, 1, ()), target)
    domains = space.domains()
    assert all(len(domains[name]) > 1 for name in ("rows", "columns", "blocks", "deep", "snake", "piece", "uops"))
    assert all(domains[name] == [1, 2] for name in tiling.CONTEXTS)
    assert all(tiling.fits(space.task.spec, target.vta, group.base.schedule) for group in space.groups)
