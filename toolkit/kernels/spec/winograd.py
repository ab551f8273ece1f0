"""Winograd's transforms. The products between them are a grouped 1x1 `Conv`."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from ..elements import BLOCK, BYTE, SHORT, Addition, Rounding, Scaling
from .base import Operand, Spec, constant, mapped, result, source
from .conv import Conv


@dataclass(frozen=True)
class _Winograd(Spec):
    """What both transforms have.

    Attributes:
        height, width: of the input. pad: pixels that the first tile begins before it.
        outputs, taps: m and r of F(m, r) along rows and columns; n = stride * m + r - stride. A tile starts every
            `stride * outputs` pixels.
        out_height, out_width: of the convolution.
        band: how many tile rows are done, from the one on that a pointer tells; 0 for all of them.
        in_element: of the convolution. Of bytes all is in whole numbers (`toom_cook.whole`): the transformed data are
            `elements.SHORT`, the products int32, and a pixel outside of the image is a byte 0, which `Conv`'s bias
            knows.
    """

    batch: int
    blocks: int
    out_height: int
    out_width: int
    outputs: tuple[int, int]
    taps: tuple[int, int]
    band: int
    height: int
    width: int
    pad: tuple[int, int]
    in_element: str = "float32"
    stride: tuple[int, int] = (1, 1)

    @property
    def quantized(self) -> bool:
        return self.in_element == BYTE

    @property
    def tiles(self) -> tuple[int, int]:
        """Tile rows and columns that are done."""
        return self.band or self.tile_rows, -(-self.out_width // self.outputs[1])

    @property
    def tile_rows(self) -> int:
        """Tile rows of the whole image."""
        return -(-self.out_height // self.outputs[0])

    @property
    def points(self) -> int:
        """Products a tile, ny * nx."""
        return math.prod(self.reach)

    @property
    def reach(self) -> tuple[int, int]:
        """ny and nx: what a tile reads of the input, and products along an axis."""
        (my, mx), (ry, rx), (sy, sx) = self.outputs, self.taps, self.stride
        return sy * my + ry - sy, sx * mx + rx - sx

    def between(self, element: str) -> int:
        """The size of what lies between the transforms, whose element this is."""
        return mapped(element, self.batch, self.points * self.blocks, math.prod(self.tiles))

    @property
    def data_element(self) -> str:
        """Of the transformed data."""
        return SHORT if self.quantized else self.in_element

    @property
    def sum_element(self) -> str:
        """Of the products."""
        return "int32" if self.quantized else self.in_element

    @property
    def first_row(self) -> list[Operand]:
        """The pointer that tells a band's first tile row: bands of one height share a kernel."""
        return [constant("band", 1, "int32")] if self.band else []


@dataclass(frozen=True)
class WinogradInput(_Winograd):
    """Winograd's transform of the data: `[N][blocks][H][W][16]` to `[N][ny * nx][blocks][tiles][16]`, with `tiles =
    tile rows * columns`.

    Pointers: input, [first tile row (int32),] output.
    """

    in_stride: int = 0

    @property
    def operands(self) -> tuple[Operand, ...]:
        given = source(mapped(self.in_element, self.batch, self.blocks, self.height * self.width), self.in_element)
        element = self.data_element
        return given, *self.first_row, result(self.between(element), element, stride="")


@dataclass(frozen=True)
class WinogradOutput(_Winograd):
    """The way back, with the convolution's epilogue: `[N][ny * nx][blocks][tiles][16]` to
    `[N][blocks][out_height][out_width][16]`, `blocks` those of the output.

    Pointers: input, [first tile row (int32),] bias, [of bytes: factor, row sets, where there are several, numbers of
    `scaling`,] [add,] output.

    Attributes:
        out_element, rounding, scaling, addition, row_sets, column_sets: of bytes, as in `Conv`.
    """

    add: bool = False
    activation: tuple[float, float] | None = None
    add_stride: int = 0
    out_stride: int = 0
    out_element: str = "float32"
    rounding: Rounding | None = None
    scaling: Scaling | None = None
    addition: Addition | None = None
    row_sets: int = 1
    column_sets: int = 1

    @property
    def operands(self) -> tuple[Operand, ...]:
        channels, size = self.blocks * BLOCK, self.batch * self.blocks * BLOCK * self.out_height * self.out_width
        found = [source(self.between(self.sum_element), self.sum_element, stride=""), *self.first_row]
        if self.quantized:
            shift = self.rounding is not None and self.rounding.shift
            found += [constant("bias", self.row_sets * self.column_sets * channels, "int32")]
            found += [constant("factor", channels, "int32" if shift else "float32")]
            found += [constant("sets", self.out_height, "int32")] if self.row_sets > 1 else []
            found += [constant("scaling", 2 * channels)] if self.scaling is not None else []
        else:
            found.append(constant("bias", channels))
        if self.add:
            found.append(source(size, self.in_element, "add_stride", "add"))
        return *found, result(size, self.out_element)

    @property
    def convolution(self) -> Conv:
        """What it is a stage of, in as much as that says which taps an output sees."""
        channels, sets = self.blocks * BLOCK, (self.row_sets, self.column_sets)
        into, out = (self.height, self.width), (self.out_height, self.out_width)
        whole = Conv(self.batch, BLOCK, *into, channels, *out, self.taps, self.stride, self.pad)
        return replace(whole, in_element=self.in_element, row_sets=sets[0], column_sets=sets[1])


def applies(spec: Conv) -> bool:
    """Winograd's algorithm can compute it, in whatever numbers: one group, more than one tap, and, with a stride, as
    many along each axis.
    """
    some = max(spec.kernel) > 1 if spec.stride == (1, 1) else min(spec.kernel) >= max(spec.stride) == min(spec.stride)
    return some and spec.groups == 1 and spec.dilation == (1, 1) and not (spec.planar or spec.weighed)


def stages(spec: Conv, outputs: tuple[int, int], band: int = 0) -> tuple[WinogradInput, Conv, WinogradOutput]:
    """What the three layers compute that do the work of one convolution, or of `band` tile rows of it; their strides
    are those of one image.
    """
    size = (spec.out_height, spec.out_width, outputs, spec.kernel, band, spec.height, spec.width, spec.pad)
    how = (spec.in_element, spec.stride)
    into = WinogradInput(spec.batch, spec.channels // BLOCK, *size, *how)
    back = WinogradOutput(spec.batch, spec.out_channels // BLOCK, *size, *how, spec.add, spec.activation)
    points, tiles = into.points, into.tiles[0] * into.tiles[1]
    inner = Conv(spec.batch, spec.channels, 1, tiles, points * spec.out_channels, 1, tiles, (1, 1), groups=points)
    if spec.quantized:
        element = into.data_element
        inner = replace(inner, in_element=element, weight_element=element, out_element=into.sum_element)
        names = ("out_element", "rounding", "scaling", "addition", "row_sets", "column_sets")
        back = replace(back, **{name: getattr(spec, name) for name in names})
    return into, inner, back
