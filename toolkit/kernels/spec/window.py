"""Pools and depthwise convolution."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

from ..elements import QUANTIZED, Rounding, Scaling, element_of
from .base import NONE, Frame4, Operand, Spec, constant, framed, mapped, result, source, window_words


class WindowOp(str, Enum):
    """What a window does with the elements it covers."""

    MAX = "max"
    AVERAGE = "average"
    DEPTHWISE = "depthwise"


@dataclass(frozen=True)
class Window(Spec):
    """Pooling and depthwise convolution: each channel is for itself.

    Pointers: input, [weight, bias,] [factor,] [numbers of `scaling`,] output; weights are
    `[block][r][s][group][channel]`, the m-th of a channel `c` for input channel `c ^ m`. The factor is of bytes that
    are no maximum: of an average a float32 a pixel of the output, or two int32, multiplier and shift; of a depthwise
    convolution one a channel.

    Attributes:
        pad: top, left, bottom, right.
        include_pad: an average counts the padding it covers (but nothing beyond it).
        frame: zeros written around the output (not around fp32).
        group: neighbouring channels that a "depthwise" convolution mixes: 1, 2 or 4.
        zero: of an input of bytes.
        rounding: of bytes to bytes; a maximum has none, as it is one of its bytes.
        scaling: what is then done with the byte of a depthwise convolution.
        weight_element: of bytes, what the weights are kept in.
    """

    op: WindowOp
    batch: int
    blocks: int
    height: int
    width: int
    out_height: int
    out_width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    pad: Frame4
    dilation: tuple[int, int] = (1, 1)
    include_pad: bool = False
    activation: tuple[float, float] | None = None
    in_stride: int = 0
    out_stride: int = 0
    in_element: str = "float32"
    out_element: str = "float32"
    frame: Frame4 = NONE
    group: int = 1
    zero: int = 0
    rounding: Rounding | None = None
    scaling: Scaling | None = None
    weight_element: str = "int8"

    @property
    def macs(self) -> int:
        pixels = self.batch * self.out_height * self.out_width * math.prod(self.kernel)
        return pixels * self.channels * self.group if self.op is WindowOp.DEPTHWISE else 0

    @property
    def channels(self) -> int:
        """Of an image, padding included."""
        return self.blocks * element_of(self.in_element).block

    @property
    def operands(self) -> tuple[Operand, ...]:
        there = self.out_height * self.out_width
        found = [source(mapped(self.in_element, self.batch, self.blocks, self.height * self.width), self.in_element)]
        kinds = (self.weight_element, "int32") if self.in_element in QUANTIZED else ("float32", "float32")
        if self.op is WindowOp.DEPTHWISE:
            taps = self.channels * self.group * math.prod(self.kernel)
            found += [constant("weight", taps, kinds[0]), constant("bias", self.channels, kinds[1])]
        if self.in_element in QUANTIZED and self.op is not WindowOp.MAX:
            shift = self.rounding is not None and self.rounding.shift
            count = self.channels if self.op is WindowOp.DEPTHWISE else there * (1 + shift)
            found.append(constant("factor", count, "int32" if shift else "float32"))
        if self.scaling is not None:
            found.append(constant("scaling", 2 * self.channels))
        pixels = framed(self.out_height, self.out_width, self.frame)
        found.append(result(mapped(self.out_element, self.batch, self.blocks, pixels), self.out_element))
        return tuple(found)

    def describe(self) -> str:
        groups = f" in groups of {self.group}" if self.group > 1 else ""
        window = window_words(self.kernel, self.stride, (self.out_height, self.out_width))
        return f"{self.op.value} {self.channels} {window}{groups}"


@dataclass(frozen=True)
class GlobalAverage(Spec):
    """One number of all pixels: `[N][blocks][pixels][block]` to `[N][blocks][block]`. Pointers: input, output.

    Attributes:
        of: "mean", "sum", or "l2", the root of the sum of squares.
    """

    batch: int
    blocks: int
    pixels: int
    in_stride: int = 0
    out_stride: int = 0
    in_element: str = "float32"
    out_element: str = "float32"
    of: str = "mean"

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (
            source(mapped(self.in_element, self.batch, self.blocks, self.pixels), self.in_element),
            result(mapped(self.out_element, self.batch, self.blocks, 1), self.out_element),
        )
