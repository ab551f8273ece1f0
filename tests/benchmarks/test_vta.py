"""The benchmark of VTA's streams, as a user calls it, on the smallest network."""

from __future__ import annotations

import json
import runpy
import subprocess
import sys
from pathlib import Path

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


def test_what_takes_too_long_is_said() -> None:
    program = runpy.run_path(str(PROGRAM))
    row = {"network": "resnet18", "board": "pynq", "ms": 82.2, "utilisation": 0.862, "ratio": 1.032}
    limit = program["CHISEL"]["resnet18"]
    assert program["missing"]({**row, "chisel_convolutions": limit}) is None
    assert "7450001 cycles on chisel" in program["missing"]({**row, "chisel_convolutions": limit + 1})
    assert "90.1 ms" in program["missing"]({**row, "ms": 90.1, "chisel_convolutions": limit})
    steps = [("conv", 5), ("conv", 7), ("max_pool", 1), ("conv", 2), ("dense", 3)]
    assert program["behind_the_stem"]({"layers": [{"op": op, "cycles": taken} for op, taken in steps]}) == 9
