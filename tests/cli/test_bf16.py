"""`export --precision bf16`: compiled for matrix tiles, verified against fp32, refused where they are missing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inception_deploy import cli, targets, verify
from inception_deploy.bundles import engines
from inception_deploy.errors import DeployError
from inception_deploy.runtime import bundle


@pytest.fixture(scope="module")
def bf16(branchy: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bf16 bundle of `branchy`."""
    try:
        targets.parse("cpu").at("bf16")
    except DeployError as error:
        pytest.skip(error.message)
    path = tmp_path_factory.mktemp("bundles") / "bf16"
    argv = ["export", "--model", branchy, "--input-size", "32", "--precision", "bf16", "-o", str(path)]
    assert cli.main(argv) == 0
    return path


def test_the_bundle_says_what_it_needs(bf16: Path) -> None:
    manifest = json.loads((bf16 / "manifest.json").read_text())
    assert manifest["precision"] == "bf16"
    assert manifest["target_details"]["variant"] == "avx512-amx"
    assert {"amx_bf16", "amx_tile", "avx512_bf16"} <= set(manifest["target_details"]["features"])
    assert manifest["checked"] == ["onnx", "optimised", "compiled-bf16"]


def test_it_runs_and_gives_fp32(bf16: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, 32, 32), dtype=np.float32)
    np.save(tmp_path / "x.npy", x)
    outputs = {}
    for runtime in ("compiled", "onnxruntime"):
        out = tmp_path / f"{runtime}.npy"
        argv = ["run", str(bf16), "--input", str(tmp_path / "x.npy"), "--runtime", runtime, "--output", str(out)]
        assert cli.main(argv) == 0
        outputs[runtime] = np.load(out)
    assert outputs["compiled"].dtype == np.float32
    assert verify.compare(outputs["onnxruntime"], outputs["compiled"], "compiled-bf16")["ok"]
    assert not verify.compare(outputs["onnxruntime"], outputs["compiled"], "compiled")["ok"]  # it is bf16 indeed
    capfd.readouterr()
    assert cli.main(["verify", str(bf16), "--json"]) == 0
    assert [row["stage"] for row in json.loads(capfd.readouterr().out)["stages"]][-1] == "compiled-bf16"


def test_a_cpu_without_tiles_is_told_so(bf16: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from inception_deploy.targets import cpu

    have = cpu.host_features() - {"amx_tile"}
    monkeypatch.setattr(cpu, "host_features", lambda: have)
    with bundle.open(bf16) as opened, pytest.raises(DeployError, match="lacks amx_tile") as caught:
        engines.make("compiled", opened)
    assert caught.value.kind == "target"


def test_openvino_is_asked_for_bf16_too(bf16: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    openvino = pytest.importorskip("openvino", reason="the extra `bench`")
    asked: list[dict[str, Any]] = []
    compile_model = openvino.Core.compile_model

    def spy(self: Any, path: str, device: str, how: dict[str, Any]) -> Any:
        asked.append(how)
        return compile_model(self, path, device, how)

    monkeypatch.setattr(openvino.Core, "compile_model", spy)
    with bundle.open(bf16) as opened:
        engines.make("openvino", opened, threads=1)
    assert [how["INFERENCE_PRECISION_HINT"] for how in asked] == ["bf16"]


def test_a_quantized_network_is_refused(bf16: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import onnx
    from onnx import helper, numpy_helper

    constants = {
        "scale": np.float32(0.1),
        "zero": np.uint8(128),
        "w": np.random.default_rng(0).standard_normal((4, 3, 3, 3)).astype(np.float32),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], "quantize"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["d"], "dequantize"),
        helper.make_node("Conv", ["d", "w"], ["y"], "conv"),
    ]
    kind = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes,
        "quantized",
        [helper.make_tensor_value_info("x", kind, (1, 3, 8, 8))],
        [helper.make_tensor_value_info("y", kind, (1, 4, 6, 6))],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    path = tmp_path / "q.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    argv = ["export", "--model", str(path), "--precision", "bf16", "-o", str(tmp_path / "out"), "--json"]
    assert cli.main(argv) == 2
    error = json.loads(capfd.readouterr().out)["error"]
    assert error["kind"] == "precision"
    assert error["message"] == "the ONNX is quantized, and bf16 cannot hold its numbers"


@pytest.mark.parametrize("precision", ["fp16", "bf61"])
def test_other_precisions_are_refused(precision: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    argv = ["export", "--model", "lenet5", "--precision", precision, "-o", str(tmp_path / "out"), "--json"]
    assert cli.main(argv) == 2
    error = json.loads(capfd.readouterr().out)["error"]
    assert error["kind"] == "precision"
    assert error["got"] == precision
    assert set(error["allowed"]) >= {"fp32", "int8", "bf16"}
