"""What one step of a VTA computes: sums of int8 products in int32, pooled, shifted and clamped to int8.

All activations are signed bytes in blocks of channels. A step is one or more stages over one map of accumulators:

    acc = 0                                              (the first stage; a later one goes on with what is there)
    acc = acc << lead
    for each term:   acc = (acc + sum tile * input) << term.shift
    acc = largest, or sum, of each window                (of the last stage only, where there is one)
    acc = acc + bias
    acc = clamp(acc >> (shift + shifts[channel]), low, high)

The last stage's accumulators are stored as int8, or as they are, in `planes` of bytes; the first blocks of channels may
go to one output, the next ones to another. Rounding is in the bias: ``2^(n - 1)``. A shift to the right floors. No sum
leaves int32: who makes the spec proves that from the weights. `kernels.vta.meaning` computes it in numpy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum

from .base import Operand, Spec, constant, result, source, window_words
from .conv import pointer_of

SIGNED = "int8"
"""The element of activations that a VTA reads and writes."""


class Reads(str, Enum):
    """Which blocks of an input a block of outputs reads."""

    ALL = "all"
    OWN = "own"
    """As many as `span`, from the output block's group on, times `span`: depthwise, grouped, shortcuts."""


@dataclass(frozen=True)
class Term:
    """A convolution into the accumulators, of one input.

        acc[o, y, x] += sum_{i, r, s} tile[o, i, r, s] * in[i, y * sh + r * dh - pt, x * sw + s * dw - pl]

    Where the window leaves the input it reads zeros.

    Attributes:
        blocks: of the input's channels.
        height, width: of the input.
        pad: top and left; a negative one leaves out so many pixels.
        reads: which blocks of the input; `span`: how many of them a block of outputs reads (`blocks` for `Reads.ALL`).
        group: of `Reads.OWN`, so many output blocks, one after the other, read the same ones.
        shared: one set of tiles for all blocks of outputs.
        shift: the accumulator goes left by so much after the term.
    """

    blocks: int
    height: int
    width: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    reads: Reads = Reads.ALL
    span: int = 0
    group: int = 1
    shared: bool = False
    shift: int = 0
    in_stride: int = 0

    @property
    def depth(self) -> int:
        """Input blocks that a block of outputs reads."""
        return self.blocks if self.reads is Reads.ALL else self.span

    @property
    def steps(self) -> int:
        """Tiles that one output takes: GEMM steps."""
        return self.depth * math.prod(self.kernel)

    def first(self, block: int) -> int:
        """The first input block that a block of outputs reads."""
        return 0 if self.reads is Reads.ALL else block // self.group * self.span


class Reduce(str, Enum):
    """What becomes of the accumulators in a window."""

    MAX = "max"
    SUM = "sum"


@dataclass(frozen=True)
class Pooling:
    """A window over the accumulators, before bias and shift; where it leaves the map it sees nothing.

    Attributes:
        height, width: of the map of accumulators, which the terms compute.
        pad: top and left.
    """

    reduce: Reduce
    height: int
    width: int
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    pad: tuple[int, int] = (0, 0)


@dataclass(frozen=True)
class Stage:
    """One sum and its way back to a byte.

    Attributes:
        lead: the accumulators go left by so much first, in a later stage.
        bias: ``""`` for none; ``"tiles"``: a constant vector times `bias_tiles` tiles; ``"words"``: int32.
        shift: to the right, of all channels alike, 0 to 31.
        shifts: there are amounts for each channel beside that, 0 to 15.
        low, high: of the clamp; None where no value can lie beyond.
    """

    terms: tuple[Term, ...]
    lead: int = 0
    bias: str = ""
    bias_tiles: int = 0
    shift: int = 0
    shifts: bool = False
    low: int | None = None
    high: int | None = None


@dataclass(frozen=True)
class Share:
    """One output of several: so many blocks of channels, and the distance between its images."""

    blocks: int
    out_stride: int = 0


