"""What the integer kernels compute, as frozen data; the meaning of every number is `quantize.arith`'s.

Activations are uint8 in NCHW16c, `[N][blocks][H][W][16]`, one scale and one zero point a tensor. A scheme's int8 lies
as uint8 too, 128 higher, and so does its zero point: nothing else changes, and every instruction set that multiplies
bytes takes unsigned ones times signed ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .spec import Convolution, Windowed


@dataclass(frozen=True)
class Rounding:
    """From an int32 accumulator to a byte: ``clamp(round(acc * factor) + zero, low, high)``.

    shift: the factor is ``2^-n``: ``(acc + 2^(n-1)) >> n`` (`arith.requantize_shift`). Otherwise it is a float32, and
    the product is rounded to the nearest, ties to even (`arith.requantize_scale`).
    zero, low, high: of the uint8 as it lies; a Relu is in `low`.
    """

    zero: int
    low: int
    high: int
    shift: bool = False


@dataclass(frozen=True)
class Addition:
    """The sum of two tensors, ``rounding((a - zero_a) * 2^shift_a + (b - zero_b) * 2^shift_b)``.

    factor: of the rounding: a float32, or n where it is a shift.
    unaligned: the float32 factors of both sides where their scales are no power of two apart; each side is multiplied
        by its own then, and the float32 sum is rounded (`arith.add_scale`).
    """

    zeros: tuple[int, int]
    shifts: tuple[int, int]
    factor: float
    rounding: Rounding
    unaligned: tuple[float, float] | None = None


@dataclass(frozen=True)
class ConvInt8(Convolution):
    """Convolution of bytes: ``acc = bias[set, o] + sum in * weight``, rounded, or left as ``acc * factor`` in float32.

    The bias holds ``-zero * sum(weight)`` over the taps that lie inside the image, so that skipping the others is the
    same as padding with the zero point. It has a row for each set of taps that an output may see: `row_sets *
    column_sets` of them. A shift's ``2^(n-1)`` is in it too.

    planar: the input is `[N][H][W][4]`, channels beyond the image's own being 0.
    rounding: None where the result leaves as float32, clamped to `activation`.
    add: what is done with the rounded byte and the one at the same place of another tensor.
    row_sets, column_sets: how many sets of kernel rows, and of kernel columns, output pixels see.
    Pointers: input, weight (int8), bias (int32), factor (float32 or int32, one a channel), [row sets (int32, one an
    output row) where there are several,] [add,] output.
    """

    rounding: Rounding | None = None
    activation: tuple[float, float] | None = None
    add: Addition | None = None
    row_sets: int = 1
    column_sets: int = 1
    in_stride: int = 0
    add_stride: int = 0
    out_stride: int = 0


def tap_sets(spec: Convolution) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Which taps each output row, and each output column, sees: (first, end) of the kernel's rows and columns."""

    def axis(out: int, size: int, index: int) -> list[tuple[int, int]]:
        step, before, spread, count = spec.stride[index], spec.pad[index], spec.dilation[index], spec.kernel[index]
        found = []
        for at in range(out):
            inside = [k for k in range(count) if 0 <= at * step - before + k * spread < size]
            found.append((inside[0], inside[-1] + 1) if inside else (0, 0))
        return found

    return axis(spec.out_height, spec.height, 0), axis(spec.out_width, spec.width, 1)


@dataclass(frozen=True)
class WindowInt8(Windowed):
    """Pooling and depthwise convolution of bytes.

    zero: of the input.
    rounding: None where an average leaves as float32. A maximum has none either: it is one of its bytes.
    Pointers: input, [weight (int8, `[block][r][s][16]`), bias (int32),] factor, output. The factor of an average is a
    float32 a pixel of the output, or two int32: multiplier and shift; a depthwise convolution's is one a channel. A
    maximum has none.
    """

    pad: tuple[int, int]
    dilation: tuple[int, int] = (1, 1)
    zero: int = 0
    rounding: Rounding | None = None
    activation: tuple[float, float] | None = None
    in_stride: int = 0
    out_stride: int = 0


@dataclass(frozen=True)
class MapInt8:
    """One value at a time on `[N][blocks][pixels][16]`.

    op: ``quantize`` (float32 to bytes: ``clamp(round(x / scale) + zero)``), ``dequantize`` (bytes to float32: ``(q -
        zero) * scale``), ``rescale`` (``rounding((q - zero) * factor)``), ``clip`` (to `rounding`'s bounds; also a
        copy), ``add`` (`addition`), ``table`` (256 bytes).
    scale: of ``quantize`` and ``dequantize``; of ``rescale`` the factor, or n where it is a shift (to the left where
        it is negative).
    zero: of the input; of ``quantize`` it is in `rounding`.
    Pointers: input, [second, or the table,] output.
    """

    op: Literal["quantize", "dequantize", "rescale", "clip", "add", "table"]
    batch: int
    blocks: int
    pixels: int
    scale: float = 1.0
    zero: int = 0
    rounding: Rounding | None = None
    addition: Addition | None = None
    in_stride: int = 0
    second_stride: int = 0
    out_stride: int = 0


@dataclass(frozen=True)
class QuantizeInput:
    """The network's own input, plain NCHW in float32 with up to 4 channels, to bytes `[N][pixels][4]`.

    Pointers: input, output.
    """

    batch: int
    channels: int
    pixels: int
    scale: float
    rounding: Rounding
