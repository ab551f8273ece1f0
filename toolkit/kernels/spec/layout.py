"""What only moves values: between layouts, and into zeros."""

from __future__ import annotations

from dataclasses import dataclass

from ..elements import BYTE, Rounding, element_of
from .base import NONE, Frame4, Operand, Spec, constant, framed, mapped, result, source


@dataclass(frozen=True)
class Pack(Spec):
    """NCHW of fp32 to blocks: slot `s` takes channel `table[s]`, or zeros where that is negative. Pointers: input,
    [table (int32),] output.

    Attributes:
        last: the input is NHWC, and slots take its channels in order; there is no table.
    """

    batch: int
    channels: int
    blocks: int
    pixels: int
    out_stride: int = 0
    out_element: str = "float32"
    last: bool = False

    @property
    def operands(self) -> tuple[Operand, ...]:
        table = constant("table", self.blocks * element_of(self.out_element).block, "int32")
        return (
            source(self.batch * self.channels * self.pixels, stride=""),
            *(() if self.last else (table,)),
            result(mapped(self.out_element, self.batch, self.blocks, self.pixels), self.out_element),
        )


@dataclass(frozen=True)
class Unpack(Spec):
    """Blocks to NCHW of fp32: channel `c` is slot `table[c]`. Pointers: input, [table (int32),] output.

    Attributes:
        last: the output is NHWC, and takes the slots in order; there is no table.
    """

    batch: int
    channels: int
    blocks: int
    pixels: int
    in_stride: int = 0
    in_element: str = "float32"
    last: bool = False

    @property
    def operands(self) -> tuple[Operand, ...]:
        return (
            source(mapped(self.in_element, self.batch, self.blocks, self.pixels), self.in_element),
            *(() if self.last else (constant("table", self.channels, "int32"),)),
            result(self.batch * self.channels * self.pixels),
        )


@dataclass(frozen=True)
class Normalise(Spec):
    """Bytes of pictures to NCHW of fp32: ``x * factor[c] + summand[c]``. Pointers: input (uint8), factor, summand,
    output.

    Attributes:
        together: the input is NHWC, a pixel's channels together; else NCHW.
    """

    batch: int
    channels: int
    pixels: int
    together: bool = True

    @property
    def quantized(self) -> bool:
        return False  # its bytes are pixels, which have no scale

    @property
    def operands(self) -> tuple[Operand, ...]:
        size = self.batch * self.channels * self.pixels
        numbers = (constant("factor", self.channels), constant("summand", self.channels))
        return (source(size, BYTE, stride=""), *numbers, result(size, stride=""))


@dataclass(frozen=True)
class Pixels(Spec):
    """NCHW of fp32 with few channels to `[N][H][W][slots]`: a pixel's channels side by side, then zeros; and zeros
    around each image. Of pairs, all high halves of an image come first.

    Pointers: input, output.

    Attributes:
        align: a line of pixels takes a multiple of so many elements.
        behind: lines of zeros that follow each image.
        scale, rounding: of bytes, ``clamp(round(x / scale) + zero)``.
    """

    batch: int
    channels: int
    slots: int
    height: int
    width: int
    frame: Frame4 = NONE
    align: int = 1
    behind: int = 0
    scale: float = 1.0
    rounding: Rounding | None = None
    out_element: str = "float32"

    @property
    def quantized(self) -> bool:
        return self.rounding is not None or super().quantized

    @property
    def lines(self) -> int:
        """Lines of pixels of an image."""
        return self.frame[0] + self.height + self.frame[2] + self.behind

    @property
    def line(self) -> int:
        """Elements of a line."""
        return -(-(self.frame[1] + self.width + self.frame[3]) * self.slots // self.align) * self.align

    @property
    def size(self) -> int:
        """What pointers count of an image."""
        return element_of(self.out_element).halves * self.lines * self.line

    @property
    def operands(self) -> tuple[Operand, ...]:
        given = self.batch * self.channels * self.height * self.width
        return source(given, stride=""), result(self.batch * self.size, self.out_element)


@dataclass(frozen=True)
class Frame(Spec):
    """A copy with zeros around it. Pointers: input, output.

    Attributes:
        frame: top, left, bottom, right.
    """

    batch: int
    blocks: int
    height: int
    width: int
    frame: Frame4
    in_stride: int = 0
    out_stride: int = 0
    in_element: str = "float32"

    @property
    def operands(self) -> tuple[Operand, ...]:
        pixels = framed(self.height, self.width, self.frame)
        return (
            source(mapped(self.in_element, self.batch, self.blocks, self.height * self.width), self.in_element),
            result(mapped(self.in_element, self.batch, self.blocks, pixels), self.in_element),
        )


@dataclass(frozen=True)
class Pick(Spec):
    """Values of a map in other places: pixel (y, x) of slot s is pixel (rows[y], columns[x]) of slot channels[s].

    A nearest resize, padding of any mode, a slice of pixels with any step, and channels in other slots are such.
    Pointers: input, rows (int32), columns (int32), [channels (int32),] output.

    Attributes:
        in_blocks, height, width: of the input; the others are the output's.
        shuffled: channels change their slots.
        fill: what stands where an index is negative, as the bits of it are without a sign; -1 where none is.
    """

    batch: int
    in_blocks: int
    height: int
    width: int
    blocks: int
    out_height: int
    out_width: int
    shuffled: bool = False
    fill: int = -1
    in_stride: int = 0
    out_stride: int = 0
    in_element: str = BYTE
    out_element: str = BYTE

    @property
    def operands(self) -> tuple[Operand, ...]:
        given = mapped(self.in_element, self.batch, self.in_blocks, self.height * self.width)
        found = [source(given, self.in_element)]
        found += [constant("rows", self.out_height, "int32"), constant("columns", self.out_width, "int32")]
        if self.shuffled:
            found.append(constant("channels", self.blocks * element_of(self.out_element).block, "int32"))
        made = mapped(self.out_element, self.batch, self.blocks, self.out_height * self.out_width)
        return (*found, result(made, self.out_element))

    def describe(self) -> str:
        what = "channels" if self.shuffled else "pixels"
        return f"{what} of {self.height}x{self.width} to {self.out_height}x{self.out_width}"
