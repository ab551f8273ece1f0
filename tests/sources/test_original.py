"""What a user's file gives as it is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from inception_deploy.sources import original


def test_sums_of_unsigned_and_signed_bytes_are_whole(tmp_path: Path) -> None:
    """Pairs of their largest products need 17 bits, which onnxruntime has everywhere only for weights without a sign."""
    constants = {
        "s": np.float32(0.01), "z": np.uint8(0), "w": np.full((4, 16, 1, 1), 127, np.int8), "k": np.int8([0] * 4),
        "t": np.float32(1),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("QLinearConv", ["q", "s", "z", "w", "s", "k", "t", "z"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "t", "z"], ["y"]),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 1, 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    tensors = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8), tmp_path / "m.onnx")
    assert original.on_integers(tmp_path / "m.onnx")
    (got,) = original.run_file(tmp_path / "m.onnx", {"x": np.full((1, 16, 1, 1), 2.55, np.float32)})
    np.testing.assert_array_equal(got, np.full((1, 4, 1, 1), np.rint(16 * 255 * 127 * 1e-4), np.float32))
