"""`export --precision int8`: calibrated, quantized, compiled, verified, in one command."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from inception_deploy import verify
from inception_deploy.verify import tolerance

from ..cases.int8_files import File, activations


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures for `branchy`, with labels that nobody could know."""
    random = np.random.default_rng(5)
    path = tmp_path_factory.mktemp("calibration") / "pictures.npz"
    smooth = np.repeat(np.repeat(random.integers(0, 256, (50, 8, 8, 3), dtype=np.uint8), 4, axis=1), 4, axis=2)
    np.savez(path, images=smooth, labels=random.integers(0, 7, 50))
    return path


@pytest.fixture(scope="module")
def int8(branchy: str, calibration: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The int8 bundle of `branchy`."""
    from inception_deploy import cli

    path = tmp_path_factory.mktemp("bundles") / "int8"
    argv = ["export", "--model", branchy, "--input-size", "32", "--precision", "int8", "--calibration", calibration]
    same = ["--scheme", "float-scale"]  # whatever this machine multiplies with
    assert cli.main([str(word) for word in (*argv, *same, "-o", path)]) == 0
    return path


def test_what_is_in_an_int8_bundle(int8: Path, exported: Path) -> None:
    manifest = json.loads((int8 / "manifest.json").read_text())
    assert manifest["precision"] == "int8"
    assert {"model.onnx", "model.int8.onnx"} <= set(manifest["files"])
    told = manifest["quantization"]
    assert (told["scheme"], told["images"], told["float_nodes"], told["drop_points"]) == (
        "float-scale",
        50,
        [],
        None,
    )
    assert told["tensors"]["input"]["dtype"] == "uint8"
    assert manifest["inputs"][0]["quantized_dtype"] == "uint8"
    assert manifest["inputs"][0]["scale"] == told["tensors"]["input"]["scale"]
    assert manifest["cost"] == json.loads((exported / "manifest.json").read_text())["cost"] | {
        "macs": json.loads((exported / "manifest.json").read_text())["cost"]["macs"] // 2
    }
    assert told["tensors"]["input"]["scale"] > 0
    operators = {node.op_type for node in onnx.load(int8 / "model.int8.onnx").graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= operators
    assert "QuantizeLinear" not in {node.op_type for node in onnx.load(int8 / "model.onnx").graph.node}
    assert not list(int8.parent.glob(".*"))


def test_a_bundle_for_arm_computes_in_integers(call, branchy: str, calibration: Path, tmp_path: Path) -> None:
    argv = ["export", "--model", branchy, "--input-size", 32, "--precision", "int8", "--calibration", calibration]
    assert call(*argv, "--target", "arm:cortex-a9", "-o", tmp_path / "b").status == 0
    manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
    assert (manifest["precision"], manifest["integers"]) == ("int8", True)


def test_verify_tells_each_layers_error(call, int8: Path) -> None:
    result = call("verify", int8, "--json")
    assert result.status == 0
    stages = {row["stage"]: row for row in result.document["stages"]}
    assert list(stages)[:3] == ["onnx", "optimised", "quantized"]
    compiled = list(stages)[3]
    assert compiled in ("compiled-int8", "emulated-int8")
    assert stages[compiled]["max_rel"] <= verify.TOLERANCES[compiled].max_rel
    layers = result.document["layers"]
    assert {row["op"] for row in layers} >= {"Conv", "Concat", "Gemm"}
    assert all(row["sqnr_db"] > 15 and row["cosine"] > 0.95 for row in layers)
    assert result.document["first_fall"] in (None, *(row["layer"] for row in layers))
    shown = call("verify", int8).out
    assert "SQNR dB" in shown
    assert layers[0]["layer"] in shown


def test_a_layer_that_went_wrong_is_found(call, int8: Path, tmp_path: Path) -> None:
    """The scale of the last layer is off by four: it is named, and verify fails."""
    import shutil

    from inception_deploy.runtime import bundle

    broken = tmp_path / "broken"
    shutil.copytree(int8, broken)
    model = onnx.load(broken / "model.int8.onnx")
    scale = next(t for t in model.graph.initializer if "head" in t.name and t.name.endswith("weight_scale"))
    values = onnx.numpy_helper.to_array(scale)
    scale.CopyFrom(onnx.numpy_helper.from_array(values / 4, scale.name))
    onnx.save(model, broken / "model.int8.onnx")
    manifest = json.loads((broken / "manifest.json").read_text())
    (broken / "manifest.json").unlink()
    bundle.seal(broken, {key: value for key, value in manifest.items() if key not in ("files", "schema_version")})
    result = call("verify", broken, "--json")
    if result.document["stages"][-1]["stage"] == "compiled-int8":
        assert result.status == 1  # the library still computes what the model was
    assert "head" in result.document["first_fall"]


def test_inspect_tells_the_scheme(call, int8: Path, exported: Path) -> None:
    document = call("inspect", int8, "--json").document
    assert document["quantization"]["scheme"] == "float-scale"
    assert document["parameters"] == call("inspect", exported, "--json").document["parameters"]
    assert "float-scale" in call("inspect", int8).out


def test_both_runtimes_run_the_int8_network(call, int8: Path, tmp_path: Path) -> None:
    x = tmp_path / "x.npy"
    np.save(x, np.random.default_rng(0).standard_normal((2, 3, 32, 32)).astype(np.float32))
    outputs = []
    for runtime in ("compiled", "onnxruntime"):
        file = tmp_path / f"{runtime}.npy"
        assert call("run", int8, "--input", x, "--runtime", runtime, "--output", file).status == 0
        outputs.append(np.load(file))
    assert np.abs(outputs[0] - outputs[1]).max() <= tolerance("emulated-int8").max_rel * np.abs(outputs[1]).max()


def test_a_quantized_onnx_is_int8_by_itself(call, int8: Path, tmp_path: Path) -> None:
    result = call("export", "--model", int8 / "model.int8.onnx", "-o", tmp_path / "b", "--json")
    assert result.status == 0
    assert result.document["precision"] == "int8"


def half_quantized() -> File:
    """A file whose last convolution reads what nobody has quantized."""
    file = next(file for file in activations() if file.name == "relu-both")
    model = onnx.ModelProto()
    model.CopyFrom(file.model)
    makers = {node.output[0]: node for node in model.graph.node}
    last = [node for node in model.graph.node if node.op_type == "Conv"][-1]
    last.input[0] = makers[makers[last.input[0]].input[0]].input[0]
    return replace(file, name="half-quantized", model=model)


def test_what_is_quantized_is_not_quantized_again(call, int8: Path, tmp_path: Path) -> None:
    argv = ["--precision", "int8", "--effort", "fast", "-o", tmp_path / "b"]
    result = call("export", "--model", int8 / "model.int8.onnx", *argv)
    assert result.status == 2
    assert "the model is quantized already: --calibration and what goes with it are for a float model" in result.err
    assert not (tmp_path / "b").exists()


def test_a_file_of_another_tool_is_computed_in_integers(call, tmp_path: Path) -> None:
    """What cannot be is named, with its reason and its share."""
    files = {file.name: file for file in (*activations(), half_quantized())}
    reports = {}
    for name in ("relu-both", "half-quantized"):
        onnx.save(files[name].model, str(tmp_path / f"{name}.onnx"))
        result = call("export", "--model", tmp_path / f"{name}.onnx", "-o", tmp_path / name, "--json")
        assert result.status == 0, result.error
        assert "integers" in result.document["verified"]
        told = json.loads((tmp_path / name / "manifest.json").read_text())
        if not told["integers"]:
            pytest.skip("this machine has no integer kernels")
        reports[name] = result.document["quantization"], told["arithmetic"]
    assert reports["relu-both"][0]["integer_macs_percent"] == 100
    assert reports["relu-both"][0]["float_nodes"] == []
    assert reports["relu-both"][1] == "8-bit integers, summed in 32 bits"
    quantization, arithmetic = reports["half-quantized"]
    unquantized = quantization["floats"][0]["reason"].split("'")[1]
    assert [(row["op"], row["reason"]) for row in quantization["floats"]] == [
        ("Conv", f"it reads '{unquantized}', which is not quantized")
    ]
    assert quantization["floats"][0]["percent"] + quantization["integer_macs_percent"] == pytest.approx(100)
    assert arithmetic.startswith("8-bit integers, summed in 32 bits: ")
    result = call("export", "--model", tmp_path / "half-quantized.onnx", "-o", tmp_path / "again")
    assert "warning: only" in result.err
    assert "which is not quantized" in result.err
    rows = {row["stage"]: row for row in call("verify", tmp_path / "half-quantized", "--json").document["stages"]}
    np.save(tmp_path / "x.npy", files["relu-both"].x)
    assert call("run", tmp_path / "relu-both", "--input", tmp_path / "x.npy").status == 0
    assert "that of the file" in call("inspect", tmp_path / "relu-both").out
    assert rows["integers"]["recorded"] is False


def test_a_share_of_integers_can_be_required(call, tmp_path: Path) -> None:
    onnx.save(half_quantized().model, str(tmp_path / "model.onnx"))
    argv = ["export", "--model", tmp_path / "model.onnx", "-o", tmp_path / "b", "--json", "--require-int8"]
    result = call(*argv, 95)
    assert (result.status, result.error["kind"]) == (1, "int8")
    assert "95 % are required; in float32: " in result.error["message"]
    assert "which is not quantized" in result.error["message"] or "no integer kernels" in result.error["message"]
    assert not (tmp_path / "b").exists()
    assert call(*argv, 120).status == 2
    assert call(*argv, 0).status == 0


def test_the_gate(call, branchy: str, calibration: Path, tmp_path: Path) -> None:
    argv = ["export", "--model", branchy, "--input-size", "32", "--precision", "int8", "--calibration", calibration]
    result = call(*argv, "--max-drop", 100, "--evaluate", calibration, "-o", tmp_path / "b", "--json")
    assert result.status == 0
    assert result.document["quantization"]["drop_points"] <= 100
    assert result.document["quantization"]["top1"]["images"] == 50
    shown = call(*argv, "--max-drop", 100, "--evaluate", calibration, "-o", tmp_path / "b", "--force").out
    assert re.search(r"top-1 [\d.]+ % -> [\d.]+ % on 50 pictures \([+-][\d.]+ points lost\)", shown)


@pytest.mark.parametrize(
    ("words", "status", "kind", "told"),
    [
        (["--precision", "int8"], 2, "calibration", "--calibration"),
        (["--calibration", "PICTURES"], 2, "usage", "--precision int8"),
        (["--precision", "int8", "--calibration", "PICTURES", "--max-drop", "1"], 2, "usage", "--evaluate"),
        (["--precision", "int8", "--calibration", "nowhere"], 1, "calibration", "nowhere"),
        (["--precision", "int8", "--calibration", "PICTURES", "--scheme", "float"], 2, "scheme", "float-scale"),
    ],
)
def test_bad_input(
    call, branchy: str, calibration: Path, tmp_path: Path, words: list[str], status: int, kind: str, told: str
) -> None:
    argv = [str(calibration) if word == "PICTURES" else word for word in words]
    result = call("export", "--model", branchy, "--input-size", "32", *argv, "-o", tmp_path / "b", "--json")
    assert (result.status, result.error["kind"]) == (status, kind)
    assert told in json.dumps(result.error)
    assert not list(tmp_path.iterdir())
