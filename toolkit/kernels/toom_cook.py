"""Winograd's minimal filtering F(m, r): m outputs of a filter with r taps from m + r - 1 multiplications.

    y = A^T [(G g) * (B^T d)]        y_i = sum_k d_{i+k} g_k,   0 <= i < m,  d of m + r - 1 elements

The matrices follow Cook and Toom: the products are values of polynomials at m + r - 2 points and at infinity. They
are computed in exact fractions, so the error is that of fp32 arithmetic on numbers grown by the points' powers: small
points, in pairs of opposite sign. In two dimensions the transform is applied along each axis. (Winograd 1980; Lavin
and Gray 2015, arXiv:1509.09308.)
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from functools import cache

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
def transforms(outputs: int, taps: int) -> Transforms:
    """The matrices of F(outputs, taps); F(m, 1) and F(1, r) among them.

    Raises:
        ValueError: more points would be needed than there are good ones.
    """
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


def _frozen(rows: list[list[Fraction]]) -> Matrix:
    return tuple(tuple(row) for row in rows)


def transform_weight(weight: np.ndarray, outputs: tuple[int, int]) -> np.ndarray:
    """Filters `[O, I, r, s]` to `[ny * nx, O, I]` in fp32 (computed in fp64), for tiles of `outputs` pixels."""
    rows = np.array(transforms(outputs[0], weight.shape[2]).g, np.float64)
    columns = np.array(transforms(outputs[1], weight.shape[3]).g, np.float64)
    wide = np.einsum("ar,oirs,bs->aboi", rows, weight.astype(np.float64), columns, optimize=True)
    return np.asarray(wide.reshape(-1, *weight.shape[:2]), np.float32)
