"""Winograd's transforms. The products between them are a grouped 1x1 `Conv`."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..elements import BLOCK
from .base import Operand, Spec, constant, mapped, result, source
from .conv import Conv


@dataclass(frozen=True)
class _Winograd(Spec):
    """What both transforms have.

    Attributes:
        outputs, taps: m and r of F(m, r) along rows and columns; n = m + r - 1. A tile starts every `outputs` pixels.
        out_height, out_width: of the convolution.
        band: how many tile rows are done, from the one on that a pointer tells; 0 for all of them.
    """

    batch: int
    blocks: int
    out_height: int
    out_width: int
    outputs: tuple[int, int]
    taps: tuple[int, int]
    band: int

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
        (my, mx), (ry, rx) = self.outputs, self.taps
        return (my + ry - 1) * (mx + rx - 1)

    @property
    def products(self) -> int:
        """The size of what lies between the transforms."""
        return mapped("float32", self.batch, self.points * self.blocks, math.prod(self.tiles))

    @property
    def first_row(self) -> list[Operand]:
        """The pointer that tells a band's first tile row: bands of one height share a kernel."""
        return [constant("band", 1, "int32")] if self.band else []


@dataclass(frozen=True)
class WinogradInput(_Winograd):
    """Winograd's transform of the data: `[N][blocks][H][W][16]` to `[N][ny * nx][blocks][tiles][16]`, with `tiles =
    tile rows * columns`.

    Pointers: input, [first tile row (int32),] output.

    Attributes:
        pad: pixels that the first tile begins before the image.
    """

    height: int
    width: int
    pad: tuple[int, int]
    in_stride: int = 0

    @property
    def operands(self) -> tuple[Operand, ...]:
        given = source(mapped("float32", self.batch, self.blocks, self.height * self.width))
        return given, *self.first_row, result(self.products, stride="")


@dataclass(frozen=True)
class WinogradOutput(_Winograd):
    """The way back, with the convolution's epilogue: `[N][ny * nx][blocks][tiles][16]` to
    `[N][blocks][out_height][out_width][16]`, `blocks` those of the output.

    Pointers: input, [first tile row (int32),] bias, [add,] output.
    """

    add: bool = False
    activation: tuple[float, float] | None = None
    add_stride: int = 0
    out_stride: int = 0

    @property
    def operands(self) -> tuple[Operand, ...]:
        size = mapped("float32", self.batch, self.blocks, self.out_height * self.out_width)
        add = [source(size, stride="add_stride", name="add")] if self.add else []
        bias = constant("bias", mapped("float32", 1, self.blocks, 1))
        return source(self.products, stride=""), *self.first_row, bias, *add, result(size)


def stages(spec: Conv, outputs: tuple[int, int], band: int = 0) -> tuple[WinogradInput, Conv, WinogradOutput]:
    """What the three layers compute that do the work of one convolution, or of `band` tile rows of it; their strides
    are those of one image.
    """
    size = (spec.out_height, spec.out_width, outputs, spec.kernel, band)
    into = WinogradInput(spec.batch, spec.channels // BLOCK, *size, spec.height, spec.width, spec.pad)
    back = WinogradOutput(spec.batch, spec.out_channels // BLOCK, *size, spec.add, spec.activation)
    points, tiles = into.points, into.tiles[0] * into.tiles[1]
    inner = Conv(spec.batch, spec.channels, 1, tiles, points * spec.out_channels, 1, tiles, (1, 1), groups=points)
    return into, inner, back