@dataclass(frozen=True)
class Vta(Spec):
    """One step of a VTA. Pointers: of each stage in turn, of each of its terms the input and its tiles, then what the
    bias takes (tiles: the constant vector and the tiles; words: the words) and the shifts; the outputs are last.

    Activations are ``[N / rows, blocks, H, W, rows, B]``, B the block; strides are those of `rows` images. Constants:
    tiles int8 ``[out_blocks or 1, depth, r, s, B outputs, B inputs]``; the constant vector int8 ``[rows, B]``; bias
    tiles int8 ``[out_blocks, bias_tiles, B, B]``; words, shifts int32 ``[out_blocks, rows, B]``.

    Attributes:
        out_blocks: of the output's channels.
        height, width: of what is computed.
        block: channels in a block.
        planes: 4 where the last stage's accumulators leave as they are: the output is int8 ``[N, planes, out_blocks, H,
            W, B]``, the lowest bytes first. That stage has no shift and no clamp then.
        whole: height and width of the map that the output is a rectangle of; None where it is all of it.
        corner: where in it the rectangle begins.
        rows: images that are computed at once: of a VTA's tile.
        split: the outputs of several convolutions that read the same pixels, one after the other; then `out_blocks` is
            their sum, `out_stride` means nothing, and there is one plane.
    """

    batch: int
    out_blocks: int
    height: int
    width: int
    stages: tuple[Stage, ...]
    pooling: Pooling | None = None
    block: int = 16
    planes: int = 1
    whole: tuple[int, int] | None = None
    corner: tuple[int, int] = (0, 0)
    rows: int = 1
    out_stride: int = 0
    split: tuple[Share, ...] = ()

    @property
    def outputs(self) -> tuple[Share, ...]:
        """All outputs, also where there is one."""
        return self.split or (Share(self.out_blocks, self.out_stride),)

    @property
    def inner(self) -> tuple[int, int]:
        """Height and width of the map of accumulators."""
        return (self.pooling.height, self.pooling.width) if self.pooling else (self.height, self.width)

    @property
    def map(self) -> tuple[int, int]:
        """Height and width of the map in memory that the output goes to."""
        return self.whole or (self.height, self.width)

    @property
    def terms(self) -> tuple[Term, ...]:
        """Of all stages."""
        return tuple(term for stage in self.stages for term in stage.terms)

    @property
    def macs(self) -> int:
        rows, columns = self.inner
        return self.batch * self.out_blocks * rows * columns * sum(term.steps for term in self.terms) * self.block**2

    @property
    def operands(self) -> tuple[Operand, ...]:
        tile = self.block * self.block
        found: list[Operand] = []
        number = 0
        for at, stage in enumerate(self.stages):
            for term in stage.terms:
                size = self.batch * term.blocks * term.height * term.width * self.block
                found.append(source(size, SIGNED, f"in_stride{number}", f"src{number}"))
                outputs = 1 if term.shared else self.out_blocks
                found.append(constant(f"tiles{number}", outputs * term.steps * tile, SIGNED))
                number += 1
            if stage.bias == "tiles":
                found.append(constant(f"ones{at}", self.rows * self.block, SIGNED))
                found.append(constant(f"bias{at}", self.out_blocks * stage.bias_tiles * tile, SIGNED))
            elif stage.bias == "words":
                found.append(constant(f"bias{at}", self.out_blocks * self.rows * self.block, "int32"))
            if stage.shifts:
                found.append(constant(f"shifts{at}", self.out_blocks * self.rows * self.block, "int32"))
        pixels = self.batch * self.planes * math.prod(self.map) * self.block
        for index, share in enumerate(self.outputs):
            found.append(result(pixels * share.blocks, SIGNED, name=pointer_of(index)))
        return tuple(found)

    def with_strides(self, inputs: Mapping[str, int], outputs: Sequence[int]) -> Vta:
        numbers = iter(range(len(self.terms)))
        stages = tuple(
            replace(stage, terms=tuple(replace(t, in_stride=inputs[f"in_stride{next(numbers)}"]) for t in stage.terms))
            for stage in self.stages
        )
        if not self.split:
            return replace(self, stages=stages, out_stride=outputs[0])
        split = (replace(share, out_stride=stride) for share, stride in zip(self.split, outputs, strict=True))
        return replace(self, stages=stages, split=tuple(split))

    def canonical(self) -> Vta:
        strides = {f"in_stride{number}": 0 for number in range(len(self.terms))}
        return self.with_strides(strides, [0] * len(self.outputs))

    def describe(self) -> str:
        """For example ``1088-192 1x1 @17x17``."""
        first = max(self.terms, key=lambda term: term.steps)
        deep, out = first.blocks * self.block, "+".join(str(share.blocks * self.block) for share in self.outputs)
        more = f" + {len(self.terms) - 1} more" if len(self.terms) > 1 else ""
        words = f"{deep}-{out} {window_words(first.kernel, first.stride, self.inner)}{more}"
        if self.pooling is None:
            return words
        window = window_words(self.pooling.kernel, self.pooling.stride, (self.height, self.width))
        return f"{words}, {self.pooling.reduce.value} {window}"
