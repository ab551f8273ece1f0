"""The package as it is installed: the wheel alone runs a bundle, with numpy, Pillow and rich beside it and nothing else."""

from __future__ import annotations

import importlib.metadata
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import inception_deploy as idp

ROOT = Path(__file__).resolve().parents[1]
PHOTO = ROOT / "examples" / "data" / "photo.jpg"
BESIDE = ("numpy", "pillow", "rich", "markdown-it-py", "mdurl", "pygments")
"""The base install's dependencies, and theirs."""

ABSENT = ("torch", "tvm", "onnx", "onnxruntime", "ziglang")

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "lenet5"
    assert idp.export("lenet5", path)["ok"]
    return path


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment that holds the wheel and `BESIDE`, copied from this one."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(".*", "build", "tests", "*.egg-info", "__pycache__"))
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    wheel = [*pip, "wheel", "--no-deps", "--no-index", "--no-build-isolation", "-w", str(folder), str(source)]
    done = subprocess.run(wheel, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "env")], check=True)
    interpreter = folder / "env" / "bin" / "python"
    (built,) = folder.glob("*.whl")
    subprocess.run([*pip, "--python", str(interpreter), "install", "--no-deps", "--no-index", str(built)], check=True)
    ask = [str(interpreter), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    there = Path(subprocess.run(ask, check=True, capture_output=True, text=True).stdout.strip())
    for name in BESIDE:
        found = importlib.metadata.distribution(name)
        tops = {file.parts[0] for file in found.files or () if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            (there / top).symlink_to(Path(str(found.locate_file(top))))
    return interpreter


def call(python: Path, *argv: object) -> tuple[int, Any, str]:
    """The command line of the installed package: status, document, stderr."""
    command = [str(python.parent / "inception-deploy"), *map(str, argv), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=python.parent)
    return done.returncode, json.loads(done.stdout), done.stderr


def test_python_runs_a_bundle(python: Path, bundle: Path) -> None:
    x = np.random.default_rng(0).standard_normal((3, *idp.load(bundle).input.shape[1:]), dtype=np.float32)
    np.save(python.parent / "x.npy", x)
    script = f"""
import sys, json
import numpy as np
import inception_deploy as idp
from inception_deploy import runtime
net = idp.load({str(bundle)!r})
alone = runtime.load({str(bundle)!r}, threads=1)
y, top = np.asarray(net("x.npy")), alone({str(PHOTO)!r}).top(3)
loaded = sorted(set({ABSENT!r}) & set(sys.modules))
print(json.dumps([y.tolist(), [guess.index for guess in top], loaded]))
"""
    done = subprocess.run([str(python), "-c", script], capture_output=True, text=True, check=False, cwd=python.parent)
    assert done.returncode == 0, done.stderr
    y, top, loaded = json.loads(done.stdout)
    assert loaded == []
    np.testing.assert_array_equal(np.float32(y), np.asarray(idp.load(bundle)(x)))
    assert top == [guess.index for guess in idp.load(bundle)(PHOTO).top(3)]


def test_the_command_line_runs_a_bundle(python: Path, bundle: Path) -> None:
    status, document, _ = call(python, "run", bundle, "--image", PHOTO)
    assert (status, len(document["top"])) == (0, 5)
    status, document, _ = call(python, "bench", bundle, "--runs", 2)
    assert (status, document["results"][0]["engine"]) == (0, "compiled")
    status, document, _ = call(python, "inspect", bundle)
    assert (status, document["layers"]) == (0, None)
    assert document["steps"][0]["ms"] > 0
    assert document["parameters"] == idp.inspect(bundle)["parameters"]
    status, document, _ = call(python, "report", bundle, "-o", "page.html", "--runs", 2)
    page = (python.parent / "page.html").read_text()
    assert (status, document["bytes"]) == (0, len(page.encode()))
    assert "it needs inception-deploy[build]" in page  # of the picture of the network, and of the machine's limits
    np.savez(python.parent / "x.npz", images=np.zeros((9, 28, 28), np.uint8), labels=np.arange(9))
    status, document, _ = call(python, "evaluate", bundle, "x.npz", "--images", 5, "-o", "predicted.jsonl")
    assert (status, document["images"], [row["engine"] for row in document["engines"]]) == (0, 5, ["compiled"])
    assert (
        "inception-deploy[build]" in document["not_run"][0]["reason"]
        or "onnxruntime" in document["not_run"][0]["reason"]
    )
    status, document, _ = call(python, "compare", bundle, bundle, "--runs", 2, "--fail-if", "max_rel > 0")
    assert (status, document["pairs"][0]["cosine"]) == (0, 1)
    assert call(python, "models")[1] == idp.models()
    assert {row["builds"] for row in call(python, "targets")[1]} == {False}


def test_what_builds_says_what_to_install(python: Path, bundle: Path) -> None:
    calls: dict[str, tuple[object, ...]] = {
        "export": ("--model", "lenet5", "-o", "out"),
        "tune": ("--model", "lenet5", "--trials", 1, "-o", "out"),
        "quantize": ("net.onnx", "-o", "out.onnx"),
        "verify": (bundle,),
        "run": (bundle, "--image", PHOTO, "--runtime", "onnxruntime"),
        "bench": (bundle, "--against", "onnxruntime"),
        "inspect": (bundle / "model.onnx",),
    }
    for name, arguments in calls.items():
        status, document, _ = call(python, name, *arguments)
        assert (status, document["error"]["kind"]) == (1, "install"), name
        wanted = f"{name} needs the packages of inception-deploy[build]: pip install 'inception-deploy[build]'"
        assert document["error"]["message"] == wanted
    assert not (python.parent / "out").exists()
