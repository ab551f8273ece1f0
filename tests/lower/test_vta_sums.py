"""What sums of a VTA are made of: digits of factors, shifts, clamps that can act, and the proof that nothing overflows."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inception_deploy.errors import DeployError
from inception_deploy.kernels.spec import Reads, Term
from inception_deploy.kernels.vta import constants
from inception_deploy.lower.layers import Param, Storage
from inception_deploy.lower.reader import Refuse
from inception_deploy.lower.vta_sums import Sum, digits, half, split_shift

SOURCE = Storage("x", 1, 4, 1, np.arange(16), dtype="int8")
NOTHING = np.zeros(16, np.int32)


@given(st.integers(1, 2**22))
def test_digits_give_the_factor(factor: int) -> None:
    total = 0
    for digit, shift in digits(factor):
        assert -128 <= digit <= 127
        total = (total + digit) << shift
    assert total == factor


@given(st.integers(1, 2**15))
def test_a_mean_takes_two_digits_at_most(factor: int) -> None:
    assert len(digits(factor)) <= 2


@given(st.lists(st.integers(0, 15), min_size=1, max_size=20), st.integers(0, 16))
def test_shifts_are_one_for_all_and_what_is_left(rest: list[int], common: int) -> None:
    shift = np.array(rest, np.int32) + common
    of_all, beside = split_shift(shift)
    assert (shift == of_all + (0 if beside is None else beside)).all()
    assert beside is None or (beside.min() >= 0 and beside.max() <= 15)
    assert of_all == 0 or beside is None or int(shift.max()) > 15  # one instruction where that is enough


def test_shifts_too_far_apart() -> None:
    with pytest.raises(Refuse, match="shifted by 3 to 19, which is more than 15 apart"):
        split_shift(np.array([3, 19], np.int32))


def one_by_one(weight: int) -> tuple[Term, np.ndarray]:
    tile = constants.tiles(np.full((16, 16, 1, 1), weight, np.int8), 16)
    return Term(1, 2, 2), tile


def test_a_clamp_that_cannot_act_is_left_out() -> None:
    total = Sum("layer", 16)
    term, tile = one_by_one(1)
    total.term(term, SOURCE, tile, (0, 127))
    total.close(NOTHING, np.full(16, 4, np.int32), (0, 127))  # 16 * 127 >> 4 is 127
    assert (total.stages[0].low, total.stages[0].high) == (None, None)
    total = Sum("layer", 16)
    term, tile = one_by_one(-1)
    total.term(term, SOURCE, tile, (0, 127))
    total.close(NOTHING, np.full(16, 4, np.int32), (0, 127))
    assert (total.stages[0].low, total.stages[0].high) == (0, None)


def test_a_sum_that_leaves_32_bits_is_refused() -> None:
    total = Sum("stem/conv", 16)
    term, tile = one_by_one(127)
    total.term(term, SOURCE, tile, (-128, 127))
    with pytest.raises(DeployError, match="a sum of 'stem/conv' may reach 2147") as error:
        total.close(np.full(16, 2**31 - 1000, np.int32), NOTHING, (-128, 127))
    assert error.value.kind == "vta"


def test_a_channel_that_comes_to_one_number() -> None:
    """Its shift is far from the others', and its weights do not matter."""
    total = Sum("layer", 16)
    term = Term(1, 2, 2, reads=Reads.OWN, span=1)
    total.term(term, SOURCE, constants.diagonal(np.full((16, 1, 1), 3, np.int8), 16), (-128, 127))
    shift = np.full(16, 4, np.int32)
    shift[5] = 24
    bias = half(shift, 16)
    bias[5] -= 1 << 25
    total.close(bias, shift, (-128, 127))
    tile = total.operands[1]
    assert isinstance(tile, Param)
    assert not tile.array[0, 0, 0, 0, 5].any()
    assert tile.array[0, 0, 0, 0, 4].any()
    assert total.stages[0].shift + total.operands[-1].array[5] == 4 + 15
