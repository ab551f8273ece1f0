"""`tune --target cuda:sm_90` on the simulated driver, whose clock counts launches and blocks: the same every time."""

from __future__ import annotations

import ctypes
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import pytest

from inception_deploy import verify
from inception_deploy.errors import DeployError, UsageError
from inception_deploy.graph import driver as driver_of_graphs
from inception_deploy.kernels import isa as isas
from inception_deploy.kernels.cards import card_of
from inception_deploy.lower.lower import lower
from inception_deploy.runtime import compiled
from inception_deploy.sources import resolve
from inception_deploy.targets import cuda, cuda_compile
from inception_deploy.targets.cuda_compile import kernel_source
from inception_deploy.tuning import gpu_trial, session, settle
from inception_deploy.tuning.measure import Runners, time_trial
from inception_deploy.tuning.tuned import TunedCuda, load

from ...tuning.tracker import fleet
from .conftest import fake_cubin

REQUEST = {"model": "lenet5", "width": 0.5}
MS_A_BLOCK = 0.01
KEY = "gpu"


class InProcess:
    """A runner of MetaSchedule's kind, without its processes: the simulated driver is loaded in this one."""

    def __init__(self, config: Any) -> None:
        self.config = config

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        import tvm
        from tvm.s_tir.meta_schedule.runner import LocalRunnerFuture

        modules = [tvm.runtime.load_module(str(given.artifact_path)) for given in inputs]
        return [LocalRunnerFuture(time_trial(1, module, self.config), None) for module in modules]


@pytest.fixture
def here(simulated, monkeypatch):
    """A machine whose GPU is the simulated one, with a small second-level cache."""
    lock = Lock()

    def compile_kernels(kernels, archs, _progress=None):
        with lock:
            kernels = {kernel.symbol: kernel for kernel in kernels}
            simulated.add(simulated.compile([kernel_source(kernel) for kernel in kernels.values()]))
            return {arch: dict.fromkeys(kernels, fake_cubin(arch)) for arch in archs}

    monkeypatch.setattr(gpu_trial, "compile_kernels", compile_kernels)
    monkeypatch.setattr(cuda_compile, "compile_kernels", compile_kernels)
    monkeypatch.setattr(cuda.Cuda, "unbuildable", lambda _self: None)
    monkeypatch.setattr(isas, "card_of", lambda arch: replace(card_of(arch), level2_bytes=1 << 14))
    monkeypatch.setattr(gpu_trial, "LAUNCHES", 2)
    runners = Runners(InProcess)
    monkeypatch.setattr(runners, "close", lambda: None)
    monkeypatch.setattr(session, "local_runners", lambda _threads: runners)
    monkeypatch.setattr(
        settle.Contest, "seconds", lambda self, name: sum(t.ms for t in self.models[name].profile(*self.inputs))
    )
    simulated.library.fake_kernels(None)
    simulated.library.fake_device(1, 90)
    simulated.library.fake_block_ms.argtypes = [ctypes.c_double]
    simulated.library.fake_block_ms(MS_A_BLOCK)
    yield simulated
    simulated.library.fake_block_ms(0.0)


