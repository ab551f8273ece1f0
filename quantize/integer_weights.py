"""A linear layer's weights and bias as integers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .scheme import PAIR, Params, Scheme

LARGEST_SHIFT = 24
"""A weight's power of two is never so small that its products would be shifted out by more than this."""

_BIAS_BITS = 30
_SHIFTS = 3


@dataclass(frozen=True)
class QuantizedWeights:
    """What a Conv or Gemm computes with.

    Attributes:
        weight: int8, the shape of the float weight, outputs first.
        scale: float32 (O,); all the same where the scheme has one scale a tensor.
        bias: int32 (O,) with the scale ``x.scale * scale``, of one tap; None where there is none.
    """

    weight: NDArray[np.int8]
    scale: NDArray[np.float32]
    bias: NDArray[np.int32] | None


def scales(
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    x: Params,
    scheme: Scheme,
    finest: int | None = None,
    added: float = 0.0,
    taps: int = 1,
    bits: int = 0,
) -> NDArray[np.float32]:
    """The scale of each output channel.

    Float scales let the largest weight reach the end. Powers of two take the best of three by squared error: the one
    that covers all, and the two below it, which clip. Either is coarsened until the bias and every possible sum fit
    int32. Sums of products with inputs of 16 bits may be longer, so that only the bias counts.

    Args:
        weight: (O, ...).
        finest: the smallest exponent a power of two may have.
        added: the largest number that is added to a sum of products besides the bias.
        taps: how many equal taps each weight is the sum of; the scale is the sum's, so many times a tap's.
        bits: how much larger a sum may become after its bias is added, as a power of two.
    """
    weight = weight.astype(np.float64) / taps
    rows = np.abs(weight).reshape(len(weight), -1)
    limit = np.abs(bias.astype(np.float64)) if bias is not None else np.zeros(len(weight))
    limit = limit + added
    need = limit / x.scale / 2 ** (_BIAS_BITS - bits)
    if scheme.weights == "tensor":
        rows, need = rows.reshape(1, -1), need.max(keepdims=True)
    peak = rows.max(axis=1)
    if scheme.power_of_two:
        exponents = np.array([_best_exponent(row, scheme) for row in rows])
        exponents = np.maximum(exponents, np.ceil(np.log2(np.maximum(need, 2.0**-100))).astype(int))
        if finest is not None:
            exponents = np.maximum(exponents, finest)
        chosen = np.ldexp(1.0, exponents)
    else:
        # A channel of zeros has the finest scale that its bias allows.
        chosen = np.maximum(np.maximum(peak / scheme.weight_limits[1], need), 2.0**-60)
        if scheme.pairs:  # each of the two may be rounded up by a half
            chosen = np.maximum(chosen, neighbours(weight).max((1, 2)) / (PAIR - 1))
    chosen = np.broadcast_to(chosen, (len(weight),)).astype(np.float32)
    while True:
        q = round_weight(weight, chosen, scheme)
        reach = np.abs(q.astype(np.float64)).reshape(len(q), -1).sum(axis=1) * x.reach * taps
        over = reach + limit / (x.scale * chosen.astype(np.float64)) > 2 ** (31 - bits) - 2**LARGEST_SHIFT
        if x.wide or not over.any():
            return np.asarray(chosen * np.float32(taps), np.float32)
        over = np.full_like(over, over.any()) if scheme.weights == "tensor" else over
        chosen = np.where(over, chosen * np.float32(2), chosen)


def covering_exponent(weight: NDArray[Any], scheme: Scheme, taps: int = 1) -> int:
    """The largest exponent that a tap of any channel may have from `scales`, its bias aside."""
    return _exponent(float(np.abs(weight).max(initial=0.0)) / taps, scheme)


def round_weight(weight: NDArray[Any], scale: NDArray[np.float32], scheme: Scheme) -> NDArray[np.int8]:
    """The nearest integers, ties to even, saturated."""
    column = scale.astype(np.float64).reshape(-1, *[1] * (weight.ndim - 1))
    return np.clip(np.rint(weight.astype(np.float64) / column), *scheme.weight_limits).astype(np.int8)


def neighbours(weight: NDArray[Any]) -> NDArray[Any]:
    """What two weights of neighbouring channels come to, of each sign: (O, I, ...) to (O, 2, pairs), from 0 up."""
    two = _by_twos(weight)
    return np.stack([np.maximum(sign * two, 0).sum(2).reshape(len(two), -1) for sign in (1, -1)], 1)


def fit_pairs(q: NDArray[np.int8]) -> NDArray[np.int8]:
    """Integers (O, I, ...) with the larger one of neighbours that exceed `PAIR` moved towards 0, as far as it takes."""
    two = _by_twos(q.astype(np.int16))
    for sign in (1, -1):
        over = np.maximum(np.maximum(sign * two, 0).sum(2) - PAIR, 0)
        largest = np.argmax(sign * two, 2)[:, :, None]
        np.put_along_axis(two, largest, np.take_along_axis(two, largest, 2) - sign * over[:, :, None], 2)
    return two.reshape(len(q), -1, *q.shape[2:])[:, : q.shape[1]].astype(np.int8)


def _by_twos(weight: NDArray[Any]) -> NDArray[Any]:
    """(O, I, ...) as (O, pairs of neighbours, 2, taps); a copy, whose last pair ends with zeros where I is odd."""
    even = np.pad(weight, [(0, 0), (0, weight.shape[1] % 2), *[(0, 0)] * (weight.ndim - 2)])
    return even.reshape(len(even), even.shape[1] // 2, 2, -1)


def quantize_weights(
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    scale: NDArray[np.float32],
    x: Params,
    scheme: Scheme,
    rounded: NDArray[np.int8] | None = None,
    taps: int = 1,
) -> QuantizedWeights:
    """Integers at given scales; `rounded` takes the place of rounding to the nearest, `taps` is as for `scales`."""
    q = round_weight(weight, scale, scheme) if rounded is None else rounded
    if bias is None:
        return QuantizedWeights(q, scale, None)
    step = (np.float32(x.scale) * (scale / np.float32(taps))).astype(np.float64)
    return QuantizedWeights(q, scale, np.rint(bias.astype(np.float64) / step).astype(np.int32))


def _exponent(peak: float, scheme: Scheme) -> int:
    if peak < 2.0**-60:
        return -60
    mantissa, power = math.frexp(peak / scheme.weight_limits[1])
    return power - (mantissa == 0.5)


def _best_exponent(row: NDArray[np.float64], scheme: Scheme) -> int:
    """`row` holds magnitudes; the two ends differ by one step, which does not matter here."""
    top = _exponent(float(row.max(initial=0.0)), scheme)

    def cost(power: int) -> float:
        step = math.ldexp(1.0, power)
        return float(((np.minimum(np.rint(row / step), scheme.weight_limits[1]) * step - row) ** 2).sum())

    return min((top - shift for shift in range(_SHIFTS)), key=cost)
