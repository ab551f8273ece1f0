"""What the kernels for matrix tiles (x86's AMX) compute, as frozen data.

Activations are `[N][blocks][H][W][32]` in bfloat16: a pixel of a block is 64 bytes, which is a row of a tile, as it
is a cache line and the 16 floats of NCHW16c. fp32 is kept as pairs of those (`spec.PAIR`): a pixel of a block is two
rows, one of high halves and one of low ones. Nothing here pads: what a convolution reads around its image lies in
memory, as zeros that the layer before has written (its output's `frame`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from .spec import Convolution, element_of

LANES = 32
"""bfloat16 in a row of a tile, and channels in a block."""


def halves_of(element: str) -> int:
    """bfloat16 that one value is kept in."""
    kept = element_of(element)
    return kept.cell // kept.block


@dataclass(frozen=True)
class Output:
    """Where some of a convolution's output channels go; fields as in `ConvTiles`."""

    channels: int
    activation: tuple[float, float] | None
    frame: tuple[int, int, int, int]
    out_stride: int
    out_element: str


def pointer_of(output: int) -> str:
    """The name of the pointer to a convolution's output, by its number."""
    return f"dst{output or ''}"


@dataclass(frozen=True)
class ConvTiles(Convolution):
    """Convolution of bfloat16, or of pairs of it, with sums in fp32, and its epilogue.

        out[n, o, y, x] = act(bias[o] + add[n, o, y, x]
                              + sum_{i, r, s} in[n, i, y*sh + r*dh, x*sw + s*dw] * weight[o, i, r, s])

    A product of pairs is `high * high + high * low + low * high`; the product of both low halves, at most 2^-18 of the
    whole, is left out (Henry, Tang, Heinecke: Leveraging the bfloat16 Artificial Intelligence Datatype For
    Higher-Precision Computations, 2019).

    `pad` is (0, 0). Channels, of a group too, are multiples of 32.
    planar: the input lies as `PackPixels` gives it: `channels` (4, 8 or 16) of a pixel side by side; `height`, `width`
    count the frame. A row of a tile then holds the channels of several neighbouring pixels.
    frame: zeros written around the output (not around fp32): top, left, bottom, right.
    in_element: bfloat16 or pairs of it. add_element, out_element: those, or fp32 (`spec.WIDE`).
    activation: `(low, high)` clamp, or None.
    split: the outputs of several convolutions that read the same pixels, one after the other; then `out_channels` is
    their sum, and the other fields of an output mean nothing. None of them has `add`.
    Pointers: input, weight, bias, [add,] output (of each).
    """

    add: bool = False
    activation: tuple[float, float] | None = None
    frame: tuple[int, int, int, int] = (0, 0, 0, 0)
    in_stride: int = 0
    add_stride: int = 0
    out_stride: int = 0
    in_element: str = "bfloat16"
    add_element: str = "bfloat16"
    out_element: str = "bfloat16"
    split: tuple[Output, ...] = ()

    @property
    def outputs(self) -> tuple[Output, ...]:
        """All outputs, also where there is one."""
        alone = Output(self.out_channels, self.activation, self.frame, self.out_stride, self.out_element)
        return self.split or (alone,)

    @property
    def span(self) -> int:
        """Output channels that are of one group and of one output, from every multiple of it on."""
        return math.gcd(self.out_channels // self.groups, *(output.channels for output in self.outputs))

    @property
    def halves(self) -> int:
        """bfloat16 that an input or a weight is kept in."""
        return halves_of(self.in_element)


@dataclass(frozen=True)
class Frame:
    """A copy with zeros around it. Pointers: input, output, both in blocks of 32 channels.

    frame: top, left, bottom, right.
    """

    batch: int
    blocks: int
    height: int
    width: int
    frame: tuple[int, int, int, int]
    in_stride: int = 0
    out_stride: int = 0
    in_element: str = "bfloat16"


@dataclass(frozen=True)
class PackPixels:
    """fp32 NCHW with few channels to bfloat16 `[N][H][W][slots]` with zeros around each image, and a row of zeros
    behind it, because a tile's row reads more than it needs. Of pairs, all high halves of an image come first.

    frame: top, left, bottom, right. Pointers: input, output.
    """

    batch: int
    channels: int
    slots: int
    height: int
    width: int
    frame: tuple[int, int, int, int]
    out_element: str = "bfloat16"

    @property
    def size(self) -> int:
        """Halves of 16 bits of an image."""
        return halves_of(self.out_element) * self.lines * self.line

    @property
    def lines(self) -> int:
        """Rows of pixels, the last one not of the image."""
        return self.frame[0] + self.height + self.frame[2] + 1

    @property
    def line(self) -> int:
        """Elements of a row, enough for a row of a tile."""
        pixels = self.frame[1] + self.width + self.frame[3]
        return -(-pixels * self.slots // LANES) * LANES
