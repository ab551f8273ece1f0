"""Networks that a fixed tolerance on an ImageNet photo would refuse, though nothing is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from inception_deploy import cli
from inception_deploy.rounding import Rounding

RANDOM = np.random.default_rng(0)


def network(
    path: Path, scale: float = 1.0, dtype: Any = np.float32, end: tuple[str, ...] = (), bias: float = 0.0
) -> Path:
    """Two convolutions of 3 x 3 on (1, 3, 16, 16), whose input is multiplied with `scale`, and the operators `end`."""
    weights = {
        "w1": RANDOM.standard_normal((8, 3, 3, 3)) * scale / 4,
        "w2": RANDOM.standard_normal((4, 8, 3, 3)) / 4,
        "b2": np.full(4, bias),
    }
    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    nodes = [
        helper.make_node("Cast", ["x"], ["x0"], to=element, name="in"),
        helper.make_node("Conv", ["x0", "w1"], ["a"], pads=[1] * 4, name="one"),
        helper.make_node("Relu", ["a"], ["b"], name="relu"),
        helper.make_node("Conv", ["b", "w2", "b2"], ["c"], pads=[1] * 4, name="two"),
        helper.make_node("Cast", ["c"], ["d0"], to=TensorProto.FLOAT, name="out"),
    ]
    for index, op in enumerate(end):
        how = {"axis": 1, "keepdims": 0} if op == "ArgMax" else {}
        nodes.append(helper.make_node(op, [f"d{index}"], [f"d{index + 1}"], name=f"end{index}", **how))
    kind = TensorProto.INT64 if "ArgMax" in end else TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 16, 16))],
        [helper.make_tensor_value_info(f"d{len(end)}", kind, None)],
        [numpy_helper.from_array(value.astype(dtype), name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def export(path: Path, *options: object) -> dict[str, dict[str, Any]]:
    bundle = path.with_suffix(".bundle")
    argv = ["export", "--model", path, "--target", "cpu:avx2", *options, "-o", bundle]
    assert cli.main([str(word) for word in argv]) == 0
    stages = json.loads((bundle / "verify.json").read_text())["stages"]
    return {row["stage"]: row for row in stages}


Call = Callable[..., Any]


@pytest.mark.parametrize("top", [255.0, 1.0])
def test_int8_is_judged_on_what_it_was_calibrated_on(
    tmp_path: Path, call: Call, capfd: pytest.CaptureFixture[str], top: float
) -> None:
    path = network(tmp_path / "net.onnx", scale=1 / top)
    x = np.repeat(np.repeat(RANDOM.random((20, 3, 4, 4)), 4, axis=2), 4, axis=3) * top
    np.savez(tmp_path / "cal.npz", x=x.astype(np.float32))
    stages = export(path, "--precision", "int8", "--calibration", tmp_path / "cal.npz")
    assert stages["quantized"]["inputs"] == ["calibration"]
    capfd.readouterr()
    result = call("verify", path.with_suffix(".bundle"), "--json")
    assert result.status == 0
    row = next(row for row in result.document["stages"] if row["stage"] == "quantized")
    assert row["inputs"] == (["photo, stretched"] if top == 255 else [row["input"]])


def test_floats_of_16_bits_are_judged_by_their_own_rounding(tmp_path: Path) -> None:
    path = network(tmp_path / "net.onnx", dtype=np.float16)
    x = RANDOM.standard_normal((1, 3, 16, 16)).astype(np.float32)
    noise = Rounding(onnx.load(path), {"x": {"x": x}}).noise("x")[0]
    assert 1e-5 < noise < 1e-2  # float32's is a thousandth of that
    stages = export(path)
    assert stages["onnx"]["reference"] == "original file"
    assert stages["compiled"]["criterion"] == "fixed"


def test_a_map_of_probabilities_nearly_zero(tmp_path: Path) -> None:
    stages = export(network(tmp_path / "net.onnx", bias=-14.0, end=("Sigmoid",)))
    assert all(row["ok"] for row in stages.values())


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_class_numbers_are_no_quantities(tmp_path: Path, precision: str) -> None:
    path = network(tmp_path / "net.onnx", end=("ArgMax",))
    np.savez(tmp_path / "cal.npz", x=RANDOM.standard_normal((20, 3, 16, 16)).astype(np.float32))
    options = ["--precision", "int8", "--calibration", tmp_path / "cal.npz"] if precision == "int8" else []
    stages = export(path, *options)
    assert {row["criterion"] for row in stages.values()} == {"equal"}
    assert stages["optimised"]["max_rel"] == 0


def test_a_network_that_int8_does_not_help_is_exported_in_fp32(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graph = helper.make_graph(
        [helper.make_node("LayerNormalization", ["x", "s"], ["y"], name="norm")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 3, 8, 8))],
        [numpy_helper.from_array(np.arange(1, 9, dtype=np.float32), "s")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "net.onnx"
    )
    np.savez(tmp_path / "cal.npz", x=RANDOM.standard_normal((20, 3, 8, 8)).astype(np.float32))
    export(tmp_path / "net.onnx", "--precision", "int8", "--calibration", tmp_path / "cal.npz")
    assert "the bundle is in fp32" in " ".join(capsys.readouterr().err.split())
    assert json.loads((tmp_path / "net.bundle" / "manifest.json").read_text())["precision"] == "fp32"


def test_an_export_carries_the_preprocessing_into_the_next(tmp_path: Path) -> None:
    path = network(tmp_path / "net.onnx")
    export(path, "--scale", "1/127.5", "--mean", "1", "--color", "bgr", "--interpolation", "bicubic")
    first = json.loads((tmp_path / "net.bundle" / "manifest.json").read_text())["preprocessing"]
    assert (first["scale"], first["color"], first["mean"]) == ("1/127.5", "bgr", [1.0] * 3)
    (tmp_path / "net.bundle" / "model.onnx").rename(tmp_path / "again.onnx")
    export(tmp_path / "again.onnx")
    assert json.loads((tmp_path / "again.bundle" / "manifest.json").read_text())["preprocessing"] == first
