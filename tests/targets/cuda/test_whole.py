"""A network as it is used: Inception-ResNet v2 at 299 in fp16, every launch of its bundle on the simulated GPU."""

from __future__ import annotations

import numpy as np
import pytest

from inception_deploy import verify
from inception_deploy.graph import driver
from inception_deploy.lower.lower import lower
from inception_deploy.runtime import compiled
from inception_deploy.sources import resolve
from inception_deploy.targets import cuda

from .conftest import bundle

MOST_NODES = 260
"""Of the graph of an inference."""

EARLY = 150
"""Launches that begin before what they wait for has ended, at the least."""


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_irv2_in_fp16(simulated, tmp_path):
    target = cuda.parse("cuda", "sm_90").at("fp16")
    model, _ = driver.optimise(resolve.resolve(resolve.Request(model="irv2")).onnx(lambda _what: None), target="cuda")
    plan = lower(model, target)
    bundle(simulated, plan, target.archs, tmp_path)
    x = np.random.default_rng(0).standard_normal(plan.inputs[0].shape).astype(np.float32)
    (expected,) = verify.run_onnx(model, {plan.inputs[0].name: x})
    before, early = simulated.library.fake_launches(), simulated.library.fake_early()
    with compiled.load(tmp_path) as opened:
        (got,) = opened.run(x)
    nodes = simulated.library.fake_launches() - before
    assert nodes <= MOST_NODES, nodes
    assert simulated.library.fake_early() - early >= EARLY
    near = verify.tolerance(target.precision.stage).max_rel
    error = np.abs(got - expected).max() / np.abs(expected).max()
    print(f"{nodes} nodes, off by {error:.1e} of the largest logit")
    assert error <= near
