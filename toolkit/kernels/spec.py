"""What the kernels compute, as frozen data: no TVM here, so that lowering, caching and every target can read it.

Activations are NCHW16c, `[N][blocks][H][W][16]` in fp32; sizes count whole blocks of 16 channels. A spec's
`in_element`, `out_element` and so on name other ways to keep real numbers, of `ELEMENTS`; one spec's blocks are all of
one size. A tensor may be a slice of a larger one (a branch of a concat): then the distance between its images,
`*_stride` in what pointers count, is larger than its own size. With one image the strides are 0, so that equal layers
of different slices share one kernel.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

BLOCK = 16
"""Channels in a block of the NCHW16c layout, whatever the vector width of the machine."""


@dataclass(frozen=True)
class Element:
    """What real numbers are kept in.

    block: channels in a block. cell: a pixel of a block in memory, in what pointers count. stored: which is this dtype.
    """

    block: int
    cell: int
    stored: str


PAIR = "bf16x2"
"""fp32 as the sum of two bfloat16: `high` is the value rounded, `low` what that left, rounded. A pixel of a block has
32 high halves, then 32 low ones. Sixteen bits of the significand are kept: the error is at most 2^-18 of the value,
which must be below bfloat16's largest, 3.39e38.
"""

WIDE = "float32x32"
"""fp32 in blocks of 32 channels: what stands beside pairs, in as many bytes, where nobody multiplies tiles of it."""

ELEMENTS: dict[str, Element] = {
    "float32": Element(BLOCK, BLOCK, "float32"),
    "bfloat16": Element(2 * BLOCK, 2 * BLOCK, "uint16"),
    PAIR: Element(2 * BLOCK, 4 * BLOCK, "uint16"),
    WIDE: Element(2 * BLOCK, 2 * BLOCK, "float32"),
}
"""By name. bfloat16 is kept in integers: TVM 0.27 crashes where it has to name LLVM's own type of it."""


def element_of(name: str) -> Element:
    """The row of `ELEMENTS`; for the name of any other dtype, blocks of 16 of it."""
    return ELEMENTS.get(name) or Element(BLOCK, BLOCK, name)


