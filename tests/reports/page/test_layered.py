"""The layered drawing: nothing overlaps, lines go down, orders and places are the best there are where that is known."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inception_deploy.reports.page.layered import crossings, draw, rising
from inception_deploy.verify import bound

NEAR = bound("float64")
SIZES = {"width": 90.0, "height": 30.0, "gap": 8.0, "between": 20.0, "lane": 8.0}


@st.composite
def graphs(draw_: st.DrawFn) -> list[list[int]]:
    count = draw_(st.integers(1, 12))
    return [sorted(draw_(st.sets(st.integers(0, i - 1), max_size=3))) if i else [] for i in range(count)]


@given(graphs())
@settings(max_examples=60, deadline=None)
def test_boxes_do_not_overlap_and_every_read_is_a_way_down(reads: list[list[int]]) -> None:
    drawing = draw(reads, **SIZES)
    for (ax, ay), (bx, by) in itertools.combinations(drawing.boxes, 2):
        assert ay != by or abs(ax - bx) > 90
    assert all(x + NEAR >= 0 and x + 90 <= drawing.width + NEAR for x, _ in drawing.boxes)
    assert all(y + 30 <= drawing.height + NEAR for _, y in drawing.boxes)
    ways: dict[tuple[float, float], set[tuple[float, float]]] = {}
    for x1, y1, x2, y2 in drawing.lines:
        assert y1 < y2
        ways.setdefault((round(x1, 3), y1), set()).add((round(x2, 3), y2))
    for box, before in enumerate(reads):
        wanted = (round(drawing.boxes[box][0] + 45, 3), drawing.boxes[box][1])
        for other in before:
            at = {(round(drawing.boxes[other][0] + 45, 3), drawing.boxes[other][1] + 30)}
            while at and wanted not in at:
                at = set().union(*(ways.get(place, set()) for place in at))
            assert wanted in at, (other, box)


def test_a_chain_is_straight() -> None:
    drawing = draw([[], [0], [1], [2]], **SIZES)
    assert {x for x, _ in drawing.boxes} == {0.0}
    assert drawing.height == 4 * 30 + 3 * 20
    assert drawing.width == 90


def test_long_lines_from_one_box_share_a_lane() -> None:
    """A dense block: each of n layers is read by all after it."""
    count = 12
    drawing = draw([list(range(i)) for i in range(count)], **SIZES)
    assert drawing.width <= 90 + count * (8 + 8 + 8) * 2
    assert len(drawing.lines) < count * count * 3


def test_crossed_branches_are_uncrossed() -> None:
    # Two ranks of three; the first order crosses thrice, and another not at all.
    reads = [[], [], [], [2], [1], [0]]
    edges = [(2, 3), (1, 4), (0, 5)]
    assert crossings([[0, 1, 2], [3, 4, 5]], edges) == 3
    drawing = draw(reads, **SIZES)
    top = sorted(range(3), key=lambda i: drawing.boxes[i][0])
    below = sorted(range(3, 6), key=lambda i: drawing.boxes[i][0])
    assert crossings([top, below], edges) == 0


@given(st.lists(st.integers(-50, 50).map(float), min_size=1, max_size=5))
@settings(max_examples=50, deadline=None)
def test_rising_is_the_nearest_sequence_that_never_falls(values: list[float]) -> None:
    got = rising(values)
    assert all(a <= b + NEAR for a, b in itertools.pairwise(got))
    error = sum((a - b) ** 2 for a, b in zip(got, values, strict=True))
    # Every rising sequence of pools' means is a candidate: the least of all ways to cut the row into runs.
    best = float("inf")
    for cuts in itertools.product((0, 1), repeat=len(values) - 1):
        runs = [[values[0]]]
        for cut, value in zip(cuts, values[1:], strict=True):
            runs.append([value]) if cut else runs[-1].append(value)
        means = [sum(run) / len(run) for run in runs]
        if all(a <= b for a, b in itertools.pairwise(means)):
            best = min(best, sum((mean - value) ** 2 for mean, run in zip(means, runs, strict=True) for value in run))
    assert error == pytest.approx(best)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(6, 11)), max_size=15))
def test_crossings_are_pairs_of_lines_that_swap_their_order(edges: list[tuple[int, int]]) -> None:
    pairs = sum((a[0] - b[0]) * (a[1] - b[1]) < 0 for a, b in itertools.combinations(edges, 2))
    assert crossings([list(range(6)), list(range(6, 12))], edges) == pairs


def test_a_box_that_reads_a_later_one_is_refused() -> None:
    with pytest.raises(ValueError, match="box 0 reads one that does not come before it"):
        draw([[1], []], **SIZES)


def test_nothing_to_draw() -> None:
    drawing = draw([], **SIZES)
    assert (drawing.width, drawing.height, drawing.boxes) == (0.0, 0.0, ())
