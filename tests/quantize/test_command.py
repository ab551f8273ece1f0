"""`quantize` on the command line: one ONNX out, the JSON of the contract, one sentence for what is wrong."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from PIL import Image

from inception_deploy import cli
from inception_deploy.quantize.calibrate import Statistics
from inception_deploy.quantize.integer_network import read, tensors
from inception_deploy.verify import bound, run_onnx

Make = Callable[..., NDArray[np.float32]]


@pytest.fixture
def files(branchy: onnx.ModelProto, inputs: Make, tmp_path: Path) -> Path:
    onnx.save(branchy, str(tmp_path / "model.onnx"))
    np.savez(tmp_path / "inputs.npz", x=inputs((3, 12, 12), 50), y=np.arange(50) % 5)
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any]:
    code = cli.main(["quantize", "--json", *map(str, arguments)])
    return code, json.loads(capsys.readouterr().out)


def test_a_model_a_folder_of_inputs_one_file_out(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, saved = files / "out.onnx", files / "ranges.json"
    common = (files / "model.onnx", "--scheme", "power-of-two", "--effort", "fast")
    code, document = call(capsys, *common, "--calibration", files / "inputs.npz", "--ranges", saved, "-o", out)
    assert code == 0
    assert document["model"] == str(out)
    assert (document["scheme"], document["images"], document["float_nodes"]) == ("power-of-two", 50, [])
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
    assert document["top1"]["images"] == 50


def test_what_is_chosen_by_measuring_is_told(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = (files / "model.onnx", "--calibration", files / "inputs.npz", "--images", 16)
    code, document = call(capsys, *common, "--no-equalise", "--method", "mse", "-o", files / "out.onnx")
    assert code == 0
    assert (document["effort"], document["images"], document["held_back"]) == ("normal", 16, 4)
    tried = document["candidates"]
    assert [one["candidate"] for one in tried] == [
        "as it is", "bias correction", "own scales around concats", "own scales behind average pools",
        "adaptive rounding, bias correction", "adaptive rounding alone",
    ]  # fmt: skip
    levels = [one["sqnr_db"] for one in tried if one["kept"]]
    assert levels == sorted(levels)
    assert max(one["sqnr_db"] for one in tried if "own" not in one["candidate"]) - levels[-1] <= 0.11  # next to nothing
    assert any("rounded" in text for text in document["repairs"]) == any(one["kept"] for one in tried[-2:])
    again = files / "again.onnx"
    call(capsys, *common, "--no-equalise", "--method", "mse", "-o", again)
    assert again.read_bytes() == (files / "out.onnx").read_bytes()


def test_tensors_of_16_bits_are_named(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = (files / "model.onnx", "--calibration", files / "inputs.npz", "--images", 16, "--effort", "fast")
    for count in (0, 2):
        code, document = call(capsys, *common, "--sixteen-bit", count, "-o", files / f"{count}.onnx")
        assert code == 0
        how = tensors(onnx.load(files / f"{count}.onnx"))
        assert sorted(document["sixteen_bit"]) == sorted(name for name, one in how.items() if one.wide)
        assert bool(document["sixteen_bit"]) == bool(count)
    for scheme, count in (("power-of-two", 1), ("float-scale", -1)):
        code, document = call(capsys, *common, "--scheme", scheme, "--sixteen-bit", count, "-o", files / "no.onnx")
        assert code == 2
        assert document["error"]["kind"] == ("choice" if count > 0 else "usage")
        assert not (files / "no.onnx").exists()


def test_too_few_pictures_to_hold_some_back(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    common = (files / "model.onnx", "--calibration", files / "inputs.npz", "--images", 7)
    _, document = call(capsys, *common, "-o", files / "out.onnx")
    assert (document["images"], document["held_back"], document["candidates"]) == (7, 0, [])
    assert call(capsys, *common, "--effort", "fast", "-o", files / "fast.onnx")[0] == 0
    assert (files / "fast.onnx").read_bytes() == (files / "out.onnx").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "kind"),
    [
        (["--effort", "norm"], 2, "effort"),
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


# -- pictures and models that cannot be used --------------------------------------------------------------------------


def spoilt(value: float) -> Callable[[NDArray[np.float32]], NDArray[np.float32]]:
    def change(data: NDArray[np.float32]) -> NDArray[np.float32]:
        data[18, 1, 2, 3] = value
        return data

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoilt(np.nan), "[18] holds NaN or infinity"),
        (spoilt(-np.inf), "[18] holds NaN or infinity"),
        (lambda data: data[:0], "array 'x' is empty"),
        (lambda data: data[:, :, :10], "has the shape [3, 10, 12]; the network takes [3, 12, 12]"),
        (lambda data: data[:, :1], "has the shape [1, 12, 12]; the network takes [3, 12, 12]"),
        (lambda data: data[0, 0], "array 'x' is float32 of shape [12, 12]"),
        (lambda data: data.astype(np.int32), "array 'x' is int32"),
        (lambda data: (data > 0).astype(np.uint8) * 255, "a picture has 12 channels"),
    ],
)
def test_inputs_that_cannot_be_used(
    change: Callable[[Any], Any], message: str, files: Path, inputs: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(files / "inputs.npz", x=change(inputs((3, 12, 12), 20)))
    before = sorted(files.iterdir())
    code, document = call(
        capsys, files / "model.onnx", "--calibration", files / "inputs.npz", "-o", files / "out.onnx",
        "--ranges", files / "ranges.json",
    )  # fmt: skip
    assert (code, document["error"]["kind"]) == (1, "calibration")
    assert message in document["error"]["message"]
    assert sorted(files.iterdir()) == before


def test_float64_is_taken_as_float32(files: Path, inputs: Make, capsys: pytest.CaptureFixture[str]) -> None:
    for dtype in (np.float32, np.float64):
        np.savez(files / "inputs.npz", x=inputs((3, 12, 12), 20).astype(dtype))
        out = files / f"{np.dtype(dtype)}.onnx"
        assert call(capsys, files / "model.onnx", "--calibration", files / "inputs.npz", "-o", out)[0] == 0
    assert (files / "float32.onnx").read_bytes() == (files / "float64.onnx").read_bytes()


def test_blank_pictures_are_used_where_there_is_nothing_else(
    files: Path, inputs: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    np.savez(files / "inputs.npz", x=np.full_like(inputs((3, 12, 12), 20), 0.5))
    options = ["--calibration", str(files / "inputs.npz"), "-o", str(files / "out.onnx")]
    assert cli.main(["quantize", str(files / "model.onnx"), *options]) == 0
    assert "all 20 pictures are of one colour: the ranges say little" in " ".join(capsys.readouterr().err.split())


@pytest.fixture
def lenet() -> Path:
    return Path(__file__).resolve().parents[2] / "examples" / "data" / "digits_lenet.safetensors"


def test_a_folder_of_pictures_goes_through_the_networks_own_preprocessing(
    lenet: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    random = np.random.default_rng(0)
    for index in range(3):
        Image.fromarray(random.integers(0, 256, (8 + index, 9, 3), dtype=np.uint8)).save(folder / f"{index}.png")
    Image.new("RGB", (9, 9), "grey").save(folder / "3.png")
    assert cli.main(["quantize", str(lenet), "--calibration", str(folder), "-o", str(tmp_path / "out.onnx")]) == 0
    shown = capsys.readouterr()
    assert "1 pictures of one colour were left out" in shown.err
    assert "calibrated on 3 pictures only; 16 or more give steadier ranges" in shown.err
    assert read(onnx.load(tmp_path / "out.onnx")).float_nodes == []
    (folder / "4.png").write_bytes(b"no picture")
    code, document = call(capsys, lenet, "--calibration", folder, "-o", tmp_path / "other.onnx")
    assert code == 1
    assert "4.png" in document["error"]["message"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.onnx", "pictures"]


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy", "mse"])
def test_every_method_from_the_command_line(
    method: str, files: Path, inputs: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    out = files / "out.onnx"
    given = (files / "model.onnx", "--calibration", files / "inputs.npz", "--method", method, "-o", out)
    code, document = call(capsys, *given)
    assert (code, document["method"]) == (0, method)
    feed = {"x": inputs((3, 12, 12), 1, seed=3)}
    expected, got = (read_float(path, feed) for path in (files / "model.onnx", out))
    assert float(((expected - got) ** 2).sum()) < bound("int8-energy") * float((expected**2).sum())


def read_float(path: Path, feed: dict[str, NDArray[np.float32]]) -> NDArray[np.float32]:
    return run_onnx(onnx.load(path), feed)[0]


def test_models_that_cannot_be_quantized(files: Path, build: Any, capsys: pytest.CaptureFixture[str]) -> None:
    given = ("--calibration", files / "inputs.npz", "-o")
    assert call(capsys, files / "model.onnx", *given, files / "int8.onnx")[0] == 0
    onnx.save(build("(float[1,3,12,12] x) => (float[1,3,12,12] y) { y = Relu(x) }"), str(files / "relu.onnx"))
    for name, message in (("int8.onnx", "quantized already"), ("relu.onnx", "no convolution")):
        code, document = call(capsys, files / name, *given, files / "out.onnx")
        assert code == 1
        assert message in document["error"]["message"]
        assert not list(files.glob("*out.onnx*"))


def test_a_range_of_zero_is_harmless(files: Path, build: Any, inputs: Make, capsys: pytest.CaptureFixture[str]) -> None:
    model = build(
        "(float[1,3,12,12] x, float[2,3,1,1] w0, float[2] b0, float[2,288] fc) => (float[1,2] y) {"
        "c = Conv(x, w0, b0) r = Relu(c) f = Flatten(r) y = Gemm<transB=1>(f, fc) }",
        b0=np.array([-1e3, -1e3], np.float32),
    )
    onnx.save(model, str(files / "dead.onnx"))
    for scheme in ("float-scale", "power-of-two"):
        out = files / f"{scheme}.onnx"
        given = (files / "dead.onnx", "--calibration", files / "inputs.npz", "--scheme", scheme, "-o", out)
        assert call(capsys, *given)[0] == 0
        np.testing.assert_array_equal(read_float(out, {"x": inputs((3, 12, 12), 1)}), np.zeros((1, 2)))


def test_a_killed_command_goes_on_to_the_same_bytes(
    files: Path, inputs: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    """SIGKILL in the middle of the pictures: nothing half-written, and the same command finishes the work."""
    np.savez(files / "inputs.npz", x=inputs((3, 12, 12), 600))
    out, state = files / "out.onnx", files / ".out.onnx.calibration.npz"
    common = ["quantize", str(files / "model.onnx"), "--calibration", str(files / "inputs.npz"), "--threads", "1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "inception_deploy", *common, "-o", str(out)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline:
        assert process.poll() is None
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9
    assert not out.exists()
    assert 0 < Statistics.load(state).images < 600
    (files / f".{state.name}.killed.partial").mkdir(exist_ok=True)  # as if it had been while the state was written
    assert cli.main([*common, "-o", str(out)]) == 0
    assert not list(files.glob(".*"))
    assert cli.main([*common, "-o", str(files / "whole.onnx")]) == 0
    assert out.read_bytes() == (files / "whole.onnx").read_bytes()
    capsys.readouterr()
