"""benchmarks/cuda_check.py on the simulated GPU: what it finds, and what it says where something is wrong or missing."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from inception_deploy import artifact
from inception_deploy.graph import driver
from inception_deploy.kernels import isa as isas
from inception_deploy.kernels.cards import card_of
from inception_deploy.lower.lower import lower
from inception_deploy.pipeline import layout
from inception_deploy.quantize import quantize
from inception_deploy.runtime import bundle as bundles
from inception_deploy.sources import resolve
from inception_deploy.targets import cuda, cuda_library
from inception_deploy.targets.cuda_compile import kernel_source
from inception_deploy.tuning import gpu_trial
from inception_deploy.tuning.tuned import load

from ...conftest import tiny_manifest
from .conftest import fake_cubin

SCRIPT = Path(__file__).resolve().parents[3] / "benchmarks" / "cuda_check.py"


@pytest.fixture(scope="module")
def check() -> Any:
    spec = importlib.util.spec_from_file_location("cuda_check", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def prepared(check, simulated, tmp_path_factory):
    """What --prepare leaves, with images that only the simulated driver takes; and the kernels."""
    folder = tmp_path_factory.mktemp("bundles")
    source = resolve.resolve(resolve.Request(model="lenet5", width=0.5))
    model, _ = driver.optimise(source.onnx(lambda _what: None), target="cuda")
    shape = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim][1:]
    pictures = np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32)
    kernels = {}
    for precision, given in (("fp32", model), ("int8", quantize(model, list(pictures)).model)):
        target = cuda.parse("cuda", "sm_90").at(precision)
        plan = lower(given, target)
        kernels |= plan.kernels
        cubins = {arch: dict.fromkeys(plan.kernels, fake_cubin(arch)) for arch in target.archs}
        bundle = folder / f"lenet5-{precision}-1"
        bundle.mkdir()
        cuda_library.write_library(plan, cubins, bundle, triple=simulated.triple)
        onnx.save(model, bundle / bundles.ONNX)
        if precision == "int8":
            onnx.save(given, bundle / bundles.INT8_ONNX)
        artifact.dump_json(layout(plan), bundle / bundles.PLAN)
        inputs = [{"name": port.name, "shape": list(port.shape), "dtype": port.dtype} for port in plan.inputs]
        bundles.seal(bundle, tiny_manifest() | {"inputs": inputs, "target": "cuda:sm_90"})
        with bundles.open(bundle) as opened:
            np.save(check.beside(bundle, "expected.npy"), check.expected(opened, precision))
    return folder, simulated.compile([kernel_source(kernel) for kernel in kernels.values()])


@pytest.fixture
def run(check, simulated, prepared, tmp_path, monkeypatch):
    folder, kernels = prepared
    simulated.install(kernels)
    simulated.library.fake_device(1, 90)
    monkeypatch.setattr(check, "TIMED", ("lenet5",))
    monkeypatch.setattr(
        check, "interleaved", lambda calls, seconds: {name: call() and 1.0 for name, call in calls.items()}
    )
    return check.Run(folder, tmp_path / "out", time.monotonic() + 120)


def test_says_what_is_right_and_what_is_not_installed(check, run) -> None:
    assert check.check(run)
    found = json.loads((run.out / "cuda_check.json").read_text())
    assert found["card"]["name"] == "simulated"
    assert [(row["precision"], row["ok"]) for row in found["verified"]] == [("fp32", True), ("int8", True)]
    assert all(row["max_rel"] <= row["tolerance"] and row["as_with_full_edges"] for row in found["verified"])
    for timed in found["latency"]:
        assert timed["ms"] == {"ours": 1.0, check.FULL: 1.0}
        assert set(timed["without"]) == {"torch", "torch.compile", "onnxruntime", "tensorrt"}
    for precision in ("fp32", "int8"):
        convs = [entry for entry in found["layers"][f"lenet5 {precision}"] if entry["op"] == "conv"]
        assert convs
        assert all(0 < entry["products_us"] < entry["us"] and 0 < entry["bytes_us"] < entry["us"] for entry in convs)
    text = (run.out / "cuda_check.md").read_text()
    assert "| lenet5 | fp32 | 1 |" in text
    assert "| lenet5 | int8 | 1 | 0.0e+00 | right |" in text, "every bit"
    assert "Without tensorrt" in text


ALONE = """
import ctypes, importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"tvm", "torch", "onnx", "onnxruntime", "ziglang", "nvidia", "timm", "torchvision"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
driver, kernels = (ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL) for path in sys.argv[1:3])
driver.fake_kernels(ctypes.c_void_p(ctypes.addressof(ctypes.c_char.in_dll(kernels, "table"))))
driver.fake_device(1, 90)
import runpy
sys.argv = sys.argv[3:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_it_takes_bundles_and_a_checkout_alone(simulated, prepared, tmp_path) -> None:
    """No TVM, no PyTorch, no ONNX, no compiler: a process that has none of them."""
    folder, kernels = prepared
    libraries = (str(simulated.folder / "libcuda.so.1"), kernels._name)
    script = (str(SCRIPT), "--bundles", str(folder), "--out", str(tmp_path / "out"), "--minutes", "2")
    done = subprocess.run(
        [sys.executable, "-c", ALONE, *libraries, *script], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "cuda_check.json").read_text())
    assert found["card"]["name"] == "simulated"
    assert [row["ok"] for row in found["verified"]] == [True, True], found
    assert not found.get("failed"), found
    assert (tmp_path / "out" / "cuda_check.md").is_file()


