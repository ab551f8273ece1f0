"""Which plans compute a number of rows, and that each is opened once, when it is needed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inception_deploy.errors import DeployError
from inception_deploy.runtime.plans import Plans, cut

BATCHES = st.sets(st.integers(1, 40), min_size=1, max_size=4).map(sorted)


@given(st.integers(0, 200), BATCHES)
def test_rows_are_cut_for_the_largest_plans_first(rows: int, batches: list[int]) -> None:
    found = cut(rows, batches)
    assert found == sorted(found, reverse=True)
    assert set(found) <= set(batches)
    assert 0 <= sum(found) - rows < min(batches)
    left = rows
    for size in found:  # no larger plan would have been full
        assert not [batch for batch in batches if size < batch <= left]
        left -= size


@pytest.mark.parametrize(
    ("rows", "batches", "expected"),
    [(13, (1, 8, 32), [8, 1, 1, 1, 1, 1]), (13, (8, 32), [8, 8]), (45, (1, 8, 32), [32, 8, *[1] * 5]), (3, (4,), [4])],
)
def test_some_numbers(rows: int, batches: tuple[int, ...], expected: list[int]) -> None:
    assert cut(rows, batches) == expected


class Doubler:
    """A network for one number of rows."""

    def __init__(self, rows: int) -> None:
        self.rows, self.closed = rows, False

    def run(self, *arrays: np.ndarray) -> list[np.ndarray]:
        assert len(arrays[0]) == self.rows
        return [2 * arrays[0]]

    def close(self) -> None:
        self.closed = True


def test_plans_are_opened_when_they_are_needed() -> None:
    made: list[Doubler] = []

    def make(number: int) -> Doubler:
        made.append(Doubler((1, 8, 32)[number]))
        return made[-1]

    plans = Plans((1, 8, 32), make)
    assert [plan.rows for plan in made] == [1]
    for _ in range(2):
        np.testing.assert_array_equal(plans.run(np.ones((32, 2)))[0], np.full((32, 2), 2.0))
    assert [plan.rows for plan in made] == [1, 32]
    with pytest.raises(DeployError, match="there is no plan for 5 rows") as caught:
        plans.run(np.ones((5, 2)))
    assert caught.value.allowed == "1, 8, 32"
    assert [plan.rows for plan in plans.open_all().run.__self__._opened.values()] == [1, 32, 8]
    plans.close()
    assert all(plan.closed for plan in made)


def test_one_plan_takes_what_it_takes() -> None:
    """The first axis of a network of one plan need not be a batch."""
    plans = Plans((3,), lambda _: Doubler(5))
    assert len(plans.run(np.ones((5, 1)))[0]) == 5
