"""From a histogram to the ends of a range: four methods, and what they mean for each scheme.

minmax      all that was seen lies inside
percentile  all but the outermost part lies inside
entropy     the clipped histogram, written with as many levels as int8 has, differs least from itself (Kullback-Leibler)
mse         rounding and clipping together cost least, in squared error

Zero is always inside. A range of nothing (a tensor that was always zero) gets the scale 1: whatever comes later is
rounded to whole numbers instead of being blown up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from inception_deploy.errors import UsageError, nearest

from .histogram import Histogram
from .scheme import Params, Scheme

Range = tuple[float, float]

PERCENTILE = 99.99
"""Of the values inside; half of the rest is cut off at each end."""

_STEPS = 100
_NARROWEST = 0.1
_SHIFTS = 5
_SMALLEST = math.ldexp(1.0, -60)


def choose(histogram: Histogram, scheme: Scheme, method: str, *, percentile: float = PERCENTILE) -> Range:
    """The ends ``(low <= 0, high >= 0)`` of a tensor's range; UsageError as `check`."""
    check(method, percentile)
    if method == "percentile":
        return _percentile(histogram, percentile)
    return METHODS[method](histogram, scheme)


def check(method: str, percentile: float = PERCENTILE) -> None:
    """Refuse what `choose` cannot do.

    Raises:
        UsageError: (kind ``method``) there is no such method; (kind ``percentile``) it is out of range.
    """
    if method not in METHODS:
        near = nearest(method, METHODS)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise UsageError(f"there is no method '{method}'{hint}", kind="method", got=method, allowed=list(METHODS))
    if not 50 < percentile <= 100:
        message = "the percentile is out of range"
        raise UsageError(message, kind="percentile", got=percentile, allowed="above 50, at most 100")


def params(ends: Range, scheme: Scheme) -> Params:
    """The scale and the zero point that cover a range.

    Asymmetric: 255 steps from end to end, and zero is a whole number of them. Symmetric: the wider side reaches 127.
    Powers of two: the smallest that clips nothing.
    """
    low, high = min(ends[0], 0.0), max(ends[1], 0.0)
    first, last = scheme.limits
    if high - low < _SMALLEST:
        return Params(1.0, 0, scheme.activation)
    if scheme.power_of_two:
        return Params(math.ldexp(1.0, exponent(low, high)), 0, scheme.activation)
    if scheme.symmetric:
        return Params(float(np.float32(max(-low, high) / last)), 0, scheme.activation)
    return at_scale(ends, float(np.float32((high - low) / (last - first))), scheme)


def at_scale(ends: Range, scale: float, scheme: Scheme) -> Params:
    """The parameters of a given scale: only the zero point is left to choose."""
    if scheme.symmetric:
        return Params(scale, 0, scheme.activation)
    first, last = scheme.limits
    zero = first + round(-min(ends[0], 0.0) / scale)
    return Params(scale, min(max(zero, first), last), scheme.activation)


def exponent(low: float, high: float) -> int:
    """The smallest n with ``low >= -128 * 2^n`` and ``high <= 127 * 2^n``."""
    need = max(-low / 128, high / 127)
    mantissa, power = math.frexp(need)
    return power - (mantissa == 0.5)


def _min_max(histogram: Histogram, scheme: Scheme) -> Range:
    return histogram.low, histogram.high


def _percentile(histogram: Histogram, percentile: float) -> Range:
    if not histogram.count:
        return 0.0, 0.0
    counts = histogram.counts.copy()
    middle = len(counts) // 2
    counts[middle] += histogram.zeros
    tail = (100 - percentile) / 200 * histogram.count
    if histogram.low >= 0:
        tail *= 2  # there is one end only
    filled = np.cumsum(counts)
    edges = (np.arange(len(counts) + 1) - middle) * histogram.width
    low = edges[int(np.searchsorted(filled, tail, side="right"))]
    high = edges[int(np.searchsorted(filled, histogram.count - tail, side="left")) + 1]
    return max(histogram.low, min(low, 0.0)), min(histogram.high, max(high, 0.0))


def _mse(histogram: Histogram, scheme: Scheme) -> Range:
    """The best of many ranges; both ends are narrowed together, then each alone."""
    points, weights = histogram.points()
    whole = histogram.low, histogram.high

    def cost(ends: Range) -> float:
        return squared_error(points, weights, params(ends, scheme))

    if scheme.power_of_two:
        if whole[1] - whole[0] < _SMALLEST:
            return whole
        top = exponent(*whole)
        best = min((top - step for step in range(_SHIFTS)), key=lambda n: cost(_reach(n)))
        return _reach(best)
    factors = np.linspace(1.0, _NARROWEST, _STEPS)
    ends = min(((whole[0] * f, whole[1] * f) for f in factors), key=cost)
    if not scheme.symmetric and whole[0] < 0 < whole[1]:
        near = np.linspace(1.3, 0.7, 25)
        ends = min(((max(whole[0], ends[0] * f), ends[1]) for f in near), key=cost)
        ends = min(((ends[0], min(whole[1], ends[1] * f)) for f in near), key=cost)
    return ends


def _reach(power: int) -> Range:
    return -128 * math.ldexp(1.0, power), 127 * math.ldexp(1.0, power)


def squared_error(points: NDArray[np.float64], weights: NDArray[np.float64], how: Params) -> float:
    """The sum of squared errors of rounding and clipping, each point counted `weights` times."""
    low, high = how.limits
    q = np.clip(np.rint(points / how.scale) + how.zero, low, high)
    return float((weights * ((q - how.zero) * how.scale - points) ** 2).sum())


def _entropy(histogram: Histogram, scheme: Scheme) -> Range:
    """The symmetric threshold whose clipped, coarsely written histogram has the least divergence from the clipped
    one.
    """
    half = len(histogram.counts) // 2
    magnitudes = histogram.counts[half:] + histogram.counts[:half][::-1]
    filled = np.flatnonzero(magnitudes)
    if not filled.size:
        return 0.0, 0.0
    # A tensor that is never negative has all levels of an asymmetric scheme for its magnitudes, any other half of them.
    levels = 256 if histogram.low >= 0 and not scheme.symmetric else 128
    last = int(filled[-1]) + 1
    candidates = sorted({*range(levels, last, max(1, last // 128)), last})
    best = min(candidates, key=lambda bins: _divergence(magnitudes, bins, levels))
    threshold = best * histogram.width
    return max(histogram.low, -threshold), min(histogram.high, threshold)


def _divergence(magnitudes: NDArray[np.int64], bins: int, levels: int) -> float:
    """KL(P || Q): P is the first `bins` with all beyond in the last of them, Q the same bins without that, `levels`
    wide.
    """
    inside = magnitudes[:bins].astype(np.float64)
    reference = inside.copy()
    reference[-1] += magnitudes[bins:].sum()
    groups = np.arange(bins) * min(levels, bins) // bins
    filled = inside > 0
    members = np.bincount(groups, filled)
    spread = np.where(filled, (np.bincount(groups, inside) / np.maximum(members, 1))[groups], 0.0)
    seen = reference > 0
    p = reference[seen] / reference.sum()
    # An outlier may land in a bin of P where Q has nothing; a small share keeps the divergence finite, and large.
    q = np.maximum(spread[seen], 1e-4) / max(spread.sum(), 1e-4)
    return float((p * np.log(p / q)).sum())


METHODS: Mapping[str, Callable[[Histogram, Scheme], Range]] = MappingProxyType(
    {"minmax": _min_max, "percentile": lambda h, s: _percentile(h, PERCENTILE), "entropy": _entropy, "mse": _mse}
)
