"""Plans for several numbers of images on one copy of the weights: what is packed does not depend on how many there are."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from inception_deploy.graph.rows import with_rows
from inception_deploy.kernels.vector.conv import repacked
from inception_deploy.lower.lower import lower, lower_alike
from inception_deploy.lower.plan import reading

pytestmark = pytest.mark.parametrize("target", ["avx512", "avx2"], indirect=True)

BATCHES = (1, 4, 32)


def network(builder: Any) -> onnx.ModelProto:
    """A convolution for Winograd, whose bands depend on the number of images, pointwise ones and a linear layer."""
    b = builder()
    x = b.op("Relu", b.conv(b.input(1, 3, 40, 40), 3, 16, (3, 3), pads=[1, 1, 1, 1]))
    x = b.op("Relu", b.conv(x, 16, 48, (3, 3), pads=[1, 1, 1, 1]))
    x = b.op("Relu", b.conv(x, 48, 96, (1, 1)))
    x = b.op("Relu", b.conv(x, 96, 96, (3, 3), strides=[2, 2]))
    return onnx.shape_inference.infer_shapes(b.model(b.op("Relu", b.conv(x, 96, 24, (3, 3)))))


def test_weights_are_there_once(target, builder) -> None:
    model = network(builder)
    one, *others = plans = lower_alike((with_rows(model, rows) for rows in BATCHES), target)
    assert any(step.op == "winograd_in" for step in one.steps)
    assert all(plan.weights is one.weights for plan in others)
    assert [plan.inputs[0].shape[0] for plan in plans] == list(BATCHES)
    read = reading(plans)
    assert sum(size for size, _ in read) == len(one.weights)
    own = sum(size for size, readers in read if len(readers) < len(plans))
    assert own < 1024, "what a band of Winograd's begins at is a constant of its own"
    alone = lower(model, target)
    assert one.steps == alone.steps
    assert len(alone.weights) <= len(one.weights) < len(alone.weights) + 1024
    assert one.weights[: len(alone.weights)] == alone.weights


def test_without_that_they_would_not_be(target, builder) -> None:
    """The network is one that shows it: by themselves, plans of these numbers pack otherwise."""
    model = network(builder)
    parts = [lower(with_rows(model, rows), target).weights for rows in BATCHES]
    assert len({np.frombuffer(part, np.uint8).sum() for part in parts}) > 1


def test_a_tile_for_another_packing(target, builder) -> None:
    (plan,) = lower_alike([network(builder)], target)
    convs = [kernel for kernel in plan.kernels.values() if hasattr(kernel.schedule, "vectors")]
    assert convs
    for kernel in convs:
        schedule = repacked(kernel.spec, kernel.schedule, 2)
        assert schedule.vectors == 2
        assert schedule.pixels >= 1
        assert schedule.pixels * 2 <= max(2, kernel.schedule.pixels * kernel.schedule.vectors)
