"""What onnx's version converter would lose of old files: the numbers are those of the file as it was."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from inception_deploy.errors import DeployError
from inception_deploy.sources import onnx_file, original
from inception_deploy.verify import bound, compare, run_onnx

X = np.random.default_rng(0).standard_normal((1, 4, 5, 4)).astype(np.float32)


def file(path: Path, opset: int, kind: str, constants: dict[str, np.ndarray], **attributes: object) -> Path:
    """A file of one node of `kind` that reads x and the constants."""
    node = helper.make_node(kind, ["x", *constants], ["y"], name="node", **attributes)
    tensors = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, X.shape)]
    given += [helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in tensors] if opset < 9 else []
    graph = helper.make_graph(
        [node], "g", given, [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)], tensors
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4), str(path))
    return path


def agree(path: Path) -> np.ndarray:
    """What is read gives what the file gives; returned."""
    (want,), (got,) = original.run_file(path, {"x": X}), run_onnx(onnx_file.load(path), {"x": X})
    row = compare(want, got, "onnx")
    assert row["ok"], row
    return got


@pytest.mark.parametrize("mode", ["linear", "nearest"])
@pytest.mark.parametrize("scales", [[1.0, 1.0, 2.0, 3.0], [1.0, 1.0, 1.5, 2.5]])
def test_upsample_takes_coordinates_as_they_are(tmp_path: Path, mode: str, scales: list[float]) -> None:
    for opset in (7, 9):
        how = {"scales": scales} if opset == 7 else {}
        constants = {} if opset == 7 else {"s": np.asarray(scales, np.float32)}
        y = agree(file(tmp_path / f"{opset}.onnx", opset, "Upsample", constants, mode=mode, **how))
        assert np.array_equal(y[..., 0, 0], X[..., 0, 0])


@pytest.mark.parametrize("scales", [[1, 1, 0.6, 0.5], [1, 1, 2, 0.5], [1, 1, 1.5, 2]])
def test_resize_of_opset_10(tmp_path: Path, scales: list[float]) -> None:
    for mode in ("linear", "nearest"):
        agree(file(tmp_path / f"{mode}.onnx", 10, "Resize", {"s": np.asarray(scales, np.float32)}, mode=mode))


@pytest.mark.parametrize(("axis", "shape"), [(1, (4,)), (1, (4, 5)), (2, (5,)), (-2, (5, 4)), (0, (1, 4))])
def test_a_broadcast_of_opset_6(tmp_path: Path, axis: int, shape: tuple[int, ...]) -> None:
    other = np.random.default_rng(1).uniform(0.5, 2, shape).astype(np.float32)
    start = axis % 4
    wide = other.reshape(*shape, *[1] * (4 - start - len(shape)))
    for kind, right in (("Add", X + wide), ("Div", X / wide), ("Mul", X * wide), ("Sub", X - wide)):
        y = agree(file(tmp_path / f"{kind}.onnx", 6, kind, {"b": other}, broadcast=1, axis=axis))
        assert np.allclose(y, right, rtol=bound("rounding"))


def test_a_slope_of_opset_6_is_of_channels(tmp_path: Path) -> None:
    slope = np.asarray([0.1, 0.2, 0.3, 0.4], np.float32)
    path = file(tmp_path / "net.onnx", 6, "PRelu", {"slope": slope})
    (y,) = run_onnx(onnx_file.load(path), {"x": X})
    assert np.allclose(y, np.where(X < 0, X * slope[:, None, None], X), rtol=bound("rounding"))


def test_a_value_that_the_mode_does_not_use(tmp_path: Path) -> None:
    agree(file(tmp_path / "net.onnx", 9, "Pad", {}, pads=[0, 0, 1, 0, 0, 0, 0, 2], mode="reflect", value=3.0))


def test_an_even_number_of_channels_around_one(tmp_path: Path) -> None:
    """onnxruntime refuses it, and onnx's reference evaluator looks at as many channels as the batch has."""
    (y,) = original.run_file(
        file(tmp_path / "net.onnx", 13, "LRN", {}, size=2, alpha=1.0, beta=1.0, bias=1.0), {"x": X}
    )
    squares = X**2 + np.concatenate([X[:, 1:] ** 2, np.zeros_like(X[:, :1])], axis=1)
    assert np.allclose(y, X / (1 + squares / 2), rtol=bound("kernels"))


def test_what_nobody_runs(tmp_path: Path) -> None:
    path = file(tmp_path / "net.onnx", 13, "Relu", {})
    model = onnx.load(str(path))
    model.graph.node[0].domain = "nobody"
    model.opset_import.append(helper.make_opsetid("nobody", 1))
    onnx.save(model, str(path))
    with pytest.raises(DeployError, match=r"runs neither in onnxruntime .* nor in onnx's reference evaluator"):
        original.run_file(path, {"x": X})
