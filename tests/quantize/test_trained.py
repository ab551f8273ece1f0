"""Int8 on networks that were trained: top-1 on digits that neither training nor calibration saw, held to the bar."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "examples" / "data"
QUICK = ("digits_lenet", "digits_irv1")


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("sklearn")
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import int8

    return int8


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(file, marks=() if file.stem in QUICK else pytest.mark.slow, id=file.stem)
        for file in sorted(DATA.glob("digits_*.safetensors"))
    ],
)
def test_what_int8_loses_is_below_the_bar(benchmark: Any, file: Path) -> None:
    (row,) = benchmark.digits(file, list(benchmark.BARS), 1, 0.0)
    assert row["fp32"] >= 97
    assert "missed" not in row, row
    assert row["float-scale SQNR dB"] > 20
    assert row["power-of-two SQNR dB"] > 18


def test_a_missed_bar_is_said_and_fails(
    benchmark: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "BARS", {"float-scale": -1.0})
    file = DATA / "digits_lenet.safetensors"
    assert benchmark.main([str(file), "--scheme", "float-scale", "--threads", "1"]) == 1
    shown = capsys.readouterr()
    assert "| lenet | 99.72 |" in shown.out
    assert "lenet: float-scale loses" in shown.err


def test_mobilenet_has_a_bar_of_its_own(benchmark: Any) -> None:
    assert benchmark.bar(DATA / "digits_mobilenet.safetensors", "power-of-two") == 1.5
    assert benchmark.bar(DATA / "digits_irv2.safetensors", "power-of-two") == 0.5
