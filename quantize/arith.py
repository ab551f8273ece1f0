"""The meaning of int8, exactly: what every operator does with integers. Every target is held to it bit by bit.

Integers in, integers out; the only real numbers are scales and multipliers, in float32.

**Float scales.** A float32 multiplication and a rounding to the nearest integer, ties to even, as in ONNX's
QuantizeLinear and onnxruntime's QLinearConv:

    quantize     q = clamp(rint(x / scale) + zero)
    requantize   q = clamp(rint(float32(acc) * multiplier) + zero)
                 multiplier = float32(float32(scale_x * scale_w) / scale_y)

**Powers of two.** The scales are 2^n, the zero points 0, and real multiplications do not occur:

    requantize   q = clamp((acc + 2^(s-1)) >> s),  s = n_y - n_x - n_w >= 0;  s = 0 adds nothing

The shift is arithmetic: it floors, so that ties go towards plus infinity. This is what an ALU with add, shift, min
and max does. It differs from the QDQ graph run in float32 by one at ties only, where that one rounds to even.

**A residual add in the accumulator** (powers of two). The shortcut `s` joins the sums before they are rounded, so that
the convolution's own result never is:

    acc_c = sum x w_c + b_c + (s << k_c),  k_c = n_s - n_x - n_w[c] >= 0        then one requantize to n_y

**An average pooling summed behind its 1x1 convolution** (powers of two). Both are sums, so they commute, and together
are a convolution whose K taps are all ``w_c / K``: int8 with a power of two of their own, ``w_c / K = q_c 2^n_w[c]``. A
window that has only ``n < K`` places to count, at a border, is divided by n: its sum counts ``K / n = m / 2^j`` times.
For a window of 3 x 3, m is 1, 3 or 9 and j 0, 1 or 2, so that ``m acc`` is ``acc``, ``acc + (acc << 1)`` or
``acc + (acc << 3)``; a window where some ``K / n`` has another denominator keeps its usual form.

    acc_c = sum over the window of sum x q_c                in int32, exactly; either sum may be the inner one
    q     = clamp((m acc_c + (b_c << j) + 2^(s+j-1)) >> (s + j)),   s = n_y - n_x - n_w[c]

Accumulators are int32. An operation whose exact result does not fit raises OverflowError: the insertion chooses
scales for which it always fits, so an executor may wrap or saturate as it likes.

**Numbers of 16 bits** (float scales) mean the same in 16 bits. What is summed of them is exact whatever it comes to:
accumulators are int64 here, and ``float32(acc)`` is the float32 next to that number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .scheme import LIMITS

Ints = NDArray[Any]
"""int8, uint8, int16 or uint16; int32, or int64 for sums of numbers of 16 bits."""

Floats = NDArray[np.float32]

INT32 = np.iinfo(np.int32)


def quantize(x: Floats, scale: float | Floats, zero: int, dtype: str) -> Ints:
    """``clamp(rint(x / scale) + zero)``, ties to even; NaN is refused (ValueError), infinities saturate."""
    if np.isnan(x).any():
        raise ValueError("NaN has no quantized value")
    low, high = LIMITS[dtype]
    with np.errstate(over="ignore"):
        q = np.rint(x.astype(np.float32) / np.asarray(scale, np.float32))
    return np.asarray(np.clip(q, low - zero, high - zero).astype(np.int32) + zero).astype(dtype)


def dequantize(q: Ints, scale: float | Floats, zero: int = 0) -> Floats:
    """``(q - zero) * scale`` in float32."""
    return np.asarray((q.astype(np.int32) - zero).astype(np.float32) * np.asarray(scale, np.float32), np.float32)


def multiplier(scale_x: float, scale_w: float | Floats, scale_y: float) -> Floats:
    """``float32(float32(scale_x * scale_w) / scale_y)``: what requantizing multiplies by; a scalar or one a channel."""
    product = np.float32(scale_x) * np.asarray(scale_w, np.float32)
    return np.asarray(product / np.float32(scale_y), np.float32)


def requantize_scale(acc: Ints, factor: float | Floats, zero: int, dtype: str) -> Ints:
    """``clamp(rint(float32(acc) * factor) + zero)``, ties to even.

    Args:
        acc: int32 or int64, any shape. float32(acc) is the nearest float32, ties to even, where acc needs over 24
            bits.
        factor: float32, one number or of a shape that broadcasts with `acc`.
    """
    low, high = LIMITS[dtype]
    product = acc.astype(np.float32) * np.asarray(factor, np.float32)
    return np.asarray(np.clip(np.rint(product), low - zero, high - zero).astype(np.int32) + zero).astype(dtype)


def requantize_shift(acc: Ints, shift: int | Ints, dtype: str = "int8") -> Ints:
    """``clamp((acc + 2^(shift-1)) >> shift)``, ties towards plus infinity.

    Args:
        acc: int32, any shape.
        shift: 0 to 31, one number or integers of a shape that broadcasts with `acc`. 0 leaves `acc` as it is.

    Raises:
        OverflowError: a shift outside 0 to 31, or the sum does not fit int32.
    """
    shifts = np.asarray(shift, np.int64)
    if shifts.size and not (int(shifts.min()) >= 0 and int(shifts.max()) <= 31):
        raise OverflowError(f"a shift lies between 0 and 31, got {shift}")
    half = np.where(shifts > 0, np.int64(1) << np.maximum(shifts - 1, 0), 0)
    low, high = LIMITS[dtype]
    return np.asarray(np.clip(fits(acc.astype(np.int64) + half).astype(np.int64) >> shifts, low, high)).astype(dtype)


def fits(values: Ints | NDArray[np.float64]) -> Ints:
    """`values` as int32. Raises OverflowError where one does not fit."""
    if values.size and (values.max() > INT32.max or values.min() < INT32.min):
        raise OverflowError(f"{values.max()} or {values.min()} does not fit int32")
    return np.asarray(values).astype(np.int32)


def sums_of(x: Ints, values: Ints | NDArray[np.float64]) -> Ints:
    """`values`, sums of numbers of `x`, as they are kept: in int32, which they must fit; in int64 where `x` has 16
    bits.
    """
    return np.asarray(values).astype(np.int64) if x.dtype.itemsize > 1 else fits(values)


# -- linear operators -------------------------------------------------------------------------------------------------


def convolve(
    x: Ints,
    weight: Ints,
    bias: Ints | None,
    *,
    zero: int = 0,
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
    group: int = 1,
) -> Ints:
    """``acc = sum (x - zero) * weight + bias``; padding is the real zero, so it adds nothing.

    Args:
        x: 8- or 16-bit (N, C, H, W).
        weight: int8 (O, C / group, KH, KW).
        bias: int32 (O,).
        pads: top, left, bottom, right.

    Returns:
        int32 (N, O, OH, OW); int64 where `x` has 16 bits.
    """
    outputs, inputs = weight.shape[:2]
    # BLAS is fast, and sums of whole numbers are exact in float32 up to 2^24, in float64 up to 2^53.
    widest = max(abs(int(x.min(initial=zero)) - zero), abs(int(x.max(initial=zero)) - zero))
    largest = np.abs(weight.astype(np.int64)).reshape(outputs, -1).sum(1).max(initial=0) * widest
    exact: type[np.float32 | np.float64] = np.float32 if largest <= 2**24 else np.float64
    windows = _windows(x.astype(exact) - exact(zero), weight.shape[2:], strides, pads, dilations, 0)
    count, channels, rows, columns = windows.shape[:4]
    assert channels == inputs * group
    taps = weight.astype(exact)
    if inputs == 1 and outputs == group:  # depthwise: a tap at a time, without a copy of every window
        acc = np.zeros((count, outputs, rows, columns), exact)
        for i, j in np.ndindex(*weight.shape[2:]):
            acc += windows[..., i, j] * taps[:, 0, i, j][:, None, None]
    else:
        patches = windows.transpose(1, 4, 5, 0, 2, 3).reshape(group, inputs * math.prod(weight.shape[2:]), -1)
        acc = np.matmul(taps.reshape(group, outputs // group, -1), patches)
        acc = acc.reshape(outputs, count, rows, columns).transpose(1, 0, 2, 3)
    return sums_of(x, acc if bias is None else acc.astype(np.float64) + bias.astype(np.float64)[:, None, None])


def multiply(x: Ints, weight: Ints, bias: Ints | None, *, zero: int = 0) -> Ints:
    """``acc = (x - zero) @ weight.T + bias``: 8-bit (N, I) and int8 (O, I) give int32 (N, O); 16-bit, int64."""
    acc = _centred(x, zero) @ weight.astype(np.float64).T
    return sums_of(x, acc if bias is None else acc + bias.astype(np.float64))


def add_shortcut(acc: Ints, q: Ints, shift: int | Ints) -> Ints:
    """``acc + (q << shift)``: the other side of a residual add, in the exponent of the accumulators.

    Args:
        acc: int32 (N, O, H, W).
        q: int8, the same shape, zero point 0.
        shift: 0 or more, one number or integers of a shape that broadcasts with `acc`: `shortcut_shift`.

    Raises:
        OverflowError: a negative shift, or a sum that does not fit int32.
    """
    shifts = np.asarray(shift, np.int64)
    if shifts.size and int(shifts.min()) < 0:
        raise OverflowError(f"a shortcut is shifted to the left, got {shift}")
    return fits(acc.astype(np.int64) + (q.astype(np.int64) << shifts))


def requantize_sum(
    acc: Ints, factor: float | Floats, q: Ints, zero_q: int, factor_q: float, zero: int, dtype: str
) -> Ints:
    """``clamp(rint(float32(acc) * factor + float32(q - zero_q) * factor_q) + zero)``: a shortcut in a scale of its own.

    It is rounded once, and float32 throughout. Files of other tools mean that by a Conv without QuantizeLinear before
    an Add.

    Args:
        factor: `multiplier`, of a shape that broadcasts with `acc`.
        factor_q: ``float32(scale_q / scale_y)``.
    """
    low, high = LIMITS[dtype]
    left = acc.astype(np.float32) * np.asarray(factor, np.float32)
    total = left + (q.astype(np.int32) - zero_q).astype(np.float32) * np.float32(factor_q)
    return np.asarray(np.clip(np.rint(total), low - zero, high - zero).astype(np.int32) + zero).astype(dtype)


def scale_channels(q: Ints, zero_q: int, factor: float | Floats, shift: float | Floats, zero: int, dtype: str) -> Ints:
    """``clamp(rint(float32(q - zero_q) * factor + shift) + zero)``, float32 throughout, ties to even: a batch norm.

    Args:
        q: 8- or 16-bit (N, C, H, W).
        factor, shift: float32, one number or of a shape that broadcasts with `q`; in units of the result.
    """
    low, high = LIMITS[dtype]
    total = (q.astype(np.int32) - zero_q).astype(np.float32) * np.asarray(factor, np.float32)
    total = total + np.asarray(shift, np.float32)
    return np.asarray(np.clip(np.rint(total), low - zero, high - zero).astype(np.int32) + zero).astype(dtype)


# -- joins ------------------------------------------------------------------------------------------------------------


def add(a: Ints, b: Ints, *, zero_a: int = 0, zero_b: int = 0, shift_a: int = 0, shift_b: int = 0) -> Ints:
    """``acc = ((a - zero_a) << shift_a) + ((b - zero_b) << shift_b)``, int32: the scales differ by a power of two.

    The accumulator has the finer of the two scales; the coarser side is the one with a shift.
    """
    left = (a.astype(np.int64) - zero_a) << shift_a
    right = (b.astype(np.int64) - zero_b) << shift_b
    return fits(left + right)


def add_scale(
    a: Ints, b: Ints, zero_a: int, zero_b: int, scale_a: float, scale_b: float, scale_y: float, zero: int, dtype: str
) -> Ints:
    """The sum of two scales that are not aligned: each side times its float32 ``scale / scale_y``, added in float32."""
    low, high = LIMITS[dtype]
    left = (a.astype(np.int32) - zero_a).astype(np.float32) * (np.float32(scale_a) / np.float32(scale_y))
    right = (b.astype(np.int32) - zero_b).astype(np.float32) * (np.float32(scale_b) / np.float32(scale_y))
    return np.asarray(np.clip(np.rint(left + right), low - zero, high - zero).astype(np.int32) + zero).astype(dtype)


def product(a: Ints, b: Ints, *, zero_a: int = 0, zero_b: int = 0) -> Ints:
    """``acc = (a - zero_a) * (b - zero_b)``, int32, of maps of one shape, or of a map and a gate: one value a channel.
    Of numbers of 16 bits it is int64.

    It is requantized like a sum of products: by `multiplier` of both scales, or by `product_shift`.
    """
    wider = max(a, b, key=lambda side: side.dtype.itemsize)
    return sums_of(wider, (a.astype(np.int64) - zero_a) * (b.astype(np.int64) - zero_b))


def product_shift(exponent_a: int, exponent_b: int, exponent_y: int) -> int:
    """``n_y - n_a - n_b``, which the insertion keeps from being negative; over 31 all is shifted out, as by 31."""
    return min(exponent_y - exponent_a - exponent_b, 31)


def concat(parts: Sequence[Ints], axis: int = 1) -> Ints:
    """Bytes, moved: all parts have one scale and one zero point."""
    return np.concatenate(list(parts), axis=axis)


def pad(q: Ints, pads: Sequence[tuple[int, int]], mode: str, fill: int) -> Ints:
    """Bytes, moved, with others around them: `fill`, which is the quantized constant, or, by `mode`, their neighbours.

    Args:
        pads: before and behind, for each axis; negative ones cut.
        mode: ``constant``, ``reflect``, ``edge`` or ``wrap``.
    """
    sizes = zip(q.shape, pads, strict=True)
    kept = q[tuple(slice(max(-before, 0), size - max(-behind, 0)) for size, (before, behind) in sizes)]
    wide = [(max(before, 0), max(behind, 0)) for before, behind in pads]
    if mode == "constant":
        return np.pad(kept, wide, constant_values=fill)
    return np.pad(kept, wide, mode=mode)  # type: ignore[call-overload,no-any-return]


# -- windows ----------------------------------------------------------------------------------------------------------


def max_pool(
    x: Ints,
    kernel: Sequence[int],
    *,
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
) -> Ints:
    """The largest byte of each window; padding never wins."""
    windows = _windows(x, kernel, strides, pads, dilations, LIMITS[str(x.dtype)][0])
    return np.asarray(windows.max(axis=(4, 5)))


def window_sum(
    x: Ints, kernel: Sequence[int], *, zero: int = 0, strides: Sequence[int] = (1, 1), pads: Sequence[int] = (0,) * 4
) -> Ints:
    """``acc = sum (x - zero)`` over each window, int32 or int64: the first half of an average pooling."""
    return sums_of(x, _windows(_centred(x, zero), kernel, strides, pads, (1, 1), 0).sum(axis=(4, 5)))


def window_count(
    size: Sequence[int],
    kernel: Sequence[int],
    *,
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0,) * 4,
    count_padding: bool = False,
) -> Ints:
    """What each window's sum is divided by, (OH, OW) int32: its size, or how much of it lies inside the map."""
    inside = np.ones((1, 1, *size), np.float64)
    if count_padding:
        height, width = size
        inside = np.ones((1, 1, height + pads[0] + pads[2], width + pads[1] + pads[3]))
        pads = (0,) * 4
    return fits(_windows(inside, kernel, strides, pads, (1, 1), 0).sum(axis=(4, 5))[0, 0])


