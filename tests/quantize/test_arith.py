"""The integer meaning: rounding at the ties, saturation at the ends, and exact sums, against plain Python arithmetic."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inception_deploy.quantize import arith
from inception_deploy.verify import bound

int32s = st.integers(-(2**31), 2**31 - 1)
bytes_ = st.integers(-128, 127)


def half_up(value: Fraction) -> int:
    return math.floor(value + Fraction(1, 2))


@given(acc=st.integers(-(2**31), 2**31 - 1 - 2**30), shift=st.integers(0, 31))
def test_shift_rounds_half_towards_plus_infinity_and_saturates(acc: int, shift: int) -> None:
    expected = min(max(half_up(Fraction(acc, 2**shift)), -128), 127)
    assert arith.requantize_shift(np.array([acc], np.int32), shift)[0] == expected


@pytest.mark.parametrize(
    ("acc", "shift", "expected"),
    [
        (1, 1, 1), (-1, 1, 0), (3, 1, 2), (-3, 1, -1), (5, 0, 5), (-5, 0, -5),
        (255, 1, 127), (253, 1, 127), (-257, 1, -128), (-255, 1, -127), (127, 0, 127), (128, 0, 127), (-129, 0, -128),
    ],
)  # fmt: skip
def test_shift_at_ties_and_ends(acc: int, shift: int, expected: int) -> None:
    assert arith.requantize_shift(np.array([acc], np.int32), shift)[0] == expected


@given(acc=st.integers(-(2**30), 2**30), shortcut=bytes_, left=st.integers(0, 22), right=st.integers(0, 24))
def test_a_shortcut_joins_the_sum_before_the_one_rounding(acc: int, shortcut: int, left: int, right: int) -> None:
    total = arith.add_shortcut(np.array([acc], np.int32), np.array([shortcut], np.int8), left)
    expected = min(max(half_up(Fraction(acc + shortcut * 2**left, 2**right)), -128), 127)
    assert arith.requantize_shift(total, right)[0] == expected


@given(
    acc=st.integers(-(2**24), 2**24), bias=st.integers(-(2**24), 2**24), count=st.sampled_from([9, 6, 4]),
    shift=st.integers(0, 24),
)  # fmt: skip
def test_a_window_with_less_to_count_counts_more(acc: int, bias: int, count: int, shift: int) -> None:
    found = arith.count_factors(np.array([[count]], np.int32), 9)
    assert found is not None
    times, bits = found
    assert int(times[0, 0]) in (1, 3, 9)  # sums and shifts alone
    total = arith.weigh(np.full((1, 1, 1, 1), acc, np.int32), np.array([bias], np.int32), times, bits)
    exact = (Fraction(acc) * 9 / count + bias) / 2**shift
    expected = min(max(half_up(exact), -128), 127)
    assert arith.requantize_shift(total, shift + bits).item() == expected


def test_windows_that_shifts_cannot_weigh_are_none() -> None:
    assert arith.count_factors(np.array([25, 15], np.int32), 25) is None  # 5 / 3
    with pytest.raises(OverflowError):
        arith.weigh(np.full((1, 1, 1, 1), 2**29, np.int32), None, np.array([[9]]), np.array([[2]]))


def test_a_shortcut_is_not_shifted_to_the_right_and_fits() -> None:
    for shift, q in ((-1, 1), (24, 127)):
        with pytest.raises(OverflowError):
            arith.add_shortcut(np.array([2**30], np.int32), np.array([q], np.int8), shift)


@given(a=bytes_, b=bytes_, zeros=st.tuples(bytes_, bytes_), shift=st.integers(0, 40))
def test_a_product_is_exact_and_shifted_out(a: int, b: int, zeros: tuple[int, int], shift: int) -> None:
    acc = arith.product(np.array([a], np.int8), np.array([b], np.int8), zero_a=zeros[0], zero_b=zeros[1])
    assert acc[0] == (a - zeros[0]) * (b - zeros[1])
    expected = min(max(half_up(Fraction(int(acc[0]), 2**shift)), -128), 127)
    assert arith.requantize_shift(acc, arith.product_shift(-shift, 0, 0))[0] == expected


def test_padding_cuts_and_fills() -> None:
    q = np.arange(6, dtype=np.uint8).reshape(1, 1, 2, 3)
    pads = [(0, 0), (0, 0), (1, -1), (0, 2)]
    assert arith.pad(q, pads, "constant", 9)[0, 0].tolist() == [[9] * 5, [0, 1, 2, 9, 9]]
    assert arith.pad(q, [(0, 0), (0, 0), (0, 1), (1, 0)], "reflect", 9)[0, 0].tolist() == [
        [1, 0, 1, 2], [4, 3, 4, 5], [1, 0, 1, 2],
    ]  # fmt: skip
    assert arith.pad(q, [(0, 0), (0, 0), (0, 0), (1, 1)], "edge", 9)[0, 0].tolist() == [
        [0, 0, 1, 2, 2],
        [3, 3, 4, 5, 5],
    ]


def test_shift_refuses_what_does_not_fit() -> None:
    with pytest.raises(OverflowError):
        arith.requantize_shift(np.array([2**31 - 1], np.int32), 2)
    for shift in (-1, 32):
        with pytest.raises(OverflowError):
            arith.requantize_shift(np.array([1], np.int32), shift)


def test_a_vector_of_shifts_is_one_a_channel() -> None:
    acc = np.array([[[[3]], [[6]]]], np.int32)
    shifts = np.array([1, 2]).reshape(1, 2, 1, 1)
    assert arith.requantize_shift(acc, shifts).reshape(-1).tolist() == [2, 2]


@pytest.mark.parametrize(
    ("acc", "expected"),
    [(1, 0), (3, 2), (5, 2), (7, 4), (-1, 0), (-3, -2), (-5, -2), (255, 127), (253, 126), (-257, -128), (-300, -128)],
)
def test_scale_rounds_half_to_even_and_saturates(acc: int, expected: int) -> None:
    assert arith.requantize_scale(np.array([acc], np.int32), 0.5, 0, "int8")[0] == expected


def test_scale_saturates_around_the_zero_point() -> None:
    acc = np.array([-1000, -101, -100, 155, 156, 1000], np.int32)
    assert arith.requantize_scale(acc, 1.0, 100, "uint8").tolist() == [0, 0, 0, 255, 255, 255]


@given(acc=int32s, mantissa=st.integers(2**23, 2**24 - 1), exponent=st.integers(-44, -20))
def test_scale_is_one_float32_product(acc: int, mantissa: int, exponent: int) -> None:
    factor = np.float32(math.ldexp(mantissa, exponent))
    real = float(np.float32(np.float32(acc) * factor))
    expected = min(max(round(real), -128), 127)  # Python rounds half to even
    assert arith.requantize_scale(np.array([acc], np.int32), factor, 0, "int8")[0] == expected


@given(x=st.floats(-1e6, 1e6, width=32), scale=st.floats(2**-20, 1024, width=32), zero=st.integers(0, 255))
def test_quantizing_is_within_half_a_step_or_saturated(x: float, scale: float, zero: int) -> None:
    q = int(arith.quantize(np.array([x], np.float32), scale, zero, "uint8")[0])
    back = float(arith.dequantize(np.array([q], np.uint8), scale, zero)[0])
    if 0 < q < 255:
        assert abs(back - x) <= scale * (0.5 + bound("half"))
    else:
        assert (back >= x - scale * 0.5001) if q == 0 else (back <= x + scale * 0.5001)


def test_quantizing_refuses_nan_and_saturates_infinity() -> None:
    assert arith.quantize(np.array([np.inf, -np.inf], np.float32), 0.1, 3, "uint8").tolist() == [255, 0]
    with pytest.raises(ValueError, match="NaN"):
        arith.quantize(np.array([np.nan], np.float32), 0.1, 0, "int8")


@pytest.mark.parametrize("group", [1, 2])
def test_convolution_is_the_exact_sum(group: int) -> None:
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (2, 4, 5, 6), dtype=np.uint8)
    w = random.integers(-127, 128, (6, 4 // group, 3, 2), dtype=np.int8)
    b = random.integers(-1000, 1000, 6, dtype=np.int32)
    got = arith.convolve(x, w, b, zero=7, strides=(2, 1), pads=(1, 0, 1, 1), dilations=(1, 2), group=group)
    padded = np.pad(x.astype(int) - 7, ((0, 0), (0, 0), (1, 1), (0, 1)))
    expected = np.zeros(got.shape, int)
    per = 6 // group
    for n, o, i, j in np.ndindex(*got.shape):
        first = (o // per) * (4 // group)
        window = padded[n, first : first + 4 // group, 2 * i : 2 * i + 3, j : j + 3 : 2]
        expected[n, o, i, j] = (window * w[o].astype(int)).sum() + b[o]
    assert got.dtype == np.int32
    np.testing.assert_array_equal(got, expected)


def test_linear_is_the_exact_sum_and_overflow_is_an_error() -> None:
    x, w = np.full((1, 4), 255, np.uint8), np.full((2, 4), -127, np.int8)
    assert arith.multiply(x, w, np.array([1, -1], np.int32), zero=5).tolist() == [[-126999, -127001]]
    with pytest.raises(OverflowError):
        arith.multiply(x, w, np.array([-(2**31), 0], np.int32))


@given(a=bytes_, b=bytes_, shift=st.integers(0, 12))
def test_add_aligns_by_shifting(a: int, b: int, shift: int) -> None:
    acc = arith.add(np.array([a], np.int8), np.array([b], np.int8), shift_a=shift)
    assert acc[0] == a * 2**shift + b
    assert acc.dtype == np.int32


@given(count=st.integers(1, 2500), seed=st.integers(0, 99))
def test_division_by_multiplying_and_shifting_is_within_half_a_step(count: int, seed: int) -> None:
    factor, shift = arith.mean_constants(count)
    assert 0 < factor <= 32767
    assert 128 * count * factor + (1 << max(0, shift - 1)) <= 2**31 - 1
    total = int(np.random.default_rng(seed).integers(-128, 128, count).sum())
    got = (total * factor + ((1 << shift) >> 1)) >> shift
    assert abs(Fraction(got) - Fraction(total, count)) <= Fraction(1, 2) + Fraction(1, 32)


def test_means_of_both_kinds() -> None:
    x = np.array([[[[1, 2], [3, 5]]]], np.int8)
    acc = arith.window_sum(x, (2, 2), pads=(0, 0, 1, 0))
    assert acc.reshape(-1).tolist() == [11, 8]
    inside = arith.window_count((2, 2), (2, 2), pads=(0, 0, 1, 0))
    assert inside.reshape(-1).tolist() == [4, 2]
    assert arith.window_count((2, 2), (2, 2), pads=(0, 0, 1, 0), count_padding=True).reshape(-1).tolist() == [4, 4]
    assert arith.mean_shift(acc, inside, -3, -3).reshape(-1).tolist() == [3, 4]
    assert arith.mean_shift(acc, inside, -3, -6).reshape(-1).tolist() == [22, 32]  # a finer scale: times 8
    assert arith.mean_scale(acc, inside, 0.5, 0.25, 10, "uint8").reshape(-1).tolist() == [16, 18]  # 5.5 to even: 6


def test_max_pool_ignores_padding() -> None:
    x = np.array([[[[-128, -127], [-100, -128]]]], np.int8)
    assert arith.max_pool(x, (2, 2), pads=(1, 1, 0, 0)).reshape(-1).tolist() == [-128, -127, -100, -100]


def test_one_value_at_a_time() -> None:
    q = np.array([-128, 0, 127], np.int8)
    assert arith.look_up(q, np.arange(256, dtype=np.uint8)).tolist() == [0, 128, 255]
    assert arith.bound(q, 0, 100).tolist() == [0, 0, 100]
    assert arith.rescale_shift(q, -3, -2).tolist() == [-64, 0, 64]  # 63.5 rounds up
    assert arith.rescale_shift(q, -3, -4).tolist() == [-128, 0, 127]
    assert arith.rescale(np.array([0, 10, 255], np.uint8), 10, 0.5, 3, "uint8").tolist() == [0, 3, 125]
    assert arith.concat([q[None], q[None]]).tolist() == [[-128, 0, 127, -128, 0, 127]]
