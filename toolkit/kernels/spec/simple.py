"""One value at a time, rows of values, and what TVM computes."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ..elements import BYTE, SIXTEEN, Addition, Product, Rounding, Scaling, element_of
from .base import Operand, Spec, constant, mapped, result, source

PARTIAL = frozenset({"div", "log", "reciprocal", "sqrt"})
"""Operators of a `Map` that make infinities or worse of some finite values: not for storages with padding in them."""


@dataclass(frozen=True)
class Map(Spec):
    """One value at a time on `[N][blocks][pixels][block]`.

    Pointers: input, [second,] output.

    Attributes:
        op: of real numbers a name of `kernels.vector.simple.UNARY` or `BINARY`. Where bytes take part: ``quantize``
            (float32 to bytes: ``clamp(round(x / c) + zero)``), ``dequantize`` (bytes to float32: ``(q - zero) * c``),
            ``rescale`` (``rounding((q - zero) * c)``), ``clip`` (to `rounding`'s bounds; also a copy), ``add``
            (`addition`), ``mul`` (`product`), ``affine`` (`scaling`), ``table`` (256 entries, by the number that a byte
            is without a sign; of an input of 16 bits 65536, the least number's first). What is said of bytes goes for
            quantized numbers of 16 bits.
        second: the second operand: "none", "tensor" (same shape), "channel" (one value a channel, `[N or
            1][blocks][block]`), "scaling" (scales and shifts) or "table".
        constants: the operator's numbers, e.g. the clamp's bounds, or the c above; of ``rescale`` n where it is a shift
            (to the left where it is negative).
        second_element: the second operand's; "" for a constant, which is fp32 in the input's blocks.
        zero: of an input of bytes; of ``quantize`` it is in `rounding`.
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
    zero: int = 0
    rounding: Rounding | None = None
    addition: Addition | None = None
    product: Product | None = None
    scaling: Scaling | None = None

    @property
    def quantized(self) -> bool:
        return super().quantized or self.op == "table"

    @property
    def operands(self) -> tuple[Operand, ...]:
        size = (self.batch, self.blocks)
        found = [source(mapped(self.in_element, *size, self.pixels), self.in_element)]
        if self.second == "table":
            entries = 1 << 8 * np.dtype(element_of(self.in_element).stored).itemsize
            found.append(constant("table", entries, SIXTEEN if self.out_element == SIXTEEN else BYTE))
        elif self.second == "scaling":
            found.append(constant("scaling", 2 * self.blocks * element_of(self.in_element).block))
        elif self.second != "none":
            pixels = 1 if self.second == "channel" else self.pixels
            element = self.second_element or "float32"
            each = element_of(self.second_element).cell if self.second_element else element_of(self.in_element).block
            found.append(source(math.prod(size) * pixels * each, element, "second_stride", "second"))
        return (*found, result(mapped(self.out_element, *size, self.pixels), self.out_element))


@dataclass(frozen=True)
class ChannelNorm(Spec):
    """Layer normalization of every pixel's channels (Ba, Kiros, Hinton: Layer Normalization, 2016):

        out[c] = (in[c] - mean) / sqrt(variance + epsilon) * scale[c] + bias[c]

    Pointers: input, scale, bias, [mask,] output.

    Attributes:
        channels: how many lanes hold a channel: those where the mask is one, not zero; 0 where all do, and there is no
            mask.
    """

    batch: int
    blocks: int
    pixels: int
    epsilon: float
    in_stride: int = 0
    out_stride: int = 0
    in_element: str = "float32"
    out_element: str = "float32"
    channels: int = 0

    @property
    def averaged(self) -> int:
        """How many values of a pixel a mean is of."""
        return self.channels or self.blocks * element_of(self.in_element).block

    @property
    def operands(self) -> tuple[Operand, ...]:
        lanes = self.blocks * element_of(self.in_element).block
        size = (self.batch, self.blocks, self.pixels)
        names = ("scale", "bias", "mask") if self.channels else ("scale", "bias")
        numbers = tuple(constant(name, lanes) for name in names)
        return (source(mapped(self.in_element, *size), self.in_element), *numbers,
                result(mapped(self.out_element, *size), self.out_element))  # fmt: skip


@dataclass(frozen=True)
class Softmax(Spec):
    """Softmax of `rows` plain rows of `length` elements each. Pointers: input, output."""

    rows: int
    length: int

    @property
    def operands(self) -> tuple[Operand, ...]:
        return source(self.rows * self.length, stride=""), result(self.rows * self.length, stride="")


@dataclass(frozen=True)
class MatrixProduct(Spec):
    """`count` products of plain matrices, one after the other: ``[rows, depth] [depth, columns]``. Pointers: left,
    right, output.

    Attributes:
        turned: the left ones lie as ``[depth, rows]``.
    """

    count: int
    rows: int
    depth: int
    columns: int
    turned: bool = False

    @property
    def macs(self) -> int:
        return self.count * self.rows * self.depth * self.columns

    @property
    def operands(self) -> tuple[Operand, ...]:
        left = source(self.count * self.rows * self.depth, stride="", name="left")
        right = source(self.count * self.depth * self.columns, stride="", name="right")
        return left, right, result(self.count * self.rows * self.columns, stride="")

    def describe(self) -> str:
        """For example ``4 x 196x16 16x196``."""
        return f"{self.count} x {self.rows}x{self.depth} {self.depth}x{self.columns}{', turned' * self.turned}"


@dataclass(frozen=True)
class Extern(Spec):
    """A loop nest of an operator that TVM's own default computes, on plain contiguous tensors.

    Attributes:
        function: the TIR function as JSON (`tvm.ir.save_json`), not yet scheduled.
        op: the ONNX operator.
        reads, writes: dtype and elements of its parameters; what it writes comes last.
    """

    function: str
    op: str
    reads: tuple[tuple[str, int], ...] = ()
    writes: tuple[tuple[str, int], ...] = ()

    @property
    def operands(self) -> tuple[Operand, ...]:
        found = [source(size, dtype, "", f"in{i}") for i, (dtype, size) in enumerate(self.reads)]
        return (*found, *(result(size, dtype, "", f"out{i}") for i, (dtype, size) in enumerate(self.writes)))
