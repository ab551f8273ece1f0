"""What crosses between the host and a VTA: bytes with another sign, patches of pixels, accumulators in planes.

A VTA's activations are signed bytes; the host's lie 128 higher (`elements.BYTE`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..elements import BLOCK, BYTE
from .base import Operand, Spec, constant, result, source
from .vta import SIGNED


@dataclass(frozen=True)
class Flip(Spec):
    """Bytes of one sign as bytes of the other, in blocks of channels. Pointers: input, output."""

    batch: int
    blocks: int
    pixels: int
    in_element: str = BYTE
    out_element: str = SIGNED
    in_stride: int = 0
    out_stride: int = 0

    @property
    def operands(self) -> tuple[Operand, ...]:
        size = self.batch * self.blocks * self.pixels * BLOCK
        return source(size, self.in_element), result(size, self.out_element)


@dataclass(frozen=True)
class Patches(Spec):
    """The pixels under each position of a convolution's window, as channels: the convolution is one of 1x1 then.

    Channel ``(r * columns + s) * channels + c`` of the result is channel c of the pixel at ``(y * sh + r * dh, x * sw +
    s * dw)`` of the input, which has its padding around it.

    Pointers: input int8 ``[N][height][width][channels]``, output int8 ``[N][blocks][out_height][out_width][16]``.

    Attributes:
        height, width: of the input, its frame included.
    """

    batch: int
    channels: int
    height: int
    width: int
    out_height: int
    out_width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    dilation: tuple[int, int]
    out_stride: int = 0

    @property
    def depth(self) -> int:
        """Channels of the result, without those that fill its last block."""
        return self.channels * math.prod(self.kernel)

    @property
    def blocks(self) -> int:
        """Of the result."""
        return -(-self.depth // BLOCK)

    @property
    def quantized(self) -> bool:
        return True

    @property
    def operands(self) -> tuple[Operand, ...]:
        given = self.batch * self.height * self.width * self.channels
        made = self.batch * self.blocks * self.out_height * self.out_width * BLOCK
        return source(given, SIGNED, ""), result(made, SIGNED)


@dataclass(frozen=True)
class Planes(Spec):
    """int32 in four planes of bytes, the lowest first, times a factor a channel: ``clamp(float32(acc) * factor)``.

    Pointers: input int8 ``[N][4][blocks][pixels][16]``, factor float32 ``[blocks][16]``, output float32
    ``[N][blocks][pixels][16]``.
    """

    batch: int
    blocks: int
    pixels: int
    activation: tuple[float, float] | None = None
    in_stride: int = 0
    out_stride: int = 0

    @property
    def quantized(self) -> bool:
        return True

    @property
    def operands(self) -> tuple[Operand, ...]:
        size = self.batch * self.blocks * self.pixels * BLOCK
        return source(4 * size, SIGNED), constant("factor", self.blocks * BLOCK), result(size)
