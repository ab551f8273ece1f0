"""Heads of networks on the simulated GPU: a result of one pixel is written as the caller has it, without a launch that
copies it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest

from inception_deploy.lower.lower import lower
from inception_deploy.targets import cuda
from inception_deploy.verify import tolerance

from ...lower.conftest import Builder
from .conftest import both_orders, bundle

CLASSES = 37


def dense(b: Any, x: str) -> str:
    """A fully connected layer."""
    return str(
        b.op("Gemm", b.op("Flatten", b.op("GlobalAveragePool", x)), b.weight(CLASSES, 20), b.weight(CLASSES), transB=1)
    )


def convolution(b: Any, x: str) -> str:
    """A 1x1 convolution of one pixel, as MobileNet's."""
    return str(b.op("Flatten", b.conv(b.op("GlobalAveragePool", x), 20, CLASSES, (1, 1))))


def likely(b: Any, x: str) -> str:
    """Its softmax."""
    return str(b.op("Softmax", dense(b, x), axis=-1))


def read_twice(b: Any, x: str) -> str:
    """Blocks, which another layer reads, too."""
    y = b.conv(b.op("GlobalAveragePool", x), 20, CLASSES, (1, 1))
    return str(b.op("Add", b.op("Flatten", y), b.op("Flatten", b.conv(y, CLASSES, CLASSES, (1, 1)))))


@pytest.mark.parametrize("precision", ["fp32", "fp32-exact", "fp16"])
@pytest.mark.parametrize(("head", "ends"), [(dense, True), (convolution, True), (likely, True), (read_twice, False)])
@pytest.mark.parametrize("batch", [1, 3, 11])
def test_the_last_launch_writes_the_output(
    simulated: Any, tmp_path: Path, head: Callable[[Any, str], str], ends: bool, batch: int, precision: str
) -> None:
    b = Builder()
    x = b.input(batch, 3, 8, 8)
    model = b.model(head(b, b.op("Relu", b.conv(x, 3, 20, (3, 3)))))
    target = cuda.parse("cuda", "sm_90").at(precision)
    plan = lower(model, target)
    assert any(step.op == "unpack" for step in plan.steps) != ends
    (given,) = b.inputs.values()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (expected,) = session.run(None, b.inputs)
    found = both_orders(simulated, bundle(simulated, plan, target.archs, tmp_path), given)
    near = tolerance(target.precision.stage).max_rel * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=near)
