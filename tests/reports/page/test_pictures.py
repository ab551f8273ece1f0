"""Pictures: places follow from values, and say what the plan says."""

from __future__ import annotations

import re
from typing import Any

import pytest

from inception_deploy.reports.page.drawing import Scale, plain, round_step, shortened
from inception_deploy.reports.page.facts import Facts
from inception_deploy.reports.page.pictures.arena import arena, live, lives
from inception_deploy.reports.page.pictures.blocks import LEVELS, level
from inception_deploy.reports.page.pictures.columns import errors
from inception_deploy.reports.page.pictures.roofline import points
from inception_deploy.reports.page.pictures.strip import strip
from inception_deploy.reports.page.pictures.waves import waves
from inception_deploy.verify import bound


def test_a_scale_goes_from_end_to_end() -> None:
    scale = Scale(0, 10, 100, 200)
    assert [scale(value) for value in (-5, 0, 5, 10, 50)] == [100, 100, 150, 200, 200]
    log = Scale(1, 100, 0, 10, log=True)
    assert log(10) == pytest.approx(5)
    assert log.ticks() == [1, 2, 5, 10, 20, 50, 100]
    assert Scale(0, 2, 0, 1, whole=True).ticks() == [0, 1, 2]
    assert Scale(0, 0, 0, 9)(0) == 0


@pytest.mark.parametrize("last", [1e-4, 0.03, 0.7, 1, 3, 17, 388, 5e6])
def test_ticks_are_round_and_few(last: float) -> None:
    ticks = Scale(0, last, 0, 100).ticks()
    assert 3 <= len(ticks) <= 11
    assert ticks[0] == 0
    assert ticks[-1] <= last
    assert plain(ticks[1])
    step = ticks[1]
    assert round_step(step) == pytest.approx(step)


def test_names_are_cut_in_front() -> None:
    assert shortened("block35/0/conv", 7) == "\u20260/conv"
    assert shortened("short", 7) == "short"


def test_shades_are_of_the_slowest() -> None:
    assert level(None, 1.0) is None
    assert level(1.0, 1.0) == LEVELS
    assert level(0.0, 1.0) == 1
    assert level(0.16, 1.0) == 2
    assert level(0.17, 1.0) == 3


def placement(value: str, offset: int, size: int, first: int, last: int, shares: str | None = None) -> dict[str, Any]:
    return {"value": value, "offset": offset, "bytes": size, "first_wave": first, "last_wave": last, "shares": shares}


PLACED = [
    placement("own", 0, 64, 0, 1),
    placement("left", 64, 64, 1, 1, "join"),
    placement("right", 128, 128, 2, 2, "join"),
    placement("sum", 64, 192, 4, 5, "join"),
]


def test_a_shared_memory_reaches_as_far_as_its_parts() -> None:
    rows = {row.value: row for row in lives(PLACED)}
    assert {name: row.kind for name, row in rows.items()} == {
        "own": "own", "join": "root", "left": "slice", "right": "slice", "sum": "inplace",
    }  # fmt: skip
    join = rows["join"]
    assert (join.low, join.high, join.first, join.last) == (64, 256, 1, 5)
    assert live(list(rows.values())) == [64, 256, 192, 192, 192, 192]


def test_the_arena_draws_everybody_who_lives_in_it() -> None:
    rows = lives(PLACED)
    picture = arena(rows, 256)
    assert all(f"<title>{row.value}\n" in picture for row in rows)
    assert len(re.findall('class="life ', picture)) == len(rows)
    assert "a slice of join" in picture


def test_the_arena_of_a_bundle_fits_into_itself(facts: Facts) -> None:
    rows = lives(facts.plan["placements"])
    total = facts.manifest["memory"]["arena_bytes"]
    assert max(row.high for row in rows) <= total
    assert max(live(rows)) <= total
    assert {"slice", "inplace"} <= {row.kind for row in rows}


def test_the_strip_is_as_wide_as_the_time(facts: Facts) -> None:
    picture = strip(facts.layers, facts.network)
    cells = re.findall(r'<rect x="([\d.]+)" y="(\d+)" width="([\d.]+)"', picture)
    rows: dict[str, float] = {}
    for _, y, width in cells:
        rows[y] = rows.get(y, 0) + float(width)
    assert len(rows) == 3  # blocks, layers, kernels
    assert max(rows.values()) - min(rows.values()) < 0.3 * len(cells)
    assert all(f"<title>{layer.name}" in picture for layer in facts.layers)


def test_the_kernel_calls_of_a_wave_share_the_threads() -> None:
    steps = [{"layer": name, "op": "conv", "wave": wave, "ms": ms} for name, wave, ms in
             (("a", 0, 1.0), ("b", 1, 3.0), ("c", 1, 1.0))]  # fmt: skip
    picture = waves(steps, 4)
    found = {name: (float(width), float(height)) for width, height, name in
             re.findall(r'width="([\d.]+)" height="([\d.]+)" class="cell[^>]*><title>(\w)', picture)}  # fmt: skip
    assert found["b"][0] == pytest.approx(found["c"][0])
    assert found["b"][0] == pytest.approx(4 * found["a"][0], rel=bound("printed"))
    assert found["b"][1] == pytest.approx(3 * found["c"][1], rel=bound("printed"))
    assert found["b"][1] + found["c"][1] == pytest.approx(found["a"][1], rel=bound("printed"))


def test_points_are_work_over_bytes_and_over_time(facts: Facts) -> None:
    assert facts.network is not None
    found = {layer.name: (at, speed) for layer, at, speed in points(facts.network.boxes)}
    stem = next(layer for layer in facts.layers if layer.macs == 32 * 27 * 31 * 31)
    at, speed = found[stem.name]
    moved = 4 * (3 * 64 * 64 + 32 * 31 * 31 + 32 * 27 + 32)
    assert at == pytest.approx(stem.macs / moved)
    assert speed == pytest.approx(stem.macs / stem.ms / 1e6)


def test_the_fall_is_marked_at_its_layer() -> None:
    rows = [("a", 40.0, 41.0, "told"), ("b", 20.0, 39.0, "told"), ("c", 20.0, 40.0, "told")]
    assert "falls here: b" in errors(rows, "b", "label")
    assert "falls here" not in errors(rows, None, "label")
