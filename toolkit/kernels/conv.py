"""Direct convolution in fp32, channels blocked by 16, with the epilogue fused.

    out[n, o, y, x] = act(bias[o] + add[n, o, y, x] + sum_{i, r, s} in[n, i, y*sh + r*dh - pt, x*sw + s*dw - pl] * w[o, i, r, s])

Activations are NCHW16c, `[N][C/16][H][W][16]`; the network's own input may be plain NCHW (`planar`). Weights are packed as
`[group of output vectors][input block][r][s][input lane][output lane]`, so a work unit reads them from front to back.

The kernel keeps a tile of `pixels x vectors` accumulators in registers: every input element is broadcast once for `vectors` FMAs and
every weight vector is loaded once for `pixels` FMAs. Nothing is padded in memory: a tile knows its column, so taps that fall off the
left or right edge are left out of its code, and the loop over kernel rows is cut to those inside the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tvm import tirx

from .emit import Emitter, load, splat

BLOCK = 16


@dataclass(frozen=True)
class Conv:
    """What is computed. Channels are the padded (physical) ones; a stride of the batch axis is in elements.

    `channels` is the input channels one output channel reads (all, or those of its group), a multiple of 16 unless `planar`.
    `groups` splits input and output channels alike.
    """

    batch: int
    channels: int
    height: int
    width: int
    out_channels: int
    out_height: int
    out_width: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    planar: bool = False
    add: bool = False
    activation: tuple[float, float] | None = None
    in_batch_stride: int = 0
    out_batch_stride: int = 0
    add_batch_stride: int = 0

    @property
    def macs(self) -> int:
        """Multiply-adds of the whole convolution."""
        pixels = self.batch * self.out_height * self.out_width
        return pixels * self.out_channels * self.channels * self.kernel[0] * self.kernel[1]

    @property
    def pointwise(self) -> bool:
        """A 1x1 convolution whose pixels are contiguous in memory: rows do not matter to it."""
        return (self.kernel, self.stride, self.pad) == ((1, 1), (1, 1), (0, 0)) and not self.planar


@dataclass(frozen=True)
class Schedule:
    """How it is computed.

    lanes: floats in a vector register.  vectors: output vectors in the register tile.  pixels: widest tile along a row.
    k_block: input blocks of 16 done before moving on to the next tile (their weights stay in L1).
    rows: output rows (or `pixels`-wide tiles of a pointwise convolution) in a work unit.  unroll: input lanes unrolled.
    """

    lanes: int = 16
    vectors: int = 2
    pixels: int = 14
    k_block: int = 0
    rows: int = 1
    unroll: int = 4


def split(total: int, widest: int) -> list[int]:
    """`total` as few parts of at most `widest`, as even as can be, larger ones first."""
    parts = -(-total // widest)
    return [total // parts + (i < total % parts) for i in range(parts)]
