"""Trials, built and run on this machine."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from inception_deploy import targets
from inception_deploy.targets.library import check
from inception_deploy.tuning import trial
from inception_deploy.tuning.measure import Meter, local_runners, time_trial
from inception_deploy.tuning.space import Choice, Space
from inception_deploy.tuning.trial import ROUNDS, Setting

SETTING = Setting(threads=2, cold_bytes=1 << 20)


@pytest.fixture(scope="module")
def here():
    """This machine's own target."""
    return targets.parse("cpu")


@pytest.fixture(scope="module")
def library(here, tasks, tmp_path_factory) -> Path:
    """A trial of the default and of the same tile with everything fetched late."""
    path = tmp_path_factory.mktemp("trial") / "trial.so"
    space = Space(tasks[0], here)
    slow = replace(space.default, schedule=replace(space.default.schedule, fetch=0))
    trial.build(tasks[0].spec, [space.default, slow], here, SETTING, path)
    return path


class Once:
    """A MetaSchedule evaluator's configuration, for as many passes."""

    def __init__(self, repeat: int) -> None:
        self.repeat = repeat


def test_a_trial_gives_samples_of_both(library) -> None:
    import tvm

    module = tvm.runtime.load_module(str(library))
    found = time_trial(2, module, Once(3))
    assert len(found) == 3 * 2 * ROUNDS
    assert all(0 < seconds < 1 for seconds in found)
    assert time_trial(1, module, Once(1))[0] > 0, "it can be opened again, with other threads"
    assert module["sample"](2 * ROUNDS) < 0, "there is no sample after the last"


def test_errors_are_the_runtime_s_codes(library) -> None:
    import tvm

    module = tvm.runtime.load_module(str(library))
    with pytest.raises(RuntimeError, match=r"code 1 of inception_deploy\.h"):
        time_trial(9999, module, Once(1))


def test_its_plan_is_sound(tasks, here) -> None:
    """Every address inside of its memory, both choices equally often first, for every algorithm and batch."""
    for task in tasks:
        for batch in (1, 3):
            spec = replace(task.spec, batch=batch)
            space = Space(replace(task, spec=spec), here)
            options = {choice.outputs: choice for choice in [space.default, *(g.base for g in space.groups)]}
            for choice in options.values():
                made = trial.plan(spec, [space.default, choice], here, SETTING)
                check(made, here.isa.features)
                samples = [step.op for step in made.steps if step.op != trial.PREPARE]
                firsts = [trial.chosen(2 * turn, 2) for turn in range(ROUNDS)]
                assert firsts == [0, 1] * (ROUNDS // 2)
                assert {"choice 0", "choice 1"} == set(samples)
                for step in made.steps:
                    if step.op != trial.PREPARE:
                        ends = [ref.offset for ref in step.args]
                        assert max(ends) < made.arena_bytes - 4096


def test_trials_on_tiles(tiled) -> None:
    """Sound plans for one image and several; and where there are tiles, samples."""
    target = targets.parse("cpu:avx512-amx").at("fp32")
    for task in tiled:
        for batch in (1, 3):
            spec = replace(task.spec, batch=batch)
            space = Space(replace(task, spec=spec), target)
            other = replace(space.groups[0].base)
            made = trial.plan(spec, [space.default, other], target, SETTING)
            check(made, target.isa.features)
            assert all(ref.offset % 64 == 0 for step in made.steps for ref in step.args)
    if target.missing():
        return
    space = Space(tiled[0], target)
    meter = Meter(target, SETTING, local_runners(2))
    try:
        timings = meter.time([(tiled[0], space, choice) for choice in space.neighbours(space.default)[:2]], 1)
    finally:
        meter.close()
    assert [timing.error for timing in timings] == [None, None]


def test_metaschedule_s_builder_and_runner(tasks, here) -> None:
    """A good choice, one that the linker never sees, and the default itself."""
    space = Space(tasks[1], here)
    good = space.neighbours(space.default)[0]
    schedule = replace(space.default.schedule, vectors=5)  # does not divide the channels
    meter = Meter(here, SETTING, local_runners(2))
    try:
        timings = meter.time([(tasks[1], space, c) for c in (good, Choice(None, schedule), space.default)], 1)
    finally:
        meter.close()
    assert [timing.error is None for timing in timings][::2] == [True, True]
    assert len(timings[0].choice) == len(timings[0].default) == ROUNDS
    assert 0.2 < sorted(timings[2].seconds(1.0))[ROUNDS // 2] < 5, "the default against itself"


def test_a_trial_for_another_machine(tasks, tmp_path) -> None:
    """What is sent to a board: complete, so that the board needs nothing of ours."""
    board = targets.parse("arm:cortex-a72")
    space = Space(tasks[0], board)
    trial.build(tasks[0].spec, [space.default, space.neighbours(space.default)[0]], board, SETTING, tmp_path / "t.so")
    head = (tmp_path / "t.so").read_bytes()[:20]
    assert (head[:4], int.from_bytes(head[18:20], "little")) == (b"\x7fELF", 183)


@pytest.mark.skipif(not shutil.which("nm"), reason="needs binutils")
def test_a_trial_is_no_part_of_a_bundle(library) -> None:
    shown = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    assert {line.split()[-1] for line in shown.splitlines()} == set(trial.ENTRIES)
