"""`quantize` on the command line: one ONNX out, the JSON of the contract, one sentence for what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from inception_deploy import cli
from inception_deploy.quantize.network import read

Make = Callable[..., NDArray[np.float32]]


@pytest.fixture
def files(branchy: onnx.ModelProto, inputs: Make, tmp_path: Path) -> Path:
    onnx.save(branchy, str(tmp_path / "model.onnx"))
    np.savez(tmp_path / "inputs.npz", x=inputs((3, 12, 12), 20), y=np.arange(20) % 5)
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any]:
    code = cli.main(["quantize", "--json", *map(str, arguments)])
    return code, json.loads(capsys.readouterr().out)


def test_a_model_a_folder_of_inputs_one_file_out(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, saved = files / "out.onnx", files / "ranges.json"
    common = (files / "model.onnx", "--scheme", "power-of-two")
    code, document = call(capsys, *common, "--calibration", files / "inputs.npz", "--ranges", saved, "-o", out)
    assert code == 0
    assert document["model"] == str(out)
    assert (document["scheme"], document["images"], document["float_nodes"]) == ("power-of-two", 20, [])
    assert document["drop_points"] is None
    assert read(onnx.load(out)).power_of_two
    again = files / "again.onnx"
    assert call(capsys, *common, "--ranges", saved, "-o", again)[0] == 0
    assert again.read_bytes() == out.read_bytes()
    assert sorted(path.name for path in files.iterdir()) == [
        "again.onnx", "inputs.npz", "model.onnx", "out.onnx", "ranges.json",
    ]  # fmt: skip
    code, document = call(capsys, *common, "--ranges", saved, "-o", out)
    assert code == 1
    assert document["error"]["kind"] == "exists"


def test_the_gate_and_the_repairs(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = call(
        capsys, files / "model.onnx", "--calibration", files / "inputs.npz", "-o", files / "out.onnx", "--images", 8,
        "--evaluate", files / "inputs.npz", "--max-drop", 100, "--adaptive-rounding", "--correct-bias", "--equalise",
        "--method", "percentile", "--percentile", 99.9,
    )  # fmt: skip
    assert code == 0
    assert document["images"] == 8
    assert len(document["repairs"]) == 3
    assert document["drop_points"] == document["top1"]["fp32"] - document["top1"]["int8"]
    assert document["top1"]["images"] == 20


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["--scheme", "int7"], 2, "scheme"),
        (["--method", "guess"], 2, "method"),
        (["--percentile", "20", "--method", "percentile"], 2, "percentile"),
        (["--max-drop", "1"], 2, "usage"),
        (["--calibration", "missing"], 1, "calibration"),
        (["--images", "0"], 2, "usage"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str], code: int, kind: str, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [files / "model.onnx", "--calibration", files / "inputs.npz", "-o", files / "out.onnx", *arguments]
    got, document = call(capsys, *given)
    assert (got, document["error"]["kind"]) == (code, kind)
    assert not (files / "out.onnx").exists()


def test_calibration_or_ranges_is_needed(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, document = call(capsys, files / "model.onnx", "-o", files / "out.onnx")
    assert code == 2
    assert "--calibration" in document["error"]["message"]
