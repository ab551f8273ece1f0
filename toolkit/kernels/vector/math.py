"""Elementary functions on vectors, from multiplications and additions: LLVM would call the C library once a lane.

All take and give finite values: what would overflow ends at the largest float instead.
"""

from __future__ import annotations

import math

from tvm import tirx

from ..emit import Expr, clamp, const, fma

_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)
_ERF = (1.061405429, -1.453152027, 1.421413741, -0.284496736, 0.254829592)
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4  # the high part is exact in few bits, so n * high is exact


def _like(value: Expr, number: float) -> Expr:
    return const(number, value.ty.dtype.lanes)


def _polynomial(x: Expr, coefficients: tuple[float, ...]) -> Expr:
    """Horner's scheme, highest power first."""
    total = _like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = fma(total, x, _like(x, coefficient))
    return total


def exp(x: Expr) -> Expr:
    """e to the x: 2**n times a polynomial in the rest (the one of Cephes). Relative error 1e-7."""
    lanes = x.ty.dtype.lanes
    x = clamp(x, (-87.336, 88.376))
    n = tirx.floor(fma(x, _like(x, math.log2(math.e)), _like(x, 0.5)))
    rest = fma(n, _like(x, -_LN2_LOW), fma(n, _like(x, -_LN2_HIGH), x))
    power = fma(_polynomial(rest, _EXP), rest * rest, rest + _like(x, 1.0))
    whole = "int32" if lanes == 1 else f"int32x{lanes}"
    exponent = tirx.Cast(whole, n + _like(x, 127.0)) * tirx.Cast(whole, _like(x, float(1 << 23)))
    return power * tirx.reinterpret(str(x.ty.dtype), exponent)


def sigmoid(x: Expr) -> Expr:
    """1 / (1 + exp(-x))."""
    one = _like(x, 1.0)
    return one / (one + exp(_like(x, 0.0) - x))


def tanh(x: Expr) -> Expr:
    """Absolute error 1e-7."""
    one, two = _like(x, 1.0), _like(x, 2.0)
    return one - two / (exp(two * x) + one)


def erf(x: Expr) -> Expr:
    """Abramowitz and Stegun, 7.1.26. Absolute error 2e-7."""
    one, zero = _like(x, 1.0), _like(x, 0.0)
    size = tirx.max(x, zero - x)
    t = one / fma(size, _like(x, 0.3275911), one)
    value = one - _polynomial(t, _ERF) * t * exp(zero - x * x)
    return tirx.Select(x < zero, zero - value, value)


def gelu(x: Expr) -> Expr:
    """x times the normal distribution at x."""
    return _like(x, 0.5) * x * (_like(x, 1.0) + erf(x * _like(x, math.sqrt(0.5))))


def gelu_tanh(x: Expr) -> Expr:
    """The approximation of `gelu` by tanh."""
    inner = fma(x * x, x * _like(x, 0.044715), x) * _like(x, math.sqrt(2 / math.pi))
    return _like(x, 0.5) * x * (_like(x, 1.0) + tanh(inner))


def softplus(x: Expr) -> Expr:
    """log(1 + exp(x)), without overflow."""
    zero = _like(x, 0.0)
    return tirx.max(zero, x) + tirx.log(_like(x, 1.0) + exp(zero - tirx.max(x, zero - x)))


def mish(x: Expr) -> Expr:
    """x tanh(softplus(x)): with e = exp(x), tanh(log(1 + e)) is (e e + 2 e) / (e e + 2 e + 2)."""
    e = exp(clamp(x, (-math.inf, 20.0)))
    part = e * (e + _like(x, 2.0))
    return x * part / (part + _like(x, 2.0))


def elu(x: Expr, alpha: float) -> Expr:
    """x where positive, alpha (exp(x) - 1) elsewhere."""
    zero = _like(x, 0.0)
    return tirx.max(zero, x) + _like(x, alpha) * (exp(tirx.min(zero, x)) - _like(x, 1.0))
