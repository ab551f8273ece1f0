"""A bundle for GPUs in Triton's python backend: model.py over the simulated driver."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

import inception_deploy.verify as verify
from inception_deploy import serving
from inception_deploy.bundles import explain
from inception_deploy.graph import driver
from inception_deploy.lower.lower import lower
from inception_deploy.runtime import bundle as bundles
from inception_deploy.sources import resolve
from inception_deploy.targets import cuda, cuda_library
from inception_deploy.targets.cuda_compile import kernel_source

from ...conftest import tiny_manifest
from ...serving import backend
from .conftest import Gpu, fake_cubin


@pytest.mark.slow
def test_the_model_runs_on_a_gpu(simulated: Gpu, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = cuda.parse("cuda", "sm_80")
    source = resolve.resolve(resolve.Request(model="lenet5", width=0.5, batch=2))
    model, _ = driver.optimise(source.onnx(lambda _what: None), target="cuda")
    plan = lower(model, target)
    folder = tmp_path / "bundle"
    folder.mkdir()
    cubins = {arch: dict.fromkeys(plan.kernels, fake_cubin(arch)) for arch in target.archs}
    cuda_library.write_library(plan, cubins, folder, triple=simulated.triple)
    onnx.save(model, folder / "model.onnx")
    inputs, outputs = (
        [{"name": port.name, "shape": list(port.shape), "dtype": port.dtype} for port in side]
        for side in (plan.inputs, plan.outputs)
    )
    said = {
        "model": "lenet5",
        "target": "cuda:sm_80",
        "target_details": target.describe(),
        "inputs": inputs,
        "outputs": outputs,
    }
    explain.write(folder, tiny_manifest() | said | {"labels": None}, [])
    bundles.seal(folder, tiny_manifest() | said)
    assert serving.write("triton", tmp_path, folder)["models"] == ["lenet5", "lenet5_onnx"]
    assert "kind: KIND_GPU" in (tmp_path / "lenet5" / "config.pbtxt").read_text()
    assert "--gpus all" in (tmp_path / "README.md").read_text()

    simulated.install(simulated.compile([kernel_source(kernel) for kernel in plan.kernels.values()]))
    simulated.library.fake_device(1, 80)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    served = backend.started(tmp_path / "lenet5", kind="GPU")
    x = np.random.default_rng(0).standard_normal((3, *inputs[0]["shape"][1:]), dtype=np.float32)
    requests = [backend.Request(**{inputs[0]["name"]: part}) for part in (x[:1], x[1:])]
    got = np.concatenate([answer.outputs[outputs[0]["name"]] for answer in served.execute(requests)])
    free = onnx.load(tmp_path / "lenet5_onnx" / "1" / "model.onnx")
    verify.require_ok(verify.compare(verify.run_onnx(free, {inputs[0]["name"]: x})[0], got, "compiled"))