@dataclass(frozen=True)
class Convolution:
    """What every convolution has, whatever it computes in. Sizes count whole blocks of 16 channels.

    channels: input channels that one output channel reads (one group's), a multiple of 16 unless `planar`.
    planar: the input is the network's own and has few channels; how it lies is each kernel's own affair.
    groups: splits input and output channels alike; one group's channels are multiples of 16.
    pad: top and left; what is missing at the bottom and the right follows from the output's size.
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

    @property
    def pointwise(self) -> bool:
        """A 1x1 convolution for which the image is one row of `height * width` pixels."""
        return self.kernel == self.stride == (1, 1) and self.pad == (0, 0) and not self.planar

    @property
    def macs(self) -> int:
        """Multiply-adds done, padded channels included."""
        pixels = self.batch * self.out_height * self.out_width
        return pixels * self.out_channels * self.channels * self.kernel[0] * self.kernel[1]


@dataclass(frozen=True)
class Conv(Convolution):
    """Convolution in fp32, with its epilogue; a fully connected layer is one on a 1x1 map.

        out[n, o, y, x] = act(bias[o] + add[n, o, y, x]
                              + sum_{i, r, s} in[n, i, y*sh + r*dh - pt, x*sw + s*dw - pl] * weight[o, i, r, s])

    planar: the input is plain NCHW.
    activation: `(low, high)` clamp, or None.
    Pointers: input, weight, bias, [add,] output.
    """

    add: bool = False
    activation: tuple[float, float] | None = None
    in_stride: int = 0
    add_stride: int = 0
    out_stride: int = 0


class WindowOp(str, Enum):
    """What a window does with the elements it covers."""

    MAX = "max"
    AVERAGE = "average"
    DEPTHWISE = "depthwise"


@dataclass(frozen=True)
class Windowed:
    """What every pool and depthwise convolution has, whatever it computes in: each channel is for itself."""

    op: WindowOp
    batch: int
    blocks: int
    height: int
    width: int
    out_height: int
    out_width: int
    kernel: tuple[int, int]
    stride: tuple[int, int]


@dataclass(frozen=True)
class Window(Windowed):
    """Pooling and depthwise convolution of floats.

    pad: top, left, bottom, right. include_pad: an average counts the padding it covers (but nothing beyond it).
    frame: zeros written around the output (not around fp32): top, left, bottom, right.
    group: neighbouring channels that a "depthwise" convolution mixes: 1, 2 or 4.
    Pointers: input, [weight, bias,] output; weights are `[block][r][s][group][channel]`, the m-th of a channel `c` for
    input channel `c ^ m`.
    """

    pad: tuple[int, int, int, int]
    dilation: tuple[int, int] = (1, 1)
    include_pad: bool = False
    activation: tuple[float, float] | None = None
    in_stride: int = 0
    out_stride: int = 0
    in_element: str = "float32"
    out_element: str = "float32"
    frame: tuple[int, int, int, int] = (0, 0, 0, 0)
    group: int = 1


@dataclass(frozen=True)
class GlobalAverage:
    """Mean over all pixels: `[N][blocks][pixels][16]` to `[N][blocks][16]`. Pointers: input, output."""

    batch: int
    blocks: int
    pixels: int
    in_stride: int = 0
    out_stride: int = 0
    in_element: str = "float32"
    out_element: str = "float32"


PARTIAL = frozenset({"div", "log", "reciprocal", "sqrt"})
"""Operators of a `Map` that make infinities or worse of some finite values: not for storages with padding in them."""


@dataclass(frozen=True)
class Map:
    """An elementwise operator on `[N][blocks][pixels][16]`.

    op: a name of `kernels.vector.simple.UNARY` or `BINARY`.
    second: the second operand: "none", "tensor" (same shape) or "channel" (one value a channel, `[N or
    1][blocks][16]`).
    constants: the operator's numbers, e.g. the clamp's bounds.
    second_element: the second operand's; "" for a constant, which is fp32 in the input's blocks.
    Pointers: input, [second,] output.
    """

    op: str
    batch: int
    blocks: int
    pixels: int
    second: str = "none"
    constants: tuple[float, ...] = ()
    in_stride: int = 0
    second_stride: int = 0
    out_stride: int = 0
    in_element: str = "float32"
    second_element: str = ""
    out_element: str = "float32"


@dataclass(frozen=True)
class Pack:
    """NCHW to NCHW16c: slot `s` takes channel `table[s]`, or zeros where that is negative. Pointers: input, table
    (int32), output.
    """

    batch: int
    channels: int
    blocks: int
    pixels: int
    out_stride: int = 0
    out_element: str = "float32"


@dataclass(frozen=True)
class Unpack:
    """NCHW16c to NCHW: channel `c` is slot `table[c]`. Pointers: input, table (int32), output."""

    batch: int
    channels: int
    blocks: int
    pixels: int
    in_stride: int = 0
    in_element: str = "float32"


@dataclass(frozen=True)
class Softmax:
    """Softmax of `rows` plain rows of `length` elements each. Pointers: input, output."""

    rows: int
    length: int


@dataclass(frozen=True)
class Extern:
    """A loop nest of an operator that TVM's own default computes, on plain contiguous tensors.

    function: the TIR function as JSON (`tvm.ir.save_json`), not yet scheduled. op: the ONNX operator.
    Pointers: the function's parameters; what it writes comes last.
    """

    function: str
    op: str


class _Tiled:
    """What both transforms derive from their tiling."""

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


@dataclass(frozen=True)
class WinogradInput(_Tiled):
    """Winograd's transform of the data: `[N][blocks][H][W][16]` to `[N][ny * nx][blocks][tiles][16]`, with `tiles =
    tile rows * columns`.

    outputs, taps: m and r of F(m, r) along rows and columns; n = m + r - 1. A tile starts every `outputs` pixels,
    `pad` before the image.
    out_height, out_width: of the convolution.
    band: how many tile rows are done, from the one on that a pointer tells; 0 for all of them.
    Pointers: input, [first tile row (int32),] output.
    """

    batch: int
    blocks: int
    height: int
    width: int
    out_height: int
    out_width: int
    outputs: tuple[int, int]
    taps: tuple[int, int]
    pad: tuple[int, int]
    band: int = 0
    in_stride: int = 0


@dataclass(frozen=True)
class WinogradOutput(_Tiled):
    """The way back, with the convolution's epilogue: `[N][ny * nx][blocks][tiles][16]` to
    `[N][blocks][out_height][out_width][16]`.

    Fields as in `WinogradInput`, `blocks` those of the output. Pointers: input, [first tile row (int32),] bias, [add,]
    output.
    """

    batch: int
    blocks: int
    out_height: int
    out_width: int
    outputs: tuple[int, int]
    taps: tuple[int, int]
    add: bool = False
    activation: tuple[float, float] | None = None
    band: int = 0
    add_stride: int = 0
    out_stride: int = 0
