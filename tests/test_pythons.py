"""Every Python that is promised and that this machine has installs the pinned packages and compiles and runs LeNet-5."""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PROMISED = ["3.10", "3.11", "3.12", "3.13"]


def interpreter(version: str) -> str | None:
    """A Python of this version: on PATH, or one of pyenv's, whose commands on PATH work for the active ones only."""
    roots = [os.environ.get("PYENV_ROOT", ""), str(Path.home() / ".pyenv")]
    own = [path for root in roots for path in sorted(glob.glob(f"{root}/versions/{version}.*/bin/python{version}"))]
    for path in (shutil.which(f"python{version}"), *own):
        if path and subprocess.run([path, "-c", "import ensurepip"], capture_output=True, check=False).returncode == 0:
            return path
    return None


def said(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A folder that is removed afterwards: with torch's build for GPUs an environment takes gigabytes."""
    yield tmp_path
    shutil.rmtree(tmp_path, ignore_errors=True)


def test_the_promised_are_the_declared_ones() -> None:
    declared = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', (ROOT / "pyproject.toml").read_text())
    assert declared == PROMISED


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("version", PROMISED)
def test_lenet5_is_compiled_and_run(version, folder) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no python{version} here")
    source, bin_ = folder / "source", folder / "env" / "bin"
    kept = shutil.ignore_patterns(".*", "build", "tests", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=kept)
    said(python, "-m", "venv", folder / "env", cwd=folder)
    pip = [
        bin_ / "python",
        "-m",
        "pip",
        "install",
        "-q",
        "--disable-pip-version-check",
        "-c",
        source / "constraints.txt",
    ]
    tools = subprocess.run([*pip, "setuptools", "wheel"], cwd=folder, capture_output=True, text=True, check=False)
    if tools.returncode != 0:
        pytest.skip(f"pip installs nothing here: {tools.stderr.strip().splitlines()[-1]}")
    said(*pip, "--no-build-isolation", f"{source}[build]", cwd=folder)
    said(bin_ / "inception-deploy", "export", "--model", "lenet5", "--target", "cpu", "-o", "lenet5-cpu", cwd=folder)
    shown = said(
        bin_ / "inception-deploy", "run", "lenet5-cpu", "--image", ROOT / "examples/data/photo.jpg", cwd=folder
    )
    assert "ms" in shown
