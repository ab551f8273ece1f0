"""A network of several inputs, from the command line: exported, verified again, run, timed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest

from inception_deploy.cli import main
from inception_deploy.verify import bound

from .int8_files import two_inputs
from .kinds import cases


def test_several_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    case = next(cases("two_inputs"))
    path, bundle = tmp_path / "net.onnx", tmp_path / "bundle"
    onnx.save(case.model, str(path))
    assert main(["export", "--model", str(path), "-o", str(bundle), "--keep-stages"]) == 0
    assert (bundle / "stages/original.onnx").read_bytes() == path.read_bytes()
    capsys.readouterr()
    assert main(["verify", str(bundle), "--json"]) == 0
    stages = json.loads(capsys.readouterr().out)["stages"]
    assert (stages[0]["stage"], stages[0]["reference"], stages[0]["recorded"]) == ("onnx", "original file", False)
    np.savez(tmp_path / "given.npz", **case.inputs)
    for runtime in ("compiled", "onnxruntime"):
        out = tmp_path / f"{runtime}.npy"
        given = ["--input", str(tmp_path / "given.npz"), "--output", str(out)]
        assert main(["run", str(bundle), *given, "--runtime", runtime]) == 0
        assert np.allclose(np.load(out), case.right()[0], rtol=bound("kernels"), atol=bound("rounding"))
    assert main(["bench", str(bundle), "--against", "onnxruntime", "--runs", "1"]) == 0
    np.save(tmp_path / "one.npy", case.inputs["x"])
    assert main(["run", str(bundle), "--input", str(tmp_path / "one.npy")]) == 1
    assert "takes 2 inputs (x, x1)" in capsys.readouterr().err
    np.savez(tmp_path / "other.npz", x=case.inputs["x"])
    assert main(["run", str(bundle), "--input", str(tmp_path / "other.npz")]) == 1
    assert "the arrays are called x, the inputs x, x1" in capsys.readouterr().err


def test_several_inputs_in_integers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path, bundle = tmp_path / "net.onnx", tmp_path / "bundle"
    onnx.save(two_inputs(quantized=True), str(path))
    assert main(["export", "--model", str(path), "-o", str(bundle), "--require-int8", "100"]) == 0
    assert main(["verify", str(bundle)]) == 0
    onnx.save(two_inputs(quantized=False), str(path))
    np.savez(tmp_path / "given.npz", x=np.zeros((8, 3, 14, 12), np.float32))
    capsys.readouterr()
    out = tmp_path / "out.onnx"
    assert main(["quantize", str(path), "--calibration", str(tmp_path / "given.npz"), "-o", str(out)]) == 1
    assert "a network of 2 inputs cannot be quantized: calibration feeds one" in capsys.readouterr().err
    assert not out.exists()
