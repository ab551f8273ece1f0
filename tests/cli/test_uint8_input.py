"""`export --uint8-input`: the network takes the bytes of pictures, and whoever runs it need not normalise them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from inception_deploy.verify import bound

EXAMPLE = Path(__file__).parents[2] / "examples" / "c" / "main.c"
MEAN = ["--mean", "0.4,0.5,0.6", "--std", "0.2,0.3,0.25", "--color", "bgr"]


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 40, 3)).astype(np.uint8))
    image.save(path)
    image.save(path.with_suffix(".ppm"))
    return path


def test_the_same_network_on_bytes(call, branchy: str, photo: Path, tmp_path: Path) -> None:
    """Each way to run it gives what the one on floats gives."""
    results = {}
    for name, more in (("floats", []), ("bytes", ["--uint8-input"])):
        bundle = tmp_path / name
        done = call("export", "--model", branchy, "--input-size", 32, *MEAN, *more, "-o", bundle, "--json")
        assert done.status == 0, done.err
        path = tmp_path / f"{name}.npy"
        assert call("run", bundle, "--image", photo, "--output", path).status == 0
        results[name] = np.load(path)
    limit = bound("kernels") * float(np.abs(results["floats"]).max())
    np.testing.assert_allclose(results["bytes"], results["floats"], rtol=0, atol=limit)
    manifest = json.loads((bundle / "manifest.json").read_text())
    assert manifest["inputs"] == [{"name": manifest["inputs"][0]["name"], "shape": [1, 32, 32, 3], "dtype": "uint8"}]
    assert {"dtype": "uint8", "layout": "nhwc", "scale": "1", "color": "bgr"}.items() <= manifest[
        "preprocessing"
    ].items()
    assert json.loads((bundle / "plan.json").read_text())["steps"][0]["op"] == "normalise"
    assert call("verify", bundle).status == 0
    for command in (
        [bundle / "run_model", photo.with_suffix(".ppm"), "--output", "program.npy"],
        [sys.executable, bundle / "infer.py", photo, "-o", "infer.npy"],
    ):
        subprocess.run([str(word) for word in command], cwd=tmp_path, check=True, capture_output=True)
    for name in ("program.npy", "infer.npy"):
        np.testing.assert_array_equal(np.load(tmp_path / name), results["bytes"])
    assert call("run", bundle, "--runtime", "onnxruntime", "--image", photo).status == 0
    again = call("export", "--model", bundle / "model.onnx", "--uint8-input", "-o", tmp_path / "again")
    assert again.status == 2
    assert "--uint8-input is for networks that take pictures as float32; model takes bytes already" in again.err
    assert not (tmp_path / "again").exists()


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed: apt-get install gcc")
def test_the_example_in_c_classifies_a_photo(call, branchy: str, photo: Path, tmp_path: Path) -> None:
    bundle, small = tmp_path / "bundle", tmp_path / "small.ppm"
    with Image.open(photo) as image:
        image.resize((32, 32)).save(small)
    done = call("export", "--model", branchy, "--input-size", 32, "--uint8-input", "-o", bundle)
    assert done.status == 0, done.err
    np.save(tmp_path / "x.npy", np.asarray(Image.open(small))[None])
    assert call("run", bundle, "--input", tmp_path / "x.npy", "--output", tmp_path / "y.npy").status == 0
    scores = np.load(tmp_path / "y.npy").reshape(-1)
    (tmp_path / "labels.txt").write_text("".join(f"class {i}\n" for i in range(len(scores))))
    strict = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-O2", "-I", bundle, EXAMPLE, bundle / "model.so"]
    subprocess.run(["gcc", *strict, f"-Wl,-rpath,{bundle}", "-o", tmp_path / "classify"], check=True)

    def classify(path: Path) -> subprocess.CompletedProcess[str]:
        command = [tmp_path / "classify", bundle / "weights.bin", path, "1", tmp_path / "labels.txt"]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    lines = classify(small).stdout.splitlines()
    best = np.argsort(-scores, kind="stable")[:5]
    assert lines == [f"{i} {scores[i]:.6g} class {i}" for i in best]
    small.with_name("cut.ppm").write_bytes(small.read_bytes()[:-1])
    small.with_name("text.ppm").write_text("no picture")
    for path, message in (
        (photo.with_suffix(".ppm"), "has 40 x 48 pixels, and the network takes 32 x 32"),
        (small.with_name("cut.ppm"), "ends within its pixels"),
        (small.with_name("text.ppm"), "is no PPM (P6) with 8 bits and without comments"),
        (small.with_name("none.ppm"), "cannot be opened"),
    ):
        failed = classify(path)
        assert (failed.returncode, failed.stdout, failed.stderr) == (1, "", f"{path}: {message}\n")


def test_quantized(call, branchy: str, tmp_path: Path) -> None:
    """What normalises stays float, and is rounded once."""
    pictures = np.random.default_rng(1).integers(0, 256, (6, 32, 32, 3)).astype(np.uint8)
    np.savez(tmp_path / "pictures.npz", images=pictures)
    argv = ["--precision", "int8", "--calibration", tmp_path / "pictures.npz", "--effort", "fast"]
    done = call("export", "--model", branchy, "--input-size", 32, "--uint8-input", *argv, "-o", tmp_path / "bundle")
    assert done.status == 0, done.err
    ops = [step["op"] for step in json.loads((tmp_path / "bundle" / "plan.json").read_text())["steps"]]
    assert ops[0] == "normalise"
    assert "table" not in ops[:3]
    assert json.loads((tmp_path / "bundle" / "manifest.json").read_text())["integers"] is True
    assert call("verify", tmp_path / "bundle").status == 0
