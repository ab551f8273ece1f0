"""Winograd's minimal filtering F(m, r): m outputs of a filter with r taps from m + r - 1 multiplications.

    y = A^T [(G g) * (B^T d)]        y_i = sum_k d_{i+k} g_k,   0 <= i < m,  d of m + r - 1 elements

The matrices follow Cook and Toom: the products are values of polynomials at m + r - 2 points and at infinity. They
are computed in exact fractions, so the error is that of fp32 arithmetic on numbers grown by the points' powers: small
points, in pairs of opposite sign. In two dimensions the transform is applied along each axis. (Winograd 1980; Lavin
and Gray 2015, arXiv:1509.09308.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import gcd, lcm

import numpy as np

_POINTS = (
    Fraction(0),
    Fraction(1),
    Fraction(-1),
    Fraction(1, 2),
    Fraction(-1, 2),
    Fraction(2),
    Fraction(-2),
    Fraction(3, 2),
    Fraction(-3, 2),
)
"""In the order they are taken: each next one adds the least error in fp32 (tests/kernels/test_toom_cook.py measures
it).
"""

Matrix = tuple[tuple[Fraction, ...], ...]


@dataclass(frozen=True)
class Transforms:
    """`bt`: n x n, of the data. `g`: n x r, of the filter. `at`: m x n, of the products; n = m + r - 1."""

    bt: Matrix
    g: Matrix
    at: Matrix


def _times(polynomial: list[Fraction], root: Fraction) -> list[Fraction]:
    """polynomial * (x - root), lowest power first."""
    shifted = [Fraction(0), *polynomial]
    return [high - root * low for high, low in zip(shifted, [*polynomial, Fraction(0)], strict=True)]


@cache
def transforms(outputs: int, taps: int, stride: int = 1) -> Transforms:
    """The matrices of F(outputs, taps); F(m, 1) and F(1, r) among them.

    With a stride, an output is the sum of filters with every stride-th tap on every stride-th element, each with
    matrices of its own: ``stride * outputs + taps - stride`` products and as many elements, where there are at least as
    many taps as the stride.

    Raises:
        ValueError: more points would be needed than there are good ones.
    """
    if stride > 1:
        return _strided(outputs, taps, stride)
    size = outputs + taps - 1
    if taps == 1:
        one = tuple(tuple(Fraction(i == j) for j in range(outputs)) for i in range(outputs))
        return Transforms(one, tuple((Fraction(1),) for _ in range(outputs)), one)
    if size - 1 > len(_POINTS):
        raise ValueError(f"F({outputs}, {taps}) needs {size - 1} points; there are {len(_POINTS)}")
    points = _POINTS[: size - 1]
    at = [[p**i for p in points] + [Fraction(i == outputs - 1)] for i in range(outputs)]
    g, bt = [], []
    for p in points:
        scale, lagrange = Fraction(1), [Fraction(1)]
        for other in points:
            if other != p:
                scale *= p - other
                lagrange = _times(lagrange, other)
        g.append([p**k / scale for k in range(taps)])
        bt.append([*lagrange, Fraction(0)])
    whole = [Fraction(1)]
    for p in points:
        whole = _times(whole, p)
    g.append([Fraction(k == taps - 1) for k in range(taps)])
    bt.append(whole)
    return Transforms(_frozen(bt), _frozen(g), _frozen(at))


def _strided(outputs: int, taps: int, stride: int) -> Transforms:
    size = stride * outputs + taps - stride
    bt, g, at = [], [], [list[Fraction]() for _ in range(outputs)]
    for phase in range(stride):
        of = transforms(outputs, len(range(phase, taps, stride)))
        for data, kernel in zip(of.bt, of.g, strict=True):
            bt.append([data[i // stride] if i % stride == phase else Fraction(0) for i in range(size)])
            g.append([kernel[k // stride] if k % stride == phase else Fraction(0) for k in range(taps)])
        for row, part in zip(at, of.at, strict=True):
            row.extend(part)
    return Transforms(_frozen(bt), _frozen(g), _frozen(at))


@dataclass(frozen=True)
class Whole:
    """`Transforms` of whole numbers, whose outputs are `divisor` times the filter's: of small integers all is exact."""

    bt: Matrix
    g: Matrix
    at: Matrix
    divisor: int

    def growth(self) -> tuple[int, int]:
        """How many times the data and the filter may become what they were, along this axis: data from 0 on."""
        ends = [(sum(v for v in row if v > 0), -sum(v for v in row if v < 0)) for row in self.bt]
        return int(max(map(max, ends))), int(max(sum(map(abs, row)) for row in self.g))


@cache
def whole(outputs: int, taps: int, stride: int = 1) -> Whole:
    """`transforms` in the smallest whole numbers: each product's factors are made whole, and what that multiplies
    it by is taken out of the way back, up to one divisor for all.
    """
    of = transforms(outputs, taps, stride)
    scales = [_primitive(data) * _primitive(kernel) for data, kernel in zip(of.bt, of.g, strict=True)]
    at = [[value / scale for value, scale in zip(row, scales, strict=True)] for row in of.at]
    divisor = lcm(*(value.denominator for row in at for value in row))
    bt, g = ([[value * _primitive(row) for value in row] for row in matrix] for matrix in (of.bt, of.g))
    return Whole(_frozen(bt), _frozen(g), _frozen([[value * divisor for value in row] for row in at]), divisor)


def _primitive(row: Sequence[Fraction]) -> Fraction:
    """What makes a row one of whole numbers that have no common factor."""
    common = lcm(*(value.denominator for value in row))
    return Fraction(common, gcd(*(int(value * common) for value in row)))


def _frozen(rows: Sequence[Sequence[Fraction]]) -> Matrix:
    return tuple(tuple(row) for row in rows)


def transform_weight(weight: np.ndarray, outputs: tuple[int, int]) -> np.ndarray:
    """Filters `[O, I, r, s]` to `[ny * nx, O, I]` in fp32 (computed in fp64), for tiles of `outputs` pixels."""
    rows = np.array(transforms(outputs[0], weight.shape[2]).g, np.float64)
    columns = np.array(transforms(outputs[1], weight.shape[3]).g, np.float64)
    wide = np.einsum("ar,oirs,bs->aboi", rows, weight.astype(np.float64), columns, optimize=True)
    return np.asarray(wide.reshape(-1, *weight.shape[:2]), np.float32)


def transform_integers(weight: np.ndarray, outputs: tuple[int, int], stride: tuple[int, int] = (1, 1)) -> np.ndarray:
    """Filters of integers `[O, I, r, s]` to `[ny * nx, O, I]` by `whole`, as int16.

    Raises:
        OverflowError: they do not fit.
    """
    axes = zip(outputs, weight.shape[2:], stride, strict=True)
    rows, columns = (np.array(whole(*axis).g).astype(np.int64) for axis in axes)
    wide = np.einsum("ar,oirs,bs->aboi", rows, weight.astype(np.int64), columns, optimize=True)
    if np.abs(wide).max(initial=0) > np.iinfo(np.int16).max:
        raise OverflowError(f"weights up to {np.abs(weight).max()} do not fit 16 bits when transformed for {outputs}")
    return np.asarray(wide.reshape(-1, *weight.shape[:2]), np.int16)
