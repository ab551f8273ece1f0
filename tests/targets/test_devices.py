"""A plan of several devices: kernels of the host and the command streams of a device, in turns, over memories that both see."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inception_deploy.errors import DeployError
from inception_deploy.lower.plan import Memory, MemoryKind, Plan, Ref
from inception_deploy.pipeline import layout
from inception_deploy.runtime import compiled
from inception_deploy.targets import cpu_library, library

from . import stream


@pytest.fixture
def made(tiny, tmp_path):
    """`made(plan, fails)`: a folder with the plan's library."""

    def make(plan: Plan, fails: str = "") -> Path:
        folder = tmp_path / f"model{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        parts = [stream.part(plan, tiny.triple, fails), cpu_library.part(plan, tiny.objects())]
        library.write_library(plan, parts, folder, triple=tiny.triple)
        return folder

    return make


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("devices", ["hsh", "hssh", "hhshssshh", "hsh" * 12, "hhh"])
def test_host_and_device_take_turns(tiny, made, pixels, devices, threads):
    with compiled.load(made(stream.chain(devices)), threads=threads) as model:
        assert (model.waves, model.threads) == (len(devices), threads)
        for _ in range(10):
            np.testing.assert_array_equal(model.run(pixels)[0], tiny.chained(pixels, len(devices)))
        times = model.profile(pixels)
        names = [f"{'stream' if letter == 's' else 'cpu'}{number}" for number, letter in enumerate(devices)]
        assert [t.name for t in times] == names
        assert all(t.ms == 1 if letter == "s" else t.ms > 0 for t, letter in zip(times, devices, strict=True))
        np.testing.assert_array_equal(model.run(pixels + 1)[0], tiny.chained(pixels + 1, len(devices)))


def test_the_bundle_says_where_steps_run_and_memories_are():
    document = json.loads(json.dumps(layout(stream.chain("hsh"))))
    assert [step["device"] for step in document["steps"]] == ["cpu", "stream", "cpu"]
    (dram,) = (row for row in document["memories"] if row["name"] == "dram")
    assert (dram["device"], dram["kind"], dram["bytes"]) == ("stream", "arena", 2 * stream.BYTES)


def test_both_in_one_wave(tiny, made, pixels):
    """Steps of one wave on two devices, in any order, are each done before the next wave."""
    dram = [Ref("dram", number * stream.BYTES) for number in range(2)]
    steps = [
        stream.step(0, "cpu", Ref("input:0", 0), dram[0]),
        stream.step(1, "stream", dram[0], dram[1]),
        stream.step(1, "cpu", dram[0], Ref("arena", 0)),
        stream.step(1, "stream", dram[0], dram[1]),
        stream.step(2, "cpu", dram[1], Ref("output:0", 0)),
    ]
    with compiled.load(made(stream.plan(tuple(steps))), threads=2) as model:
        assert model.waves == 3
        np.testing.assert_array_equal(model.run(pixels)[0], tiny.chained(pixels, 3))


def test_a_device_alone_takes_and_gives_the_ports(tiny, pixels, tmp_path):
    """No host kernel, no thread, and the weights file is not kept open."""
    steps = (
        stream.step(0, "stream", Ref("input:0", 0), Ref("dram", 0)),
        stream.step(1, "stream", Ref("dram", 0), Ref("output:0", 0)),
    )
    table = tuple(memory for memory in stream.rows(ports="stream") if memory.device == "stream")
    plan = stream.plan(steps, table)
    assert (plan.devices, plan.arena_bytes) == (("stream",), 2 * stream.BYTES)
    library.write_library(plan, [stream.part(plan, tiny.triple)], tmp_path, triple=tiny.triple)
    with compiled.load(tmp_path, threads=4) as model:
        assert (model.threads, model.arena_bytes) == (1, 2 * stream.BYTES)
        assert str(tmp_path / "weights.bin") not in Path("/proc/self/maps").read_text()
        np.testing.assert_array_equal(model.run(pixels)[0], tiny.chained(pixels, 2))


@pytest.mark.parametrize("function", ["OPEN", "ADDRESS"])
def test_a_device_that_does_not_open(tiny, made, pixels, function):
    folder = made(stream.chain("hsh"), function)
    before = len(os.listdir("/proc/self/task"))
    with pytest.raises(DeployError, match="no device or driver that the library was built for, or it failed") as caught:
        compiled.load(folder, threads=3)
    assert caught.value.kind == "device"
    assert len(os.listdir("/proc/self/task")) == before
    with compiled.load(folder, threads=3) as model:  # it fails once
        np.testing.assert_array_equal(model.run(pixels)[0], tiny.chained(pixels, 3))