def mean_scale(acc: Ints, counts: Ints, scale_x: float, scale_y: float, zero: int, dtype: str) -> Ints:
    """A window's mean with float scales: `requantize_scale` by ``float32(float32(scale_x / scale_y) / count)``."""
    factor = np.float32(scale_x) / np.float32(scale_y) / counts.astype(np.float32)
    return requantize_scale(acc, factor, zero, dtype)


def mean_constants(count: int) -> tuple[int, int]:
    """(multiplier, shift) with ``multiplier / 2^shift`` nearest to ``1 / count``: a division without dividing.

    The multiplier fits 16 signed bits, and ``128 * count * multiplier`` fits int32 with room for the rounding term, so
    that the product of any window's sum is exact. A power of two divides by shifting: its multiplier is 1.
    """
    if count & (count - 1) == 0:
        return 1, count.bit_length() - 1
    shift = min(23, (32767 * count).bit_length() - 1)
    return (2 * (1 << shift) + count) // (2 * count), shift


def mean_shift(acc: Ints, counts: Ints, exponent_x: int, exponent_y: int) -> Ints:
    """A window's mean with powers of two: ``requantize_shift(acc * multiplier, shift + n_y - n_x)``.

    Where that shift is negative (the output's scale is finer by more than the division) the multiplier carries it:
    ``acc * multiplier << -shift``.
    """
    result = np.zeros(acc.shape, np.int8)
    for count in np.unique(counts):
        factor, shift = mean_constants(int(count))
        where = np.broadcast_to(counts == count, acc.shape)
        shift += exponent_y - exponent_x
        product = fits(acc[where].astype(np.int64) * (factor << max(0, -shift)))
        result[where] = requantize_shift(product, max(0, shift))
    return result


