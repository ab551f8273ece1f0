"""int8 next to the peers, as a user calls it: bundles and files are made once, and measured as often as wanted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from inception_deploy.runtime import bundle

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "int8_peers.py"


@pytest.mark.slow
def test_ours_and_a_file_of_theirs(tmp_path: Path) -> None:
    made = tmp_path / "made"
    call = [sys.executable, str(PROGRAM), str(made), "--models", "lenet5", "--theirs", "lenet5", "--threads", "1"]
    subprocess.run([*call, "--prepare"], check=True, capture_output=True)
    before = {path: path.stat().st_mtime_ns for path in made.iterdir()}
    done = subprocess.run([*call, "--runs", "5", "--json"], check=False, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stderr
    assert {path: path.stat().st_mtime_ns for path in made.iterdir()} == before
    ours, theirs = json.loads(done.stdout)["results"]
    assert (ours["network"], theirs["network"]) == ("lenet5", "lenet5-onnxruntime")
    for row in (ours, theirs):
        assert row["ratio"] == pytest.approx(row["ours ms"] / row[f"{row['best']} ms"], rel=0.05)
    assert theirs["limit"] < ours["limit"]
    assert done.returncode == int(any(row["ratio"] > row["limit"] for row in (ours, theirs)))
    with bundle.open(made / "lenet5-onnxruntime") as opened:
        assert opened.manifest["precision"] == "int8"
