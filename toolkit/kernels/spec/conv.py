"""Convolution, whatever it multiplies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from ..elements import QUANTIZED, SHORT, TILED, Addition, Rounding, Scaling, element_of
from .base import NONE, Frame4, Operand, Spec, constant, framed, mapped, result, source, window_words
from .layout import Pixels


@dataclass(frozen=True)
class Output:
    """Where some of a convolution's output channels go; fields as in `Conv`."""

    channels: int
    activation: tuple[float, float] | None
    frame: Frame4
    out_stride: int
    out_element: str
    rounding: Rounding | None = None


@dataclass(frozen=True)
class Conv(Spec):
    """Convolution with its epilogue; a fully connected layer is one on a 1x1 map.

        out[n, o, y, x] = act(bias[o] + add[n, o, y, x]
                              + sum_{i, r, s} in[n, i, y*sh + r*dh - pt, x*sw + s*dw - pl] * weight[o, i, r, s])

    Of whole numbers of 16 bits (`elements.SHORT`) it is the int32 sum alone, which may go round.

    A product of pairs is `high * high + high * low + low * high`; the product of both low halves, at most 2^-18 of the
    whole, is left out (Henry, Tang, Heinecke: Leveraging the bfloat16 Artificial Intelligence Datatype For
    Higher-Precision Computations, 2019).

    Of quantized numbers (weights int8 or, of files of others, int16; sums int32): ``acc = bias[set, o] + sum in *
    weight``, rounded, or left as ``acc * factor`` in float32. The bias holds ``-zero * sum(weight)`` over the taps that
    lie inside the image, so that skipping the others is the same as padding with the zero point; it has a row for each
    set of taps that an output may see. That zero point is of bytes as the instruction takes them, `Dot.offset` lower
    than they lie. A shift's ``2^(n-1)`` is in the bias too.

    Pointers: input, weight, [but of int16: bias,] [of bytes: factor, a number a channel, weights of the windows, where
    they differ, row sets, one an output row, where there are several, numbers of `scaling`,] [add,] output (of each).

    Attributes:
        channels: input channels that one output channel reads (one group's), whole blocks unless `planar`.
        planar: the input is the network's own and has few channels: plain NCHW of float32, else as `Pixels` gives it
            (`height` and `width` count its frame).
        groups: splits input and output channels alike; one group's channels are whole blocks.
        diagonal: of several groups of the network that are one here, outputs and inputs of each, in order: the weight
            is zero where an output does not see an input. (0, 0) where that is not known.
        pad: top and left; what is missing at the bottom and the right follows from the output's size.
        activation: `(low, high)` clamp of a real result, or None.
        frame: zeros written around the output.
        split: the outputs of several convolutions that read the same pixels, one after the other; then `out_channels`
            is their sum, and the other fields of an output mean nothing, but that all of them round as `rounding`
            does, by shifts or not. None of them has `add`.
        rounding: of bytes to bytes.
        scaling: what is then done with the byte. None where there are several outputs.
        addition: what is then done with it and the byte at the same place of another tensor.
        weight_element: of bytes, what the weights are kept in.
        weighed: it sums pooling windows, some of which have less to count: two int32 `[2, out_height, out_width]` say m
            and j of each, ``clamp((m acc + (bias << j) + 2^(n+j-1)) >> (n + j))`` (`arith.weigh`); the bias has its
            ``2^(n-1)`` as ever.
        pairs_fit: of bytes: 16 bits hold what an instruction of the machine adds up there (`dots.Dot.pairs_fit`).
        sum_blocks: of numbers of 16 bits: 0 where int32 holds every sum; else that of so many input blocks is put with
            those before into two int32, ``high * 2^16 + low``. The bias is two of each then, all high parts first.
        sum_bits: of bytes: 26 where the weights prove that no sum of products needs more, whatever the inputs
            (signed); else 32.
        plain: of a 1x1 map: not 0 where the output is float32 `[batch, plain]`, no blocks: the first so many channels.
        row_sets, column_sets: how many sets of kernel rows, and of kernel columns, output pixels see (of bytes).
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
    in_stride: int = 0
    add_stride: int = 0
    out_stride: int = 0
    in_element: str = "float32"
    add_element: str = "float32"
    out_element: str = "float32"
    frame: Frame4 = NONE
    split: tuple[Output, ...] = ()
    rounding: Rounding | None = None
    scaling: Scaling | None = None
    addition: Addition | None = None
    weighed: bool = False
    row_sets: int = 1
    column_sets: int = 1
    weight_element: str = "int8"
    pairs_fit: bool = False
    sum_bits: int = 32
    sum_blocks: int = 0
    diagonal: tuple[int, int] = (0, 0)
    plain: int = 0

    @property
    def pointwise(self) -> bool:
        """A 1x1 convolution for which the image is one row of `height * width` pixels."""
        return self.kernel == self.stride == (1, 1) and self.pad == (0, 0) and not self.planar

    @property
    def macs(self) -> int:
        pixels = self.batch * self.out_height * self.out_width
        return pixels * self.out_channels * self.channels * math.prod(self.kernel)

    @property
    def quantized(self) -> bool:
        return self.in_element in QUANTIZED

    @property
    def tiled(self) -> bool:
        """It multiplies bfloat16, or pairs of it."""
        return self.in_element in TILED

    @property
    def outputs(self) -> tuple[Output, ...]:
        """All outputs, also where there is one."""
        alone = Output(self.out_channels, self.activation, self.frame, self.out_stride, self.out_element, self.rounding)
        return self.split or (alone,)

    @property
    def span(self) -> int:
        """Output channels that are of one group and of one output, from every multiple of it on."""
        return math.gcd(self.out_channels // self.groups, *(output.channels for output in self.outputs))

    @property
    def halves(self) -> int:
        """Numbers that an input or a weight is kept in."""
        return element_of(self.in_element).halves

    @property
    def reach(self) -> int:
        """Columns from the first tap of a row to the last."""
        return (self.kernel[1] - 1) * self.dilation[1] + 1

    @property
    def depth(self) -> tuple[int, int, int]:
        """What a sum runs over, a block of channels at a time: input blocks, kernel rows, and steps a kernel row. A
        step of pixels of bfloat16 takes the channels of several neighbours.
        """
        block = element_of(self.in_element).block
        if self.planar:
            return 1, self.kernel[0], -(-self.reach * self.channels // block)
        return self.channels // block, *self.kernel

    @property
    def operands(self) -> tuple[Operand, ...]:
        near, there = self.height * self.width, self.out_height * self.out_width
        block = element_of(self.in_element).block
        size, deep = self.batch * self.channels * self.groups * near, self.channels * math.prod(self.kernel)
        if self.tiled:
            deep = math.prod(self.depth) * block * self.halves
            size = mapped(self.in_element, self.batch, self.channels * self.groups // block, near)
            if self.planar:
                size = self.batch * tile_pixels(self, self.channels, NONE, self.in_element).size
        weight = self.weight_element if self.quantized else self.in_element
        found = [source(size, self.in_element), constant("weight", self.out_channels * deep, weight)]
        if self.in_element == SHORT:
            return *found, result(self.batch * self.out_channels * there, self.out_element)
        if self.quantized:
            sets = self.row_sets * self.column_sets
            shift = self.rounding is not None and self.rounding.shift
            found += [constant("bias", sets * self.out_channels * (2 if self.sum_blocks else 1), "int32")]
            found += [constant("factor", self.out_channels, "int32" if shift else "float32")]
            found += [constant("windows", 2 * there, "int32")] if self.weighed else []
            found += [constant("sets", self.out_height, "int32")] if self.row_sets > 1 else []
            found += [constant("scaling", 2 * self.out_channels)] if self.scaling is not None else []
        else:
            found.append(constant("bias", self.out_channels))
        if self.add:
            blocks = self.out_channels // element_of(self.add_element).block
            size = mapped(self.add_element, self.batch, blocks, there)
            found.append(source(size, self.add_element, "add_stride", "add"))
        for number, output in enumerate(self.outputs):
            blocks = output.channels // element_of(output.out_element).block
            pixels = framed(self.out_height, self.out_width, output.frame)
            size = self.batch * self.plain or mapped(output.out_element, self.batch, blocks, pixels)
            found.append(result(size, output.out_element, name=pointer_of(number)))
        return tuple(found)

    def with_strides(self, inputs: Mapping[str, int], outputs: Sequence[int]) -> Conv:
        if not self.split:
            return super().with_strides(inputs, outputs)
        both = zip(self.split, outputs, strict=True)
        return self.told(**inputs, split=tuple(replace(output, out_stride=stride) for output, stride in both))

    def stride_of(self, operand: Operand) -> int:
        if not self.split or operand.role != "output":
            return super().stride_of(operand)
        return next(o.out_stride for i, o in enumerate(self.split) if pointer_of(i) == operand.name)

    def canonical(self) -> Conv:
        return replace(super().canonical(), split=tuple(replace(output, out_stride=0) for output in self.split))

    def describe(self) -> str:
        """For example ``1088-192 1x1 @17x17``."""
        groups = f" in {self.groups} groups" if self.groups > 1 else ""
        notes = " + add" * self.add + " on tiles" * self.tiled
        out = "+".join(str(self.plain or output.channels) for output in self.outputs)
        window = window_words(self.kernel, self.stride, (self.out_height, self.out_width))
        return f"{self.channels * self.groups}-{out} {window}{groups}{notes}"


def tile_pixels(spec: Conv, slots: int, frame: Frame4, element: str) -> Pixels:
    """The pixels that a convolution of bfloat16 reads of the network's own input: a row of a tile reads more than it
    needs, at most to the end of the next line.
    """
    block = element_of(element).block
    size = (spec.batch, spec.channels, slots, spec.height, spec.width)
    return Pixels(*size, frame, align=block, behind=1, out_element=element)


def pointer_of(output: int) -> str:
    """The name of the pointer to a convolution's output, by its number."""
    return f"dst{output or ''}"


def tap_sets(spec: Conv) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Which taps each output row, and each output column, sees: (first, end) of the kernel's rows and columns."""

    def axis(out: int, size: int, index: int) -> list[tuple[int, int]]:
        step, before, spread, count = spec.stride[index], spec.pad[index], spec.dilation[index], spec.kernel[index]
        found = []
        for at in range(out):
            inside = [k for k in range(count) if 0 <= at * step - before + k * spread < size]
            found.append((inside[0], inside[-1] + 1) if inside else (0, 0))
        return found

    return axis(spec.out_height, spec.height, 0), axis(spec.out_width, spec.width, 1)


def column_sets(spec: Conv) -> tuple[list[int], int]:
    """Of bytes: which of its sets of kernel columns each output column sees, and the set of all columns (0 where no
    output sees them).
    """
    seen = tap_sets(spec)[1]
    known = list(dict.fromkeys(seen))
    if spec.column_sets == 1:
        return [0] * len(seen), 0
    every = (0, spec.kernel[1])
    return [known.index(found) for found in seen], known.index(every) if every in known else 0
