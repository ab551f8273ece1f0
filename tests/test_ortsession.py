"""onnxruntime is asked for what the ONNX specification says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper

from inception_deploy.ortsession import session_of, session_options


def test_sums_of_bytes_are_whole() -> None:
    """Two products of 255 and 127 do not fit into 16 bits, in which CPUs without VNNI add them by default."""
    parts = {
        "scale": np.float32(1), "wide": np.float32(1 << 10), "zero": np.uint8(0), "even": np.int8(0),
        "w": np.full((16, 64, 1, 1), 127, np.int8),
    }  # fmt: skip
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "scale", "even"], ["v"]),
        helper.make_node("Conv", ["d", "v"], ["c"]),
        helper.make_node("QuantizeLinear", ["c", "wide", "zero"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "wide", "zero"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes, "bytes",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 64, 4, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16, 4, 4])],
        [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in parts.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options(1), ["CPUExecutionProvider"])
    x = np.zeros((1, 64, 4, 4), np.float32)
    x[:, :6] = 255
    got = session.run(None, {"x": x})[0]
    assert np.array_equal(got, np.full_like(got, np.rint(6 * 255 * 127 / 1024) * 1024))


def test_weights_may_share_a_zero_point(tmp_path: Path) -> None:
    """onnxruntime 1.31 fails on this file where it makes weights unsigned, which it does without VNNI."""
    parts = {"s": np.float32(1), "t": np.float32(1000), "z": np.uint8(0), "even": np.int8(0)}
    parts |= {f"w{i}": np.full((16, 16, 1, 1), 127, np.int8) for i in range(2)}
    nodes, value = [], "x"
    for i in range(2):
        nodes += [
            helper.make_node("QuantizeLinear", [value, "t" if i else "s", "z"], [f"q{i}"]),
            helper.make_node("DequantizeLinear", [f"q{i}", "t" if i else "s", "z"], [f"d{i}"]),
            helper.make_node("DequantizeLinear", [f"w{i}", "s", "even"], [f"v{i}"]),
            helper.make_node("Conv", [f"d{i}", f"v{i}"], [f"c{i}"]),
        ]
        value = f"c{i}"
    nodes += [
        helper.make_node("QuantizeLinear", [value, "t", "z"], ["r"]),
        helper.make_node("DequantizeLinear", ["r", "t", "z"], ["y"]),
    ]
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 16, 4, 4]) for name in "xy")
    tensors = [onnx.numpy_helper.from_array(np.asarray(array), name) for name, array in parts.items()]
    model = helper.make_model(
        helper.make_graph(nodes, "shared", [x], [y], tensors), opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    )
    onnx.save(model, tmp_path / "m.onnx")
    (got,) = session_of(str(tmp_path / "m.onnx"), session_options(1)).run(
        None, {"x": np.ones((1, 16, 4, 4), np.float32)}
    )
    assert np.array_equal(got, np.full_like(got, 255000))