def test_a_wrong_answer_fails_the_check(check, run, tmp_path) -> None:
    (tmp_path / "bundles").mkdir()
    (tmp_path / "bundles" / "lenet5-fp32-1").symlink_to(run.bundles / "lenet5-fp32-1")
    wrong = np.load(run.bundles / "lenet5-fp32-1.expected.npy")[:, ::-1]
    np.save(tmp_path / "bundles" / "lenet5-fp32-1.expected.npy", wrong)
    run.bundles = tmp_path / "bundles"
    assert not check.check(run)
    assert "WRONG" in (run.out / "cuda_check.md").read_text()


def test_what_fails_is_written_and_the_rest_goes_on(check, run, simulated) -> None:
    simulated.library.fake_device(0, 90)
    assert not check.check(run)
    found = json.loads((run.out / "cuda_check.json").read_text())
    assert found["failed"]["card"] == "the NVIDIA driver finds no GPU"
    assert "no device or driver" in found["verified"][0]["error"]


def test_without_time_nothing_is_claimed(check, run) -> None:
    run.ends = time.monotonic() - 1
    assert not check.check(run)
    assert set(run.results["failed"].values()) == {"no time was left"}


def test_trials_are_built_here_run_there_and_make_a_database(check, run, simulated, tmp_path, monkeypatch) -> None:
    """What is prepared with TVM runs without it; `export --tuned` takes what it found."""
    kernels = {}

    def compile_kernels(those, archs, _progress=None):
        kernels.update({kernel.symbol: kernel for kernel in those})
        return {arch: dict.fromkeys(kernels, fake_cubin(arch)) for arch in archs}

    monkeypatch.setattr(gpu_trial, "compile_kernels", compile_kernels)
    monkeypatch.setattr(isas, "card_of", lambda arch: replace(card_of(arch), level2_bytes=1 << 14))
    monkeypatch.setattr(gpu_trial, "LAUNCHES", 1)
    check.prepare_trials(tmp_path / "bundles", "cuda:sm_90", "lenet5", "fp16", 2)
    simulated.install(simulated.compile([kernel_source(kernel) for kernel in kernels.values()]))
    run.bundles = tmp_path / "bundles"
    check.tuned(run)
    tasks = run.results["tuning"]["tasks"]
    assert tasks
    assert all(len(row["seconds"]) == 3 and len(set(map(len, row["seconds"]))) == 1 for row in tasks)
    assert simulated.library.fake_live() == 0
    count = check.records(run.out, tmp_path / "db")
    assert count == 2 * sum(len(row["knobs"]) for row in tasks)
    target = load(tmp_path / "db", "lenet5", cuda.parse("cuda", "sm_90"))
    assert target.precision.name == "fp16"
    assert "judged one layer at a time" in target.note()
