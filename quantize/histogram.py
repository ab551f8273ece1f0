"""What calibration remembers of a tensor: a histogram of fixed size that grows by folding, never by looking again.

The bins lie on ``[-R, R)`` with `R` a power of two. A value outside doubles `R` and folds pairs of bins into one. All
edges
are sums of powers of two, so binning and folding are exact: the result depends on the values alone, not on their
order, on how they were cut into images, or on where a calibration was killed and resumed; merging two histograms is
exact as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

BINS = 8192
"""Half of them on each side of zero, so a tensor after a Relu still has 2048 or more over its range."""

_SMALLEST = -100
_SLICE = 1 << 20


class Histogram:
    """How often the values of a tensor fell where. Zeros are counted apart: they quantize without an error.

    Attributes:
        counts: int64 (BINS,), without the zeros.
        exponent: the bins lie on ``[-2^exponent, 2^exponent)``.
        zeros: how many values were exactly zero.
        low, high: the smallest and the largest value, exactly; 0 where there was none.
    """

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(BINS, np.int64)
        self.exponent = _SMALLEST
        self.zeros = 0
        self.low = 0.0
        self.high = 0.0

    @property
    def count(self) -> int:
        """How many values were added."""
        return int(self.counts.sum()) + self.zeros

    @property
    def width(self) -> float:
        """Of one bin."""
        return math.ldexp(1.0, self.exponent + 1) / BINS

    @property
    def centres(self) -> NDArray[np.float64]:
        """The middle of each bin, float64 (BINS,)."""
        return np.asarray((np.arange(BINS) - BINS // 2 + 0.5) * self.width, np.float64)

    def add(self, values: NDArray[np.float32]) -> None:
        """Count the values of an array of any shape; ValueError where one is not finite."""
        flat = np.ascontiguousarray(values, np.float32).reshape(-1)
        if not flat.size:
            return
        low, high = float(flat.min()), float(flat.max())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError("not every value is finite")
        self._cover(low, high)
        factor = np.float32(math.ldexp(BINS / 2, -self.exponent))
        for part in (flat[start : start + _SLICE] for start in range(0, flat.size, _SLICE)):
            part = part[part != 0]
            bins = np.floor(part * factor).astype(np.int32) + BINS // 2
            # The product is exact unless it is subnormal, which only values 2^100 times below the others can be.
            self.counts += np.bincount(bins, minlength=BINS)
            self.zeros -= part.size
        self.zeros += flat.size

    def merge(self, other: Histogram) -> None:
        """Count all that `other` counted too; `other` stays as it is."""
        self._cover(other.low, other.high)
        copy = Histogram.of([])
        copy.counts, copy.exponent = other.counts.copy(), other.exponent
        copy._grow(self.exponent)
        self._grow(copy.exponent)
        self.counts += copy.counts
        self.zeros += other.zeros

    @classmethod
    def of(cls, parts: Iterable[NDArray[np.float32]]) -> Histogram:
        """A histogram of several arrays."""
        result = cls()
        for part in parts:
            result.add(part)
        return result

    @classmethod
    def union(cls, parts: Iterable[Histogram]) -> Histogram:
        """Several histograms as one."""
        result = cls()
        for part in parts:
            result.merge(part)
        return result

    def pack(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """All of it as two arrays, for a file; `unpack` is the inverse."""
        return self.counts, np.array([self.exponent, self.zeros, self.low, self.high], np.float64)

    @classmethod
    def unpack(cls, counts: NDArray[np.int64], rest: NDArray[np.float64]) -> Histogram:
        """ValueError where the arrays are none of `pack`'s."""
        if counts.shape != (BINS,) or counts.dtype != np.int64 or rest.shape != (4,) or (counts < 0).any():
            raise ValueError("not a histogram of this version")
        result = cls()
        result.counts, result.exponent, result.zeros = counts.copy(), int(rest[0]), int(rest[1])
        result.low, result.high = float(rest[2]), float(rest[3])
        return result

    def points(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The filled bins: their centres, moved inside ``[low, high]``, and their counts as float64."""
        filled = np.flatnonzero(self.counts)
        return np.clip(self.centres[filled], self.low, self.high), self.counts[filled].astype(np.float64)

    def _cover(self, low: float, high: float) -> None:
        """Grow so that both lie inside; remember them."""
        self.low, self.high = min(self.low, low), max(self.high, high)
        exponent = _SMALLEST
        if self.high > 0:
            exponent = math.frexp(self.high)[1]  # 2^(exponent-1) <= high < 2^exponent
        if self.low < 0:
            mantissa, power = math.frexp(-self.low)
            exponent = max(exponent, power - (mantissa == 0.5))  # -2^exponent itself lies inside
        self._grow(exponent)

    def _grow(self, exponent: int) -> None:
        """Fold until the bins reach to 2^exponent; each fold halves how many are filled."""
        steps = exponent - self.exponent
        if steps <= 0:
            return
        half = BINS // 2
        for _ in range(min(steps, half.bit_length())):
            pairs = self.counts.reshape(-1, 2).sum(axis=1)
            self.counts = np.zeros(BINS, np.int64)
            self.counts[half // 2 : half // 2 + half] = pairs
        self.exponent = exponent