def tuned(folder: Path, trials: int = 6, **more: Any) -> dict[str, Any]:
    return session.tune(
        resolve.Request(**REQUEST), folder, target="cuda:sm_90", precision="fp16", trials=trials, **more
    )


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_tuning_finds_what_is_faster_and_an_export_takes_it(here, tmp_path):
    document = tuned(tmp_path / "db")
    assert document["measured"] == "network"
    assert document["kept"] > 0
    assert document["after_ms"] < document["before_ms"]
    header = json.loads((tmp_path / "db" / "tuning.json").read_text())
    assert header["target"] == "cuda:sm_90 at fp16"
    assert header["machine"] == {"kind": "cuda", "archs": "sm_90", "card": "h100"}

    source = resolve.resolve(resolve.Request(**REQUEST))
    model, _ = driver_of_graphs.optimise(source.onnx(lambda _what: None), target="cuda")
    target = load(tmp_path / "db", source.name, cuda.parse("cuda", "sm_90"))
    assert isinstance(target, TunedCuda)
    plan, plain = lower(model, target), lower(model, cuda.parse("cuda", "sm_90").at("fp16"))
    assert len(target.used) == document["kept"]
    assert _blocks(plan) < _blocks(plain), "of the simulated clock fewer blocks are faster"

    (tmp_path / "bundle").mkdir()
    target.build(plan, tmp_path / "bundle")
    x = np.random.default_rng(0).standard_normal(plan.inputs[0].shape).astype(np.float32)
    with compiled.load(tmp_path / "bundle") as opened:
        (got,) = opened.run(x)
    (expected,) = verify.run_onnx(model, {plan.inputs[0].name: x})
    assert np.abs(got - expected).max() <= verify.tolerance("compiled-fp16").max_rel * np.abs(expected).max()
    assert here.library.fake_live() == 0


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_behind_a_tracker(here, tmp_path):
    """TVM's own tracker and two servers, whose GPUs are simulated: what is sent there is a trial's library and no more."""
    driver = str(here.folder / "libcuda.so.1")
    surroundings = {"LD_PRELOAD": driver, "FAKE_KERNELS": str(here.folder), "FAKE_BLOCK_MS": str(MS_A_BLOCK)}
    with fleet(KEY, **surroundings) as address:
        document = tuned(tmp_path / "far.db", tracker=address, device_key=KEY)
    assert document["measured"] == "tasks"
    assert document["after_ms"] < document["before_ms"]
    target = load(tmp_path / "far.db", "lenet5", cuda.parse("cuda", "sm_90"))
    source = resolve.resolve(resolve.Request(**REQUEST))
    model, _ = driver_of_graphs.optimise(source.onnx(lambda _what: None), target="cuda")
    plain = lower(model, cuda.parse("cuda", "sm_90").at("fp16"))
    assert _blocks(lower(model, target)) < _blocks(plain), "of the simulated clock fewer blocks are faster"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_server_without_a_gpu_says_so(here, tmp_path):
    """Every trial fails there, the defaults' too, and that is told; no record is of what did not run."""
    with fleet(KEY, servers=1) as address, pytest.raises(DeployError) as caught:
        tuned(tmp_path / "far.db", trials=1, tracker=address, device_key=KEY)
    assert "there is no GPU that it was built for, or no driver" in caught.value.message


def _blocks(plan) -> int:
    return sum(plan.kernels[step.kernel].units for step in plan.steps)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_the_same_command_gives_the_same_records_and_goes_on(here, tmp_path):
    tuned(tmp_path / "one", trials=2)
    tuned(tmp_path / "two", trials=2)
    record = "database_tuning_record.json"
    assert (tmp_path / "one" / record).read_bytes() == (tmp_path / "two" / record).read_bytes()
    before = (tmp_path / "one" / record).read_bytes()
    tuned(tmp_path / "one", trials=3, resume=True)
    assert (tmp_path / "one" / record).read_bytes().startswith(before)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_database_is_of_one_card_and_one_precision(here, tmp_path):
    tuned(tmp_path / "db", trials=1)
    for other in ("sm_80", "h200"):
        with pytest.raises(DeployError, match="is of target cuda:sm_90 at fp16") as caught:
            load(tmp_path / "db", "lenet5", cuda.parse("cuda", other))
        assert caught.value.kind == "database"
    with pytest.raises(DeployError, match="is of target"):
        session.tune(
            resolve.Request(**REQUEST), tmp_path / "db", target="cuda:sm_90", precision="int8", trials=1, resume=True
        )


def test_a_sample_is_of_cold_weights(here):
    """Between two samples more than the second-level cache is read and written; the launches of one have weights of their own."""
    from inception_deploy.kernels.spec import Conv
    from inception_deploy.tuning.space import Space
    from inception_deploy.tuning.task import Task

    target = cuda.parse("cuda", "sm_90").at("fp32")
    task = Task(Conv(1, 32, 9, 9, 64, 9, 9, (1, 1), add=True), False, 1, ("a",))
    space = Space(task, target)
    made = gpu_trial.plan(task.spec, [space.default, space.groups[-1].base], target)
    samples = [step for step in made.steps if step.op.startswith("choice")]
    assert len(samples) == 2 * gpu_trial.ROUNDS * gpu_trial.LAUNCHES
    weights = {step.args[1].offset for step in samples[: gpu_trial.LAUNCHES]}
    assert len(weights) == gpu_trial.LAUNCHES
    between = [s for s in made.steps if s.op == gpu_trial.PREPARE]
    assert len(between) >= 2 * 2 * gpu_trial.ROUNDS


def test_what_is_for_cpus_is_refused(here, tmp_path):
    for option in ({"threads": 2}, {"device": "ssh://board"}):
        with pytest.raises(UsageError, match="is for CPUs; cuda:sm_90 is measured on a GPU of this machine"):
            tuned(tmp_path / "db", **option)
    assert not (tmp_path / "db").exists()
