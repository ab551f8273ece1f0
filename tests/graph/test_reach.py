"""What a format of short range cannot keep is refused by name."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from inception_deploy.errors import DeployError
from inception_deploy.graph import reach


def network(scale: float, tail: str = "Sigmoid") -> onnx.ModelProto:
    """Two 1x1 convolutions, the second `scale` times its input, and what follows them."""
    weights = {"one": np.eye(4, dtype=np.float32), "two": np.diag(np.full(4, scale, np.float32))}
    tensors = [numpy_helper.from_array(value.reshape(4, 4, 1, 1), name) for name, value in weights.items()]
    nodes = [
        helper.make_node("Conv", ["x", "one"], ["a"], "first"),
        helper.make_node("Conv", ["a", "two"], ["b"], "second"),
        helper.make_node(tail, ["b"], ["y"], "tail"),
    ]
    ends = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4, 2, 2]) for name in "xy"]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return onnx.shape_inference.infer_shapes(model, strict_mode=True)


X = {"x": np.full((1, 4, 2, 2), 3.0, np.float32)}


def test_says_how_far_each_result_goes() -> None:
    model = network(100.0)
    assert {entry.node: entry.largest for entry in reach.results(model, X)} == {
        "first": 3.0,
        "second": 300.0,
        "tail": 1.0,
    }
    assert [(entry.node, entry.largest) for entry in reach.constants(model)] == [("first", 1.0), ("second", 100.0)]


def test_what_an_epilogue_sees_is_not_stored() -> None:
    assert "second" not in {entry.node for entry in reach.results(network(-1.0, "Relu"), X)}


@pytest.mark.parametrize(("scale", "largest"), [(3e4, 9e4), (1e5, 3e5)])
def test_what_is_too_large_is_named_once(scale: float, largest: float) -> None:
    """By its result, or by its weight, whichever goes further."""
    found = reach.beyond(network(scale), [X], largest=reach.LARGEST_HALF, what="fp16")
    assert found == [reach.Reach("second", largest)]


def test_what_fp32_does_not_hold_either_is_refused() -> None:
    with pytest.raises(DeployError, match="fp16 ends at 65504, and 'second' reaches inf") as caught:
        reach.beyond(network(float("inf")), [X], largest=reach.LARGEST_HALF, what="fp16")
    assert caught.value.kind == "precision"


def test_what_fits_is_left_alone() -> None:
    assert reach.beyond(network(2e4), [X], largest=reach.LARGEST_HALF, what="fp16") == []
