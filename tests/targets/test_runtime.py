"""The C runtime computes what the plan says, whatever the number of threads."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inception_deploy.errors import DeployError
from inception_deploy.runtime import compiled

THREADS = [1, 2, 4, 7]  # more than most machines that run the tests have, too
BUSY = 9


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("macs", [0, 10_000_000], ids=["serial", "parallel"])
def test_waves_run_in_order(tiny, build, pixels, threads, macs) -> None:
    with compiled.load(build(tiny.chain(40, macs=macs)), threads=threads) as model:
        expected = tiny.chained(pixels, 40)
        assert model.threads == threads
        for _ in range(50):
            np.testing.assert_array_equal(model.run(pixels)[0], expected)


@pytest.mark.parametrize("threads", THREADS)
def test_every_unit_is_done_once(tiny, build, pixels, threads) -> None:
    steps = [tiny.step("t_copy", 0, tiny.input, tiny.output)]
    # Costs from far too small to far too large: what is wrong about them must only cost time.
    steps += [tiny.step("t_count", wave, tiny.output, macs=10**wave) for wave in range(1, 13)]
    with compiled.load(build(tiny.plan(*steps)), threads=threads) as model:
        for _ in range(20):
            np.testing.assert_array_equal(model.run(pixels)[0], pixels[0] + 12)


@pytest.mark.parametrize("threads", THREADS)
def test_branches_of_one_wave_meet_in_the_next(tiny, build, pixels, threads) -> None:
    branches = [
        tiny.step("t_gather", 0, tiny.input, tiny.weight, tiny.at(i), macs=10 ** (3 + i % 7), name=f"branch{i}")
        for i in range(20)
    ]
    join = tiny.step("t_sum20", 1, *(tiny.at(i) for i in range(20)), tiny.output)
    with compiled.load(build(tiny.plan(*branches, join, arrays=20)), threads=threads) as model:
        assert model.waves == 2
        for _ in range(20):
            np.testing.assert_array_equal(model.run(pixels)[0], 210 * tiny.chained(pixels, 1))


@pytest.mark.parametrize("threads", THREADS)
@pytest.mark.parametrize("macs", [0, 10_000_000], ids=["serial", "parallel"])
def test_each_thread_accounts_for_its_time(tiny, build, pixels, threads, macs) -> None:
    """A phase for every wave that is worth several threads, one for all that are not; nobody works longer than it takes,
    and the next inference keeps no account.
    """
    with compiled.load(build(tiny.chain(12, macs=macs)), threads=threads) as model:
        start = time.perf_counter()
        phases = model.watch(pixels)
        taken = 1e3 * (time.perf_counter() - start)
        assert len(phases) == (0 if threads == 1 else 12 if macs else 1)
        for phase in phases:
            assert phase.name
            assert len(phase.busy_ms) == threads
            assert 0 < max(phase.busy_ms) <= phase.ms
            assert min(phase.busy_ms) >= 0
        assert sum(phase.ms for phase in phases) <= taken
        np.testing.assert_array_equal(model.run(pixels)[0], tiny.chained(pixels, 12))


def test_outputs_are_fresh_and_in_order(tiny, build, pixels) -> None:
    second = replace(tiny.output, memory="output:1")
    plan = tiny.plan(
        tiny.step("t_copy", 0, tiny.input, tiny.output),
        tiny.step("t_gather", 0, tiny.input, tiny.weight, second),
        outputs=2,
    )
    with compiled.load(build(plan), threads=2) as model:
        first = model.run(pixels)
        kept = [array.copy() for array in first]
        model.run(pixels + 1)
        np.testing.assert_array_equal(first[0], pixels[0])
        np.testing.assert_array_equal(first[1], tiny.chained(pixels, 1))
        assert all(np.array_equal(a, b) for a, b in zip(first, kept, strict=True))


def test_kernels_from_tvm(tiny, tmp_path, pixels) -> None:
    tvm = pytest.importorskip("tvm")
    from inception_deploy.kernels.emit import Emitter, load
    from inception_deploy.targets import cpu_library, library

    emitter = Emitter("t_copy", [("a", "float32"), ("out", "float32")])
    with emitter.units() as unit:
        emitter.store(emitter.buffers["out"], unit * 16, load(emitter.buffers["a"], unit * 16, 16) + 1.0)
    target = tvm.target.Target({"kind": "llvm"})
    module = tvm.tirx.transform.BindTarget(target)(tvm.IRModule({"t_copy": emitter.finish()}))
    with target:
        lower = [tvm.tirx.transform.FlattenBuffer(), tvm.tirx.transform.LowerIntrin()]
        built = tvm.get_global_func("target.build.llvm")(tvm.transform.Sequential(lower)(module), target)
    built.write_to_file(str(tmp_path / "k.o"))
    plan = tiny.plan(tiny.step("t_copy", 0, tiny.input, tiny.output))
    objects = {**tiny.objects(), "t_copy": tmp_path / "k.o"}
    library.write_library(plan, [cpu_library.part(plan, objects)], tmp_path, triple=tiny.triple)
    with compiled.load(tmp_path, threads=2) as model:
        np.testing.assert_array_equal(model.run(pixels)[0], pixels[0] + 1)


def test_what_tvm_kernels_call_is_there_without_tvm(tiny, build, pixels) -> None:
    with compiled.load(build(tiny.plan(tiny.step("t_tvm", 0, tiny.input, tiny.output))), threads=4) as model:
        for _ in range(20):
            np.testing.assert_array_equal(model.run(pixels)[0], 2 * pixels[0])


@pytest.mark.parametrize("planned", [False, True])
def test_unaligned_arrays_are_copied(tiny, build, pixels, planned) -> None:
    """To where the plan says, or to memory of their own."""
    raw = np.zeros(pixels.nbytes + 4, dtype=np.uint8)
    raw[4:] = pixels.view(np.uint8).reshape(-1)
    unaligned = raw[4:].view(np.float32).reshape(pixels.shape)
    plan = tiny.chain(3)
    if planned:
        (port,) = plan.inputs
        arena, *others = plan.memories
        larger = (replace(arena, bytes=arena.bytes + port.bytes), *others)
        plan = replace(plan, inputs=(replace(port, copy=arena.bytes),), memories=larger)
    with compiled.load(build(plan), threads=2) as model:
        np.testing.assert_array_equal(model.run(unaligned)[0], tiny.chained(pixels, 3))
        # Python's own outputs are aligned; a C caller's need not be.
        out = np.zeros(pixels.nbytes + 4, dtype=np.uint8)
        pointers = ctypes.c_void_p * 1
        code = model._library.id_run(model._handle, pointers(unaligned.ctypes.data), pointers(out.ctypes.data + 4))
        assert code == 0
        np.testing.assert_array_equal(out[4:].view(np.float32), tiny.chained(pixels, 3))
        assert out[:4].tolist() == [0] * 4


def test_weights_within_a_file(tiny, build, pixels, tmp_path) -> None:
    """From a multiple of 64 on, which kernels rely on, and of no page."""
    folder = build(tiny.chain(3))
    with compiled.load(folder, threads=1) as model:
        library, weights = model._library, (folder / "weights.bin").read_bytes()
        codes = []
        for offset in (0, 64, 4096 + 192, 4, 63):
            (tmp_path / "package").write_bytes(bytes(offset) + weights + bytes(9))
            handle = ctypes.c_void_p()
            path = os.fsencode(tmp_path / "package")
            codes.append(library.id_open_at(path, ctypes.c_uint64(offset), 1, ctypes.byref(handle)))
            if codes[-1] == 0:
                out = np.zeros_like(pixels)
                pointers = ctypes.c_void_p * 1
                assert library.id_run(handle, pointers(pixels.ctypes.data), pointers(out.ctypes.data)) == 0
                np.testing.assert_array_equal(out.reshape(-1), tiny.chained(pixels, 3).reshape(-1))
                library.id_close(handle)
        assert codes == [0, 0, 0, 1, 1]


def test_inputs_that_are_not_contiguous(tiny, build, pixels) -> None:
    wide = np.repeat(pixels, 2, axis=1)
    with compiled.load(build(tiny.chain(1)), threads=1) as model:
        np.testing.assert_array_equal(model.run(wide[:, ::2])[0], tiny.chained(pixels, 1))


def test_two_handles_run_at_once(tiny, build, pixels) -> None:
    folder = build(tiny.chain(30))
    with compiled.load(folder, threads=2) as one, compiled.load(folder, threads=3) as two:

        def work(model: compiled.CompiledModel, x: np.ndarray) -> None:
            expected = tiny.chained(x, 30)
            for _ in range(60):
                np.testing.assert_array_equal(model.run(x)[0], expected)

        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(work, one, pixels), pool.submit(work, two, pixels + 1)]:
                done.result()


def test_one_handle_in_many_threads_takes_turns(tiny, build, pixels) -> None:
    with compiled.load(build(tiny.chain(10)), threads=2) as model, ThreadPoolExecutor(4) as pool:
        inputs = [pixels + i for i in range(40)]
        for x, outputs in zip(inputs, pool.map(model.run, inputs), strict=True):
            np.testing.assert_array_equal(outputs[0], tiny.chained(x, 10))


def test_a_busy_handle_says_so_in_c(tiny, build) -> None:
    plan = tiny.plan(tiny.step("t_wait", 0, tiny.input, tiny.output))
    with compiled.load(build(plan), threads=2) as model:
        x, out = compiled._aligned_empty(model.inputs[0]), compiled._aligned_empty(model.outputs[0])
        x[:], out[:] = 0, 0
        pointers = ctypes.c_void_p * 1
        arguments = (model._handle, pointers(x.ctypes.data), pointers(out.ctypes.data))
        first = threading.Thread(target=model._library.id_run, args=arguments)
        first.start()
        deadline = time.monotonic() + 20
        while not (out == -1).any() and time.monotonic() < deadline:
            time.sleep(0.001)
        running = (out == -1).any()
        code = model._library.id_run(*arguments) if running else None
        x[0, 0] = 1
        first.join()
        assert code == BUSY
        assert model._library.id_run(*arguments) == 0


def test_profile_times_every_step(tiny, build, pixels) -> None:
    for threads in (1, 2):
        with compiled.load(build(tiny.chain(5)), threads=threads) as model:
            times = model.profile(pixels)
            assert [(t.name, t.op, t.macs) for t in times] == [
                (f"t_gather_{i}", "gather", 10_000_000) for i in range(5)
            ]
            assert all(0 < t.ms < 5000 for t in times)
            np.testing.assert_array_equal(model.run(pixels)[0], tiny.chained(pixels, 5))


def test_a_failed_step_is_named_and_the_next_run_works(tiny, build, pixels) -> None:
    for threads in (1, 2, 4):
        plan = tiny.plan(
            tiny.step("t_copy", 0, tiny.input, tiny.at(0)),
            tiny.step("t_fail", 1, tiny.at(0), tiny.at(1), name="delicate"),
            tiny.step("t_copy", 2, tiny.at(1), tiny.output),
            arrays=2,
        )
        bad = pixels.copy()
        bad[0, 2000] = 13
        with compiled.load(build(plan), threads=threads) as model:
            for _ in range(5):
                with pytest.raises(DeployError, match=r"step delicate \(fail\) failed") as caught:
                    model.run(bad)
                assert caught.value.kind == "kernel"
                np.testing.assert_array_equal(model.run(pixels)[0], pixels[0])


def test_a_model_without_steps(tiny, build, pixels) -> None:
    with compiled.load(build(tiny.plan(weights=b"")), threads=2) as model:
        assert len(model.run(pixels)) == 1
        assert model.profile(pixels) == []


def test_threads_end_with_the_model(tiny, build, pixels) -> None:
    folder = build(tiny.chain(3))
    before = len(os.listdir("/proc/self/task"))
    for _ in range(20):
        with compiled.load(folder, threads=4) as model:
            model.run(pixels)
            assert len(os.listdir("/proc/self/task")) == before + 3
    assert len(os.listdir("/proc/self/task")) == before
    model.close()
    with pytest.raises(DeployError, match="closed"):
        model.run(pixels)


def test_one_thread_starts_none(tiny, build) -> None:
    before = len(os.listdir("/proc/self/task"))
    with compiled.load(build(tiny.chain(3)), threads=1):
        assert len(os.listdir("/proc/self/task")) == before


def test_an_idle_model_takes_no_processor_time(tiny, build, pixels) -> None:
    with compiled.load(build(tiny.chain(10)), threads=2) as model:
        model.run(pixels)
        time.sleep(0.05)
        start = time.process_time()
        time.sleep(0.5)
        assert time.process_time() - start < 0.05


def test_a_forked_child_is_refused_and_can_open_its_own(tiny, build, pixels) -> None:
    folder = build(tiny.chain(3))
    with compiled.load(folder, threads=2) as model:
        model.run(pixels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # Python's own advice against forking with threads
            child = os.fork()
        if child == 0:
            signal.alarm(20)  # a hang must not be the parent's
            status = 1
            try:
                model.run(pixels)
            except DeployError as error:
                model.close()
                with compiled.load(folder, threads=2) as own:
                    right = np.array_equal(own.run(pixels)[0], tiny.chained(pixels, 3))
                status = 0 if right and "fork" in error.message else 2
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        np.testing.assert_array_equal(model.run(pixels)[0], tiny.chained(pixels, 3))


def test_a_fresh_process_needs_nothing_else(tiny, build) -> None:
    """The library names its own dependencies: it loads with every symbol bound, in a process that has nothing loaded."""
    folder = build(tiny.chain(3))
    code = f"import ctypes, os; ctypes.CDLL({str(folder / 'model.so')!r}, mode=os.RTLD_NOW)"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_only_the_interface_is_visible(tiny, build) -> None:
    loaded = ctypes.CDLL(str(build(tiny.chain(3)) / "model.so"))
    assert hasattr(loaded, "id_run")
    hidden = ["t_gather", "id_chunks_make", "id_team_start", "id_model_tables", "__TVMBackendAllocWorkspace"]
    assert [name for name in hidden if hasattr(loaded, name)] == []


def test_a_library_that_was_replaced_is_the_new_one(tiny, build) -> None:
    one, other = build(tiny.chain(1)), build(tiny.chain(3))
    with compiled.load(one) as model:
        assert model.waves == 1
    for path in one.iterdir():
        path.unlink()
        (other / path.name).rename(path)
    with compiled.load(one) as model:
        assert model.waves == 3


def test_description(tiny, build) -> None:
    odd = 'says "what??/"\\ n\u00e4me\n0'
    plan = tiny.plan(tiny.step("t_copy", 0, tiny.input, tiny.output, name=odd))
    with compiled.load(build(plan), threads=1) as model:
        assert model.inputs == (compiled.Port("pixels", (1, 4096), "float32"),)
        assert model.outputs == (compiled.Port("out0", (4096,), "float32"),)
        assert (model.target, model.features, model.arena_bytes, model.waves) == ("cpu", (), 16384, 1)
        assert model.profile(np.zeros((1, 4096), dtype=np.float32))[0].name == odd


def test_the_default_is_one_thread_per_processor(tiny, build) -> None:
    folder = build(tiny.chain(1))
    with compiled.load(folder) as model:
        assert model.threads == min(256, len(os.sched_getaffinity(0)))


def test_python_and_c_agree_on_the_processors(tiny, build) -> None:
    folder = build(tiny.chain(1))
    with compiled.load(folder, threads=1) as model:
        handle = ctypes.c_void_p()
        assert model._library.id_open(os.fsencode(folder / "weights.bin"), 0, ctypes.byref(handle)) == 0
        assert model._library.id_threads(handle) == len(os.sched_getaffinity(0))
        model._library.id_close(handle)


def test_weights_may_be_replaced_while_a_model_is_open(tiny, build, pixels, tmp_path: Path) -> None:
    folder = build(tiny.chain(3))
    with compiled.load(folder, threads=1) as model:
        (tmp_path / "other").write_bytes(b"other")
        os.replace(tmp_path / "other", folder / "weights.bin")
        np.testing.assert_array_equal(model.run(pixels)[0], tiny.chained(pixels, 3))
