"""The benchmark of VTA's streams, as a user calls it, on the smallest network."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = Path(__file__).resolve().parents[2] / "benchmarks" / "vta.py"


def test_a_row_a_board_and_a_line_a_step() -> None:
    command = [
        sys.executable,
        "-W",
        "error",
        str(PROGRAM),
        "lenet5",
        "--json",
        "--layers",
        "--boards",
        "pynq",
        "zcu104",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(row["network"], row["board"], row["profile"]) for row in rows] == [
        ("lenet5", "pynq", "hls"),
        ("lenet5", "zcu104", "hls"),
    ]
    for row in rows:
        assert row["macs_on_vta"] == 1.0
        assert 0 < row["bound"] < row["cycles"]
        assert 0 < row["utilisation"] < 1
        assert row["mb_compulsory"] <= row["mb_moved"]
        assert {"c1", "c3"} <= {line["step"] for line in row["layers"]}
        assert row["chisel_convolutions"] is None
    assert rows[1]["ms"] < rows[0]["ms"]


@pytest.mark.slow
def test_json_is_a_list_of_seven_things_and_tuning_makes_nothing_slower(tmp_path: Path) -> None:
    """By the database of `tune`, of the network that it tuned."""
    tune = [sys.executable, "-m", "inception_deploy", "tune", "--model", "lenet5", "--target", "vta:pynq"]
    subprocess.run([*tune, "--trials", "8", "-o", str(tmp_path / "db"), "-q"], check=True, capture_output=True)
    cycles = []
    for more in ([], ["--tuned", str(tmp_path / "db")]):
        command = [sys.executable, str(PROGRAM), "lenet5", "--boards", "pynq", "--json", *more]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        (row,) = json.loads(done.stdout)
        assert list(row) == ["network", "board", "profile", "ms", "utilisation", "cycles", "bound"]
        assert row["ms"] == round(row["cycles"] / 1e5, 2)
        cycles.append(row["cycles"])
    assert cycles[1] <= cycles[0]


def test_what_takes_too_long_is_said() -> None:
    program = runpy.run_path(str(PROGRAM))
    row = {"network": "resnet18", "board": "pynq", "ms": 82.2, "utilisation": 0.862, "ratio": 1.032}
    limit = program["CHISEL"]["resnet18"]
    assert program["missing"]({**row, "chisel_convolutions": limit}) is None
    assert "7450001 cycles on chisel" in program["missing"]({**row, "chisel_convolutions": limit + 1})
    assert "90.1 ms" in program["missing"]({**row, "ms": 90.1, "chisel_convolutions": limit})
    there = {**row, "board": "zcu104", "chisel_convolutions": limit}  # a third of the time is as many cycles
    assert "allowed: 27.0 ms" in program["missing"](there)
    assert program["missing"]({**there, "ms": 26.9}) is None
    steps = [("conv", 5), ("conv", 7), ("max_pool", 1), ("conv", 2), ("dense", 3)]
    assert program["behind_the_stem"]({"layers": [{"op": op, "cycles": taken} for op, taken in steps]}) == 9
