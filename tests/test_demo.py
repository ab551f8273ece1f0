"""`make demo` at a small size: it runs to its end, the runtimes agree, and the digits are read."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_demo(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), "--model", "mobilenet_v1", "--width", "0.125"]
    done = subprocess.run([*command, "--output", str(tmp_path)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert "mobilenet_v1: the weights are untrained" in done.stderr
    assert re.search(r"compiled [\d.]+ ms    onnxruntime [\d.]+ ms    ratio [\d.]+", done.stdout)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["digits-cpu", "mobilenet_v1-cpu"]
    accuracy = re.search(r"accuracy on 360 held-out digits: ([\d.]+)%", done.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) >= 97


def test_digits_on_a_simulated_vta(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "examples" / "vta_digits.py"), "--network", "lenet"]
    done = subprocess.run([*command, "--output", str(tmp_path / "vta")], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    accuracy = re.search(r"accuracy on 360 held-out digits, simulated: ([\d.]+) %", done.stdout)
    assert accuracy is not None
    assert float(accuracy[1]) >= 97
    assert "on the VTA: 100 % of the multiply-adds" in done.stdout
    assert "stays on the host: a VTA has no instruction for 'table'" in done.stdout