def count_factors(counts: Ints, taps: int) -> tuple[Ints, Ints] | None:
    """(m, j), int32 of the shape of `counts`, with ``m / 2^j = taps / count``, m odd or j 0; None where j is no whole
    number.
    """
    ratios = {int(count): Fraction(taps, int(count)) for count in np.unique(counts)}
    if any(ratio.denominator & (ratio.denominator - 1) for ratio in ratios.values()):
        return None
    m = np.array([ratios[int(count)].numerator for count in counts.flat], np.int32).reshape(counts.shape)
    j = np.array([ratios[int(count)].denominator.bit_length() - 1 for count in counts.flat], np.int32)
    return m, j.reshape(counts.shape)


def weigh(acc: Ints, bias: Ints | None, times: Ints, bits: Ints) -> Ints:
    """``times * acc + (bias << bits)``: windows with less to count than the others, before their bias.

    Args:
        acc: int32 (N, O, OH, OW), the sums over the windows.
        bias: int32 (O,).
        times, bits: (OH, OW), from `count_factors`.

    Raises:
        OverflowError: a result does not fit int32.
    """
    total = acc.astype(np.int64) * times
    return fits(total if bias is None else total + (bias.astype(np.int64)[:, None, None] << bits))


# -- one value at a time ----------------------------------------------------------------------------------------------


