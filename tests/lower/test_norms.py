"""Normalization over pixels and groups of channels is computed on the map: the numbers stay, whatever the mean is."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import numpy_helper

from .test_islands import Network, check


def group_norm(net: Network, x: str, groups: int, *affine: str) -> str:
    """As PyTorch exports it."""
    channels = net.shape[1]
    for name, shape in (("groups", [0, groups, -1]), ("maps", net.shape)):
        net.tensors.append(numpy_helper.from_array(np.array(shape, np.int64), name))
    for name, number in (("ones", 1), ("zeros", 0)):
        net.tensors.append(numpy_helper.from_array(np.full(groups, number, np.float32), name))
    y = net.op("InstanceNormalization", net.op("Reshape", x, "groups"), *(affine or ("ones", "zeros")), epsilon=1e-5)
    y = net.op("Mul", net.op("Reshape", y, "maps"), net.weight(channels, 1, 1))
    return net.op("Add", y, net.weight(channels, 1, 1))


def far(net: Network) -> str:
    """A map whose mean is ten times its deviation."""
    net.tensors.append(numpy_helper.from_array(np.float32(10), "far"))
    return net.op("Add", net.x, "far")


@pytest.mark.parametrize(("channels", "groups"), [(20, 1), (24, 4), (32, 32)])
def test_group_normalization_of_a_map_far_from_zero(tmp_path, channels, groups) -> None:
    net = Network(channels)
    plan = check(net.model(net.op("Relu", group_norm(net, far(net), groups))), tmp_path)
    ours = [step.op for step in plan.steps]
    assert {"global_average", "global_l2", "sub", "mul"} <= set(ours)
    assert "InstanceNormalization" not in {refusal.op for refusal in plan.refusals}


def test_a_scale_and_a_bias_of_groups(tmp_path) -> None:
    net = Network(24)
    check(net.model(group_norm(net, net.x, 4, net.weight(4), net.weight(4))), tmp_path)


def test_instance_normalization(tmp_path) -> None:
    net = Network(20)
    plan = check(net.model(net.op("InstanceNormalization", far(net), net.weight(20), net.weight(20))), tmp_path)
    assert "InstanceNormalization" not in {refusal.op for refusal in plan.refusals}


def test_what_is_read_in_between_stays_as_it_is(tmp_path) -> None:
    """The flattened map has another reader."""
    net = Network()
    net.tensors.append(numpy_helper.from_array(np.array([0, 4, -1], np.int64), "flat"))
    net.tensors.append(numpy_helper.from_array(np.array(net.shape, np.int64), "back"))
    flat = net.op("Reshape", net.x, "flat")
    norm = net.op("InstanceNormalization", flat, net.weight(4), net.weight(4))
    plan = check(net.model(net.op("Reshape", net.op("Add", flat, norm), "back")), tmp_path)
    assert "InstanceNormalization" in {refusal.op for refusal in plan.refusals}
