"""Networks of the zoo, narrow and on small pictures, from PyTorch to a bundle that the simulated GPU runs."""

from __future__ import annotations

import numpy as np
import pytest

from inception_deploy import verify
from inception_deploy.graph import driver
from inception_deploy.lower.lower import lower
from inception_deploy.runtime.compiled import load as load_compiled
from inception_deploy.sources import resolve
from inception_deploy.targets import cuda, cuda_library
from inception_deploy.targets.cuda_compile import kernel_source
from inception_deploy.verify import bound

from .conftest import fake_cubin

NETWORKS = {
    "irv2": {"input_size": (75, 75), "width": 0.125, "batch": 2},
    "inception_v3": {"input_size": (75, 75), "width": 0.125},
    "googlenet": {"input_size": (64, 64), "width": 0.25},
    "resnext50_32x4d": {"input_size": (64, 64), "width": 0.5},
    "mobilenet_v1": {"input_size": (64, 64), "width": 0.25, "batch": 3},
    "xception": {"input_size": (71, 71), "width": 0.125},
    "alexnet": {"input_size": (64, 64), "width": 0.25, "batch": 9},
}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("name", NETWORKS)
def test_network(simulated, tmp_path, name, precision):
    target = cuda.parse("cuda", "sm_90").at(precision)
    source = resolve.resolve(resolve.Request(model=name, num_classes=20, **NETWORKS[name]))
    model, _ = driver.optimise(source.onnx(lambda _what: None), target="cuda")
    plan = lower(model, target)
    cubins = {arch: dict.fromkeys(plan.kernels, fake_cubin(arch)) for arch in target.archs}
    cuda_library.write_library(plan, cubins, tmp_path, triple=simulated.triple)
    simulated.install(simulated.compile([kernel_source(kernel) for kernel in plan.kernels.values()]))
    simulated.library.fake_device(1, 90)
    x = np.random.default_rng(0).standard_normal(plan.inputs[0].shape).astype(np.float32)
    (expected,) = verify.run_onnx(model, {plan.inputs[0].name: x})
    with load_compiled(tmp_path) as compiled:
        results = []
        for backwards in (0, 1):
            simulated.library.fake_backwards(backwards)
            results.append(compiled.run(x)[0])
    simulated.library.fake_backwards(0)
    near = bound("network") if precision == "fp32" else verify.tolerance("compiled-fp16").max_rel
    assert np.abs(results[0] - expected).max() <= near * np.abs(expected).max()
    families = {kernel.family for kernel in plan.kernels.values()}
    assert ("gpu.mma" in families) == (precision == "fp16")
    np.testing.assert_array_equal(results[0], results[1])
    assert simulated.library.fake_live() == 0
