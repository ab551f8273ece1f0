"""What numbers are kept in, and how a sum becomes one of them again.

Activations lie in blocks of channels, `[N][blocks][H][W][block]`; how many channels a block has is the element's
affair. The networks' own inputs and outputs are plain NCHW.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

BLOCK = 16
"""Channels in a block of the NCHW16c layout, whatever the vector width of the machine."""


@dataclass(frozen=True)
class Element:
    """What one number is kept in.

    Attributes:
        block: channels in a block.
        cell: a pixel of a block in memory, in what pointers count.
        stored: which is this dtype.
    """

    block: int
    cell: int
    stored: str

    @property
    def halves(self) -> int:
        """Numbers of `stored` that one value is kept in."""
        return self.cell // self.block


BF16 = "bfloat16"
"""The upper half of an fp32."""

PAIR = "bf16x2"
"""fp32 as the sum of two bfloat16: `high` is the value rounded, `low` what that left, rounded. A pixel of a block has
32 high halves, then 32 low ones. Sixteen bits of the significand are kept: the error is at most 2^-18 of the value,
which must be below bfloat16's largest, 3.39e38.
"""

WIDE = "float32x32"
"""Plain fp32 in blocks of 32 channels, 4 bytes a value. A network whose convolutions read pairs keeps in it what no
convolution reads: the blocks have as many channels as a pair's and take as many bytes, so both fit the same place, and
an fp32 value need not be split into halves that nobody multiplies.
"""

PAIRS, TF32 = "pairs", "tf32"
"""How a GPU's tensor cores multiply fp32, which stays fp32 in memory: each number as the sum of two bfloat16, as in
`PAIR`, in three products, without that of the two low halves; or rounded to the eleven bits of TF32, in one.
"""

HALF = "half"
"""IEEE's binary16, kept in integers as bfloat16 is: eleven bits of significand, numbers below 65520.
"""

BRAIN = "brain"
"""bfloat16 in blocks of 16, as GPUs and ARM keep it."""

BYTE = "uint8"
"""A quantized number: one scale and one zero point a tensor. A scheme's int8 lies as uint8 too, 128 higher, and so does
its zero point: nothing else changes, and every instruction set that multiplies bytes takes unsigned ones times signed
ones. What each number means is `quantize.arith`'s.
"""

SIXTEEN = "q16"
"""A quantized number of 16 bits, for a few tensors that 8 are too few for. It lies as int16, which every instruction
set multiplies; a model's uint16 lies 2^15 lower, and so does its zero point.
"""

SHORT = "int16"
"""What Winograd's transforms make of bytes: whole numbers, whose products are summed in int32."""

ELEMENTS: dict[str, Element] = {
    "float32": Element(BLOCK, BLOCK, "float32"),
    BF16: Element(2 * BLOCK, 2 * BLOCK, "uint16"),
    PAIR: Element(2 * BLOCK, 4 * BLOCK, "uint16"),
    WIDE: Element(2 * BLOCK, 2 * BLOCK, "float32"),
    HALF: Element(BLOCK, BLOCK, "uint16"),
    BRAIN: Element(BLOCK, BLOCK, "uint16"),
}
"""What real numbers are kept in, by name. bfloat16 is kept in integers: TVM 0.27 crashes where it has to name LLVM's
own type of it.
"""

QUANTIZED: dict[str, Element] = {BYTE: Element(BLOCK, BLOCK, "uint8"), SIXTEEN: Element(BLOCK, BLOCK, "int16")}
"""What quantized numbers are kept in, by name."""


def ends(element: str) -> tuple[int, int]:
    """The least and the largest number that a quantized element holds, as it lies."""
    info = np.iinfo(QUANTIZED[element].stored)
    return int(info.min), int(info.max)


TILED = (BF16, PAIR)
"""What matrix tiles are loaded from."""


HALVES = (HALF, BRAIN)
"""Of 16 bits, in the blocks that fp32 has: any value of a network may be of either."""


def bfloat16(values: np.ndarray) -> np.ndarray:
    """The bfloat16 next to each float32, ties to even, as uint16."""
    bits = np.ascontiguousarray(values, np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype(np.uint16)


def kept(values: np.ndarray, element: str) -> np.ndarray:
    """float32 as an element of these blocks keeps it: the nearest."""
    if element == BRAIN:
        return bfloat16(values)
    return values.astype(np.float16).view(np.uint16) if element == HALF else values


def element_of(name: str) -> Element:
    """The row of `ELEMENTS` or `QUANTIZED`; for the name of any other dtype, blocks of 16 of it."""
    return ELEMENTS.get(name) or QUANTIZED.get(name) or Element(BLOCK, BLOCK, name)


@dataclass(frozen=True)
class Rounding:
    """From an accumulator to a byte, or to a number of 16 bits: ``clamp(round(acc * factor) + zero, low, high)``.

    Attributes:
        shift: the factor is ``2^-n``: ``(acc + 2^(n-1)) >> n`` (`arith.requantize_shift`). Otherwise it is a float32,
            and the product is rounded to the nearest, ties to even (`arith.requantize_scale`).
        zero, low, high: of the number as it lies; a Relu is in `low`.
    """

    zero: int
    low: int
    high: int
    shift: bool = False


@dataclass(frozen=True)
class Addition:
    """The sum of two quantized tensors, ``rounding((a - zero_a) * 2^shift_a + (b - zero_b) * 2^shift_b)``.

    Attributes:
        factor: of the rounding: a float32, or n where it is a shift.
        unaligned: the float32 factors of both sides where their scales are no power of two apart; each side is
            multiplied by its own then, and the float32 sum is rounded (`arith.add_scale`).
        inside: where the sum is taken before a convolution's own rounding; `zeros[1]`, `rounding`, `factor` and this
            are all that counts then. Of a shift ``rounding(acc + ((b - zero_b) << k))``, k = n - inside in a channel
            that is shifted by n (`arith.add_shortcut`); otherwise ``rounding(acc * f + (b - zero_b) * factor)``, f
            the channel's (`arith.requantize_sum`).
    """

    zeros: tuple[int, int]
    shifts: tuple[int, int]
    factor: float
    rounding: Rounding
    unaligned: tuple[float, float] | None = None
    inside: int | None = None


@dataclass(frozen=True)
class Scaling:
    """What scales and shifts each channel of a quantized tensor (`arith.scale_channels`),
    ``rounding((q - zero) * scale[c] + shift[c])``, in float32, ties to even. The numbers are an operand, float32
    `[2, channels]`.
    """

    zero: int
    rounding: Rounding


@dataclass(frozen=True)
class Product:
    """The product of two quantized tensors, ``rounding((a - zero_a) * (b - zero_b))``.

    Attributes:
        factor: of the rounding: a float32, or n where it is a shift.
    """

    zeros: tuple[int, int]
    factor: float
    rounding: Rounding
