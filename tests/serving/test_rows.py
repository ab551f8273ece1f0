"""An ONNX of a fixed batch takes any number of rows afterwards, or stays what it is."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

import inception_deploy.verify as verify
from inception_deploy.serving.rows import freed


def network(batch: int, *tail: onnx.NodeProto, output: tuple[int, ...], **constants: object) -> onnx.ModelProto:
    """A convolution of (batch, 3, 4, 4) to `map`, and what follows it."""
    random = np.random.default_rng(0)
    weights = {"w": random.standard_normal((2, 3, 1, 1), dtype=np.float32), **constants}
    tensor = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node("Conv", ["x", "w"], ["map"]), *tail],
        "rows",
        [helper.make_tensor_value_info("x", tensor, (batch, 3, 4, 4))],
        [helper.make_tensor_value_info("y", tensor, output)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in weights.items()],
        value_info=[helper.make_tensor_value_info("map", tensor, (batch, 2, 4, 4))],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def flat(batch: int) -> onnx.ModelProto:
    sizes = np.array([batch, 32], np.int64)
    return network(batch, helper.make_node("Reshape", ["map", "sizes"], ["y"]), output=(batch, 32), sizes=sizes)


@pytest.mark.parametrize("batch", [1, 2, 3, 32])
def test_a_reshape_to_the_batch_goes_along(batch: int) -> None:
    model = flat(batch)
    before = model.SerializeToString()
    free = freed(model, integers=False)
    assert free is not None
    assert model.SerializeToString() == before
    onnx.checker.check_model(free, full_check=True)
    x = np.random.default_rng(1).standard_normal((batch, 3, 4, 4), dtype=np.float32)
    np.testing.assert_allclose(
        verify.run_onnx(free, {"x": x})[0], verify.run_onnx(model, {"x": x})[0], rtol=0, atol=verify.bound("rounding")
    )
    for rows in (1, 7):
        assert verify.run_onnx(free, {"x": np.zeros((rows, 3, 4, 4), np.float32)})[0].shape == (rows, 32)


def test_rows_that_see_each_other_stay_a_batch() -> None:
    mean = helper.make_node("ReduceMean", ["map", "axes"], ["mean"], keepdims=1)
    less = helper.make_node("Sub", ["map", "mean"], ["y"])
    assert freed(network(2, mean, less, output=(2, 2, 4, 4), axes=np.array([0], np.int64)), integers=False) is None


def test_a_shape_that_does_not_go_along_stays_a_batch() -> None:
    add = helper.make_node("Add", ["map", "offset"], ["y"])
    offset = np.zeros((4, 2, 4, 4), np.float32)
    assert freed(network(4, add, output=(4, 2, 4, 4), offset=offset), integers=False) is None
