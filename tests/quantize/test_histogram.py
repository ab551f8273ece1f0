"""The histogram does not depend on order, cuts or merges, and the ranges chosen from it mean what they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inception_deploy.errors import UsageError
from inception_deploy.quantize import ranges
from inception_deploy.quantize.histogram import BINS, Histogram
from inception_deploy.quantize.scheme import SCHEMES
from inception_deploy.verify import bound

FLOAT, SIGNED, SHIFT = SCHEMES["float-scale"], SCHEMES["float-scale-int8"], SCHEMES["power-of-two"]
numbers = st.lists(
    st.one_of(
        st.floats(-1e4, 1e4, width=32), st.floats(-(2**-13), 2**-13, width=32), st.sampled_from([0.0, 1.0, -1.0, 2.0])
    ),
    max_size=60,
)


def same(a: Histogram, b: Histogram) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(a.pack(), b.pack(), strict=True))


@given(values=numbers, cut=st.integers(0, 60), seed=st.integers(0, 9))
def test_order_and_cuts_do_not_matter(values: list[float], cut: int, seed: int) -> None:
    array = np.array(values, np.float32)
    whole = Histogram.of([array])
    shuffled = np.random.default_rng(seed).permutation(array)
    pieces = Histogram.of([shuffled[:cut], shuffled[cut:]])
    merged = Histogram.union([Histogram.of([array[cut:]]), Histogram.of([array[:cut]])])
    assert same(whole, pieces)
    assert same(whole, merged)
    assert same(whole, Histogram.unpack(*whole.pack()))
    assert whole.count == len(values)


@given(values=numbers)
def test_every_value_is_in_its_bin(values: list[float]) -> None:
    array = np.array(values, np.float32)
    histogram = Histogram.of([array])
    for value in array[array != 0]:
        index = math.floor(float(value) / histogram.width) + BINS // 2
        assert histogram.counts[index] > 0
    assert histogram.low == min(0.0, *array.tolist(), 0.0)
    assert histogram.high == max(0.0, *array.tolist(), 0.0)


def test_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="finite"):
        Histogram.of([np.array([1, np.nan], np.float32)])
    with pytest.raises(ValueError, match="version"):
        Histogram.unpack(np.zeros(3, np.int64), np.zeros(4))


@pytest.fixture(scope="module")
def normal() -> Histogram:
    return Histogram.of([np.random.default_rng(0).standard_normal(200_000).astype(np.float32)])


@pytest.fixture(scope="module")
def outlier() -> Histogram:
    values = np.abs(np.random.default_rng(0).standard_normal(200_000)).astype(np.float32)
    values[0] = 100
    return Histogram.of([values])


def test_minmax_covers_everything(outlier: Histogram) -> None:
    assert ranges.choose(outlier, FLOAT, "minmax") == (0.0, 100.0)


def test_percentile_leaves_out_what_it_says(normal: Histogram, outlier: Histogram) -> None:
    low, high = ranges.choose(normal, FLOAT, "percentile", percentile=99.0)
    assert low == pytest.approx(-2.576, abs=bound("percentile"))
    assert high == pytest.approx(2.576, abs=bound("percentile"))
    low, high = ranges.choose(outlier, FLOAT, "percentile", percentile=99.0)
    assert low == 0
    assert high == pytest.approx(2.576, abs=bound("percentile"))
    assert ranges.choose(normal, FLOAT, "percentile", percentile=100) == (normal.low, normal.high)


@pytest.mark.parametrize("method", ["mse", "entropy"])
@pytest.mark.parametrize("scheme", [FLOAT, SIGNED, SHIFT], ids=lambda scheme: scheme.name)
def test_an_outlier_is_cut_off_where_it_costs_less_than_it_saves(
    method: str, scheme: object, outlier: Histogram
) -> None:
    many = Histogram.of([np.abs(np.random.default_rng(1).standard_normal(10_000_000)).astype(np.float32)])
    many.merge(outlier)
    assert ranges.params(ranges.choose(many, scheme, method), scheme).scale < 50 / 127  # type: ignore[arg-type]


@pytest.mark.parametrize("scheme", SCHEMES.values(), ids=lambda scheme: scheme.name)
def test_mse_is_no_worse_than_any_other_method(scheme: object, normal: Histogram, outlier: Histogram) -> None:
    for histogram in (normal, outlier):
        points = histogram.points()
        errors = {
            method: ranges.squared_error(*points, ranges.params(ranges.choose(histogram, scheme, method), scheme))  # type: ignore[arg-type]
            for method in ranges.METHODS
        }
        assert errors["mse"] <= min(errors.values()) * 1.02


@settings(deadline=None)
@given(
    values=numbers.filter(len), method=st.sampled_from(sorted(ranges.METHODS)), name=st.sampled_from(sorted(SCHEMES))
)
def test_any_tensor_gets_possible_parameters(values: list[float], method: str, name: str) -> None:
    scheme = SCHEMES[name]
    chosen = ranges.params(ranges.choose(Histogram.of([np.array(values, np.float32)]), scheme, method), scheme)
    assert chosen.scale > 0
    assert scheme.power_of_two is False or math.frexp(chosen.scale)[0] == 0.5
    assert scheme.symmetric is False or chosen.zero == 0


@given(low=st.floats(-1e3, 0), high=st.floats(1e-3, 1e3))
def test_a_power_of_two_is_the_smallest_that_covers(low: float, high: float) -> None:
    scale = ranges.params((low, high), SHIFT).scale
    assert low >= -128 * scale
    assert high <= 127 * scale
    assert low < -64 * scale or high > 63.5 * scale


def test_nothing_and_nonsense() -> None:
    for method in ranges.METHODS:
        for scheme in SCHEMES.values():
            assert ranges.params(ranges.choose(Histogram(), scheme, method), scheme).scale == 1.0
    with pytest.raises(UsageError, match="did you mean entropy"):
        ranges.choose(Histogram(), FLOAT, "entropi")
    with pytest.raises(UsageError, match="percentile"):
        ranges.choose(Histogram(), FLOAT, "percentile", percentile=10)
