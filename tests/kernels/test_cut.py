"""How rows are cut into tiles."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from inception_deploy.kernels.cut import runs, split, split_in_twos


@given(total=st.integers(1, 400), widest=st.integers(1, 40))
def test_split_is_complete_even_and_shortest(total, widest):
    parts = split(total, widest)
    assert sum(parts) == total
    assert max(parts) <= widest
    assert max(parts) - min(parts) <= 1
    assert len(parts) == -(-total // widest)
    assert parts == sorted(parts, reverse=True)


@given(total=st.integers(1, 400), most=st.integers(1, 20))
def test_a_split_in_twos_has_one_odd_part_at_most(total, most):
    parts = split_in_twos(total, 2 * most)
    assert sum(parts) == total
    assert max(parts) <= 2 * most
    assert all(part % 2 == 0 for part in parts[:-1])
    assert sum(-(-part // 2) for part in parts) == -(-total // 2)


@given(widths=st.lists(st.integers(1, 9), min_size=1, max_size=12), low=st.integers(0, 30), high=st.integers(0, 60))
def test_runs_cover_every_tile_once_and_join_inner_ones_only(widths, low, high):
    def inner(column, width):
        return column >= low and column + width <= high

    column, seen = 0, []
    for first, width, count in runs(widths, inner):
        assert first == column
        assert count == 1 or all(inner(first + i * width, width) for i in range(count))
        seen += [width] * count
        column += width * count
    assert seen == widths