def bound(q: Ints, low: int, high: int) -> Ints:
    """A Relu or Clip on bytes: `low` and `high` are the quantized bounds."""
    return np.asarray(np.clip(q, low, high)).astype(q.dtype)


def look_up(q: Ints, table: Ints) -> Ints:
    """Any function of one value: ``table[q - lowest]``, an entry for each number of the type, lowest first."""
    return np.asarray(table[q.astype(np.int64) - LIMITS[str(q.dtype)][0]])


def rescale(q: Ints, zero_x: int, factor: float, zero: int, dtype: str) -> Ints:
    """A change of float scale: `requantize_scale` of ``q - zero_x``."""
    return requantize_scale(q.astype(np.int32) - zero_x, factor, zero, dtype)


def rescale_shift(q: Ints, exponent_x: int, exponent_y: int) -> Ints:
    """A change of power of two; towards a finer scale it shifts left and saturates."""
    shift = exponent_y - exponent_x
    if shift >= 0:
        return requantize_shift(q.astype(np.int32), shift)
    low, high = LIMITS["int8"]
    shifted: Ints = np.clip(q.astype(np.int64) << -shift, low, high).astype(np.int8)
    return shifted


def _centred(x: Ints, zero: int) -> NDArray[np.float64]:
    return x.astype(np.float64) - zero


def _windows(
    x: NDArray[Any],
    kernel: Sequence[int],
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    fill: int,
) -> NDArray[Any]:
    """(N, C, OH, OW, KH, KW), a view of the padded `x`."""
    top, left, bottom, right = pads
    padded = x
    if any(pads):
        padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    reach = [(size - 1) * step + 1 for size, step in zip(kernel, dilations, strict=True)]
    if padded.shape[2] < reach[0] or padded.shape[3] < reach[1]:
        raise ValueError(f"a window of {reach} is larger than the padded map {padded.shape[2:]}")
    views = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
    return np.asarray(views[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]])
