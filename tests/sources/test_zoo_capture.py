"""Every network of the zoo, exported and optimised, computes what torch does and costs what the table says."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inception_deploy import models
from inception_deploy.graph.cost import cost
from inception_deploy.graph.driver import optimise
from inception_deploy.models.base import Network
from inception_deploy.sources import capture
from inception_deploy.verify import compare, require_ok, run_onnx

SMALL: dict[str, dict[str, Any]] = {
    "lenet5": {},
    "alexnet": {"width": 0.125},
    "resnet50": {"width": 0.125, "blocks": (1, 1, 1, 1)},
    "resnext50_32x4d": {"width": 0.25, "blocks": (1, 1, 1, 1)},
    "googlenet": {"width": 0.125},
    "inception_v4": {"width": 0.125, "blocks": (1, 1, 1)},
    "inception_resnet_v2": {"width": 0.125, "blocks": (2, 1, 1)},
    "xception": {"width": 0.125, "blocks": 1},
    "mobilenet_v1": {"width": 0.25},
}
"""One of each kind of graph, as small as it can be and still have all its blocks; the slow test has every network."""


def check(module: Network) -> int:
    """Export and optimise `module`; compare each stage with the one before it. Gives the multiply-accumulates."""
    shape = (1, *module.input_shape)
    x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    model = capture.to_onnx(module, shape)
    assert capture.exporter_of(model) == "torch.export"
    require_ok(capture.check_against_torch(module, model, x))
    optimised, effects = optimise(model, verify=False)
    before, after = (run_onnx(stage, {"input": x})[0] for stage in (model, optimised))
    require_ok(compare(before, after, "optimised"))
    operators = {node.op_type for node in optimised.graph.node}
    assert not operators & {"BatchNormalization", "Identity", "Dropout", "Constant", "Reshape"}
    # LeNet's scaled tanh keeps two factors around each pooling; everywhere else every factor has a convolution.
    assert "Mul" not in operators or module.spec.family == "lenet"
    assert effects[0].macs_before == effects[-1].macs_after == cost(optimised).macs
    return effects[-1].macs_after


@pytest.mark.parametrize("name", SMALL)
def test_small_forms(name: str) -> None:
    size = models.spec(name).minimum
    check(models.build(name, num_classes=10, input_size=(size, size), **SMALL[name]))


@pytest.mark.slow
@pytest.mark.parametrize("name", models.names())
def test_full_networks(name: str) -> None:
    assert check(models.build(name)) == models.spec(name).macs
