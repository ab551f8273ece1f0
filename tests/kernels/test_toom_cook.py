"""Winograd: the matrices are exact, the error in fp32 is bounded, and no network notices the difference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inception_deploy.kernels.spec import Conv
from inception_deploy.kernels.toom_cook import Transforms, transform_integers, transform_weight, transforms, whole
from inception_deploy.kernels.vector.winograd import OUTPUTS, pays
from inception_deploy.verify import bound


def as_arrays(t: Transforms, dtype: type) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    bt, g, at = (np.array([[float(v) for v in row] for row in matrix], dtype) for matrix in (t.bt, t.g, t.at))
    return bt, g, at


@given(outputs=st.integers(1, 6), taps=st.integers(1, 4), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=50, deadline=None)
def test_the_matrices_compute_the_correlation(outputs: int, taps: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    data, kernel = rng.standard_normal(outputs + taps - 1), rng.standard_normal(taps)
    bt, g, at = as_arrays(transforms(outputs, taps), np.float64)
    np.testing.assert_allclose(
        at @ ((g @ kernel) * (bt @ data)), np.correlate(data, kernel, "valid"), atol=bound("float64")
    )


@pytest.mark.parametrize(("taps", "outputs"), [(taps, n) for taps in OUTPUTS if taps > 1 for n in OUTPUTS[taps]])
def test_the_error_in_fp32_is_below_1e_5(taps: int, outputs: int) -> None:
    """Of a row of outputs over 64 channels, as root of the mean square, relative to the outputs'."""
    bt, g, at = as_arrays(transforms(outputs, taps), np.float32)
    rng = np.random.default_rng(taps)
    data = np.maximum(rng.standard_normal((400, 64, outputs + taps - 1)), 0).astype(np.float32)
    kernel = rng.standard_normal((64, taps)).astype(np.float32)
    got = ((kernel @ g.T) * (data @ bt.T)).sum(1, dtype=np.float32) @ at.T
    expected = sum(data[:, :, k : k + outputs].astype(np.float64) * kernel[:, k, None] for k in range(taps)).sum(1)
    assert np.sqrt(((got - expected) ** 2).mean() / (expected**2).mean()) < bound("kernels")


@pytest.mark.parametrize(
    ("outputs", "taps", "stride"),
    [(2, 3, 1), (3, 3, 1), (4, 3, 1), (2, 5, 1), (1, 3, 1), (2, 3, 2), (3, 3, 2), (4, 3, 2), (3, 5, 2), (2, 7, 3)],
)
def test_whole_numbers_give_a_multiple_of_the_correlation(outputs: int, taps: int, stride: int) -> None:
    """Exactly, with the extremes of bytes, and nothing grows more than is said."""
    found, rng = whole(outputs, taps, stride), np.random.default_rng(0)
    bt, g, at = (np.array([[int(v) for v in row] for row in matrix]) for matrix in (found.bt, found.g, found.at))
    data = rng.choice([0, 255], (200, (outputs - 1) * stride + taps))
    kernel = rng.choice([-128, 127], (200, taps))
    moved, filters = data @ bt.T, kernel @ g.T
    for row, filter_, got in zip(data, kernel, (moved * filters) @ at.T, strict=True):
        np.testing.assert_array_equal(got, found.divisor * np.correlate(row, filter_, "valid")[::stride])
    of_data, of_kernel = found.growth()
    assert np.abs(moved).max() == 255 * of_data
    assert np.abs(filters).max() <= 128 * of_kernel


def test_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(OverflowError, match=r"weights up to 128 do not fit 16 bits when transformed for \(2, 2\)"):
        transform_integers(np.full((1, 1, 5, 5), -128, np.int16), (2, 2))


def test_too_many_points_are_refused() -> None:
    with pytest.raises(ValueError, match=r"F\(6, 7\) needs 11 points"):
        transforms(6, 7)


def test_a_filter_is_transformed_along_both_axes() -> None:
    weight = np.random.default_rng(0).standard_normal((2, 3, 3, 1)).astype(np.float32)
    rows = as_arrays(transforms(4, 3), np.float64)[1]
    np.testing.assert_allclose(
        transform_weight(weight, (4, 1)), np.einsum("ar,oir->aoi", rows, weight[..., 0]), rtol=bound("rounding")
    )


def conv(kernel: tuple[int, int] = (3, 3), **changes: object) -> Conv:
    facts = {
        "batch": 1,
        "channels": 64,
        "height": 35,
        "width": 35,
        "out_channels": 64,
        "out_height": 35,
        "out_width": 35,
        "pad": (1, 1),
    }
    return Conv(kernel=kernel, **{**facts, **changes})  # type: ignore[arg-type]


def test_wide_maps_pay() -> None:
    assert pays(conv(), lanes=16) == (4, 4)
    assert pays(conv((1, 7), pad=(0, 3)), lanes=16) == (1, 4)
    assert pays(conv((7, 1), pad=(3, 0)), lanes=16) == (4, 1)


def test_small_maps_with_many_weights_take_smaller_tiles() -> None:
    """As measured: docs/perf/tuning.md."""

    def same(channels: int, out: int, size: int, kernel: tuple[int, int]) -> Conv:
        pad = (kernel[0] // 2, kernel[1] // 2)
        return Conv(1, channels, size, size, out, size, size, kernel, pad=pad)

    assert pays(same(256, 256, 14, (3, 3)), lanes=16) == (2, 2)
    assert pays(same(224, 256, 8, (3, 1)), lanes=16) == (2, 1)
    assert pays(same(192, 224, 8, (1, 3)), lanes=16) is None


@pytest.mark.parametrize(
    "spec",
    [
        conv((1, 1), pad=(0, 0)),
        conv(stride=(2, 2)),
        conv(dilation=(2, 2)),
        conv(groups=2),
        conv(planar=True),
        conv((9, 9)),
        conv(
            channels=512, out_channels=512, height=4, width=4, out_height=4, out_width=4
        ),  # the weights alone would cost more
    ],
    ids=["1x1", "stride", "dilation", "groups", "planar", "9x9", "small map"],
)
def test_the_rest_is_computed_directly(spec: Conv) -> None:
    assert pays(spec, lanes=16) is None
