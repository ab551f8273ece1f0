"""The benchmark's programs, as a user calls them, on the smallest network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from inception_deploy import cache
from inception_deploy.verify import bound, tolerance

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"


def run(tmp_path: Path, program: str, *argv: str) -> Any:
    (tmp_path / "cache").mkdir()
    usual = cache.directory() / "zig"
    usual.mkdir(parents=True, exist_ok=True)
    (tmp_path / "cache" / "zig").symlink_to(usual)
    environment = {"INCEPTION_DEPLOY_CACHE": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    command = [sys.executable, "-W", "error", str(FOLDER / program), *argv, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode in (0, 1), done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Any:
    arguments = ("--models", "lenet5", "--runs", "5", "--layers", "--against", "onnxruntime", "--threads", "1")
    return run(tmp_path_factory.mktemp("peers"), "peers.py", *arguments)


def test_every_engine_and_the_peak_are_timed(document: Any) -> None:
    (result,) = document["results"]
    assert [row["engine"] for row in result["results"]] == ["compiled", "onnxruntime", "multiply-adds"]
    for row in result["results"]:
        assert row["runs"] == 5
        assert 0 < row["p50_ms"] <= row["p90_ms"] <= row["p99_ms"]
        assert row["gflops"] > 0
    assert result["results"][-1]["gflops"] > 1
    assert result["ratio_to_best"] == result["ratio"]["onnxruntime"] > 0
    assert result["ok"] == all(row["ok"] for row in result["same_answer"].values())


def test_the_engines_agree(document: Any) -> None:
    same = document["results"][0]["same_answer"]
    assert set(same) == {"onnxruntime", "onednn"}
    assert all(row["ok"] and 0 <= row["max_rel"] < tolerance("compiled").max_rel for row in same.values())


def test_memory_is_measured(document: Any) -> None:
    memory = document["results"][0]["memory"]
    assert 0 < memory["arena_bytes"] < memory["compiled_measured_bytes"] + 2**20
    assert memory["onnxruntime_measured_bytes"] >= 0


def test_every_distinct_convolution_has_a_row(document: Any) -> None:
    layers = document["results"][0]["layers"]
    assert [row["count"] for row in layers] == [1] * len(layers)
    assert len(layers) >= 2
    assert sum(row["share"] for row in layers) == pytest.approx(1, abs=bound("printed-ms"))
    assert all(row["ours_gflops"] > 0 and row["onednn_gflops"] > 0 for row in layers)


def test_an_unknown_network_is_an_error(tmp_path: Path) -> None:
    command = [sys.executable, str(FOLDER / "peers.py"), "--models", "lenet55"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "lenet55" in done.stderr
    assert "Traceback" not in done.stderr