@pytest.mark.parametrize(
    ("function", "kind"), [("BEGIN", "device"), ("RUN", "kernel"), ("WAIT", "device"), ("FINISH", "device")]
)
@pytest.mark.parametrize("profiled", [False, True])
def test_a_run_that_fails_can_be_repeated(tiny, made, pixels, function, kind, profiled):
    with compiled.load(made(stream.chain("hssh"), function), threads=2) as model:
        with pytest.raises(DeployError) as caught:
            (model.profile if profiled else model.run)(pixels)
        assert caught.value.kind == kind
        if kind == "kernel":
            assert caught.value.message == "step stream2 (gather) failed"
        np.testing.assert_array_equal(model.run(pixels)[0], tiny.chained(pixels, 4))
        assert model._library.id_failed_step(model._handle) == -1


def test_a_step_of_either_device_that_fails_is_named(tiny, made, pixels):
    plan = stream.chain("hsh")
    first, second, third = plan.steps
    trapped = replace(plan, steps=(first, replace(second, kernel="trap"), third))
    with compiled.load(made(trapped), threads=2) as model:
        for _ in range(3):
            with pytest.raises(DeployError, match=r"step stream1 \(gather\) failed"):
                model.run(pixels)
            assert model._library.id_failed_step(model._handle) == 1


def test_a_fork_has_no_share_in_the_device(tiny, made, pixels):
    with compiled.load(made(stream.chain("hsh")), threads=1) as model:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python's own advice against forking with threads
            child = os.fork()
        if child == 0:
            status = 1
            try:
                model.run(pixels)
            except DeployError as error:
                model.close()
                status = 0 if "fork" in error.message else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        np.testing.assert_array_equal(model.run(pixels)[0], tiny.chained(pixels, 3))


def test_without_code_for_a_device(tiny, tmp_path):
    plan = stream.chain("hsh")
    with pytest.raises(DeployError, match="there is no code for the device stream") as caught:
        library.write_library(plan, [cpu_library.part(plan, tiny.objects())], tmp_path, triple=tiny.triple)
    assert caught.value.kind == "plan"


def test_what_a_device_does_not_reach():
    """It works on its own memories, and the host on those of the others too. A port is one device's."""
    dram, arena = Ref("dram", 0), Ref("arena", 0)
    wrong = {
        "stream does not reach arena of cpu": stream.step(0, "stream", arena, dram),
        "stream does not reach input:0 of cpu": stream.step(0, "stream", Ref("input:0", 0), dram),
        "memory='nowhere'": stream.step(0, "cpu", Ref("nowhere", 0), dram),
    }
    for why, step in wrong.items():
        with pytest.raises(DeployError, match="the plan contradicts itself at step") as caught:
            library.check(stream.plan((step,)))
        assert why in caught.value.message


@pytest.mark.parametrize(
    "row",
    [
        Memory("more", "cpu", MemoryKind.INPUT, 16, port=1),
        Memory("more", "cpu", MemoryKind.OUTPUT, 12),
        Memory("more", "stream", MemoryKind.WEIGHTS, stream.BYTES, first=2 * stream.BYTES),
        Memory("more", "stream", MemoryKind.WEIGHTS, 64, first=4),
        Memory("more", "cpu", MemoryKind.ARENA, -1),
    ],
)
def test_rows_that_do_not_fit_the_plan(row):
    with pytest.raises(DeployError, match=f"the plan's memory more is no {row.kind.value} of it") as caught:
        library.check(stream.plan((), stream.rows(row)))
    assert caught.value.kind == "plan"


def test_the_copy_of_an_input_lies_in_its_devices_arena():
    plan = stream.plan(())
    for copy in (64, 2 * stream.BYTES, -64, 4):  # a larger arena is another device's
        table = tuple(replace(m, bytes=stream.BYTES) if m.name == "arena" else m for m in plan.memories)
        moved = replace(plan, memories=table, inputs=(replace(plan.inputs[0], copy=copy),))
        with pytest.raises(DeployError, match="the copy of input pixels lies outside of the arena"):
            library.check(moved)
    library.check(replace(plan, inputs=(replace(plan.inputs[0], copy=64),)))


def test_every_port_has_one_memory():
    table = stream.rows()
    twice = replace(table[2], name="again")
    for rows in (table[:2] + table[3:], (*table, twice)):
        with pytest.raises(DeployError, match="the plan has not one memory for every input and output"):
            library.check(stream.plan((), rows))


def test_two_memories_of_one_name():
    with pytest.raises(DeployError, match="two memories of one name"):
        library.check(stream.plan((), stream.rows(Memory("dram", "cpu", MemoryKind.ARENA, 64))))
