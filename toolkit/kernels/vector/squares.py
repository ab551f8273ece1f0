"""Direct convolution of bfloat16 on ARM, by an instruction that multiplies two pixels by two outputs (`dots.BFMMLA`).

Inputs and weights are bfloat16, sums are fp32, and so are bias, addend and clamp. A pair of pixels has its sums of four
outputs in two vectors, the first of them for two outputs. What the instruction takes of two pixels is four channels of
each: halves of their vectors of eight, as one. A pixel outside of the image is zeros; what is beside an odd one is
itself, and nobody reads its sums.

Weights are packed as `[group of vectors][input block][r][s][four channels][output][channel]`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import tirx

from ..arm import BRAIN as CODE
from ..arm import HALVES, WORDS
from ..cut import split_in_twos
from ..dots import BFMMLA
from ..elements import BLOCK, BRAIN, kept
from ..emit import NEON, Emitter, Expr, clamp, load, splat
from ..family import Family
from ..isa import BRAIN_SQUARES, Isa
from ..spec import Conv
from . import conv
from .conv import ConvSchedule

LANES = 8
"""bfloat16 of a vector."""

DEPTH = BFMMLA.depth

MOST = 16
"""Sums of a tile, in vectors: 2 pairs of pixels by 16 outputs. With 3 pairs a block's channels would have to be loaded
in four parts, or LLVM spills (docs/perf/arm.md).
"""


@dataclass(frozen=True)
class SquareSchedule(ConvSchedule):
    """A `ConvSchedule` whose tiles are pairs of pixels; `lanes` are of fp32."""

    def widths(self, row: int) -> list[int]:
        return split_in_twos(row, self.pixels)


def choose(spec: Conv, isa: Isa) -> SquareSchedule:
    """The tile whose instructions are fewest: for a block of channels 8 products a pair and vector, the weights of a
    vector in 4 loads of two, and 6 for a pair's pixels.
    """
    row, group_vectors = conv.image(spec)[3], spec.out_channels // spec.groups // isa.lanes
    tiles = [
        SquareSchedule(isa.lanes, vectors, 2 * pairs)
        for vectors in range(BLOCK // isa.lanes, MOST // 2 + 1, BLOCK // isa.lanes)
        for pairs in range(1, MOST // 2 // vectors + 1)
        if group_vectors % vectors == 0
    ]

    def cost(tile: SquareSchedule) -> float:
        pairs, count = [-(-width // 2) for width in tile.widths(row)], tile.vectors
        return sum(8 * n * count + 4 * count + 6 * n for n in pairs) / count

    return _cut(spec, min(tiles, key=cost))


def _cut(spec: Conv, schedule: SquareSchedule) -> SquareSchedule:
    """Cut into units, where four channels are what a float is there."""
    return conv.balanced(_in_words(spec), schedule)


def _in_words(spec: Conv) -> Conv:
    return replace(conv.whole_blocks(spec), channels=spec.channels // DEPTH)


def space(spec: Conv, isa: Isa) -> Iterator[tuple[SquareSchedule, dict[str, tuple[int, ...]]]]:
    """Pairs of pixels by vectors of outputs, two and two, that the registers hold; units and fetching as in
    `vector.conv.space`, which knows nothing of pairs.
    """
    row, group_vectors = conv.image(spec)[3], spec.out_channels // spec.groups // isa.lanes
    for vectors in (n for n in (2, 4, 6, 8, 12) if group_vectors % n == 0):
        for pairs in range(1, min((isa.registers - 4) // (2 * vectors), -(-row // 2)) + 1):
            tile = SquareSchedule(isa.lanes, vectors, 2 * pairs)
            for rows, rows_outer in conv.cuts(spec, tile):
                yield replace(tile, rows=rows, rows_outer=rows_outer), {"fetch": conv.FETCHES}


def features(spec: Conv, schedule: SquareSchedule, threads: int) -> list[float]:
    """`vector.conv.features` in words of four channels."""
    return conv.features(_in_words(spec), schedule, threads)


def pack_weight(weight: np.ndarray, spec: Conv, schedule: SquareSchedule) -> np.ndarray:
    """`[O, I, r, s]` (physical channels) to the order the kernel reads, as uint16. I is one group's input channels."""
    out, channels, rows, columns = weight.shape
    wide = schedule.lanes * schedule.vectors
    parts = weight.reshape(out // wide, wide, channels // BLOCK, BLOCK // DEPTH, DEPTH, rows, columns)
    return kept(np.ascontiguousarray(parts.transpose(0, 2, 5, 6, 3, 1, 4), np.float32), BRAIN)


class _Squares(conv.Direct):
    """`Direct` in pairs of pixels."""

    itemsize = 2
    depth = DEPTH

    def __init__(self, spec: Conv, schedule: SquareSchedule, emitter: Emitter) -> None:
        super().__init__(spec, schedule, emitter)
        self.in_lanes = BLOCK // DEPTH

    def half(self, which: int, first: Expr, second: Expr) -> Expr:
        """The lower (0) or upper halves of two vectors."""
        kind = str(first.ty.dtype)
        return self.emitter.inline(HALVES, f"{('lower', 'upper')[which]}_{kind}", kind, first, second)

    def slot(self, pair: int, vector: int, which: int) -> int:
        """Where the sums of a pair of pixels and two outputs are."""
        return ((pair * self.schedule.vectors + vector) * 2 + which) * NEON

    def tile(self, where: conv.Tile) -> None:
        """See `Direct.tile`. All of the depth is done at once."""
        em, spec = self.emitter, self.spec
        (src0, add0, dst0), group, y, x, width, blocks, turn = where
        sums = em.local(-(-width // 2) * 2 * self.wide, name="sums")
        places = [em.let(self.out_index(group, v, y, x), "at") for v in range(self.schedule.vectors)]
        self.started(sums, group, [add0 + place for place in places], width)
        step, spread = spec.stride[1], spec.dilation[1]

        def taps(block: Expr, r: Expr, iy: Expr) -> None:
            """All columns of a kernel row."""
            base, panel = self.source(src0, group, block, iy, x), self.panel(group, block, r)

            def column(s: Expr, inside: list[int]) -> None:
                pixels = {p: base + (p * step + s * spread) * self.pixel for p in inside}
                self.multiply(sums, pixels, width, panel + s * (self.in_lanes * self.wide * DEPTH))

            self.each_column(x, width, column)

        with em.loop(blocks[1] - blocks[0], "block", blocks[0]) as b:
            self.fetch_ahead(group, b, turn)
            self.rows(y, lambda r, iy: taps(b, r, iy))
        self.finished(sums, [dst0 + place for place in places], width)

    def started(self, sums: Any, group: Expr, places: list[Expr], width: int) -> None:
        """The bias, and what is added, as the sums of pairs."""
        em, vectors = self.emitter, self.schedule.vectors
        for v in range(vectors):
            bias = em.let(load(em.buffers["bias"], (group * vectors + v) * NEON, NEON))
            for pair in range(-(-width // 2)):
                two = [bias, bias]
                if self.spec.add:
                    pixels = (2 * pair, min(2 * pair + 1, width - 1))
                    two = [em.let(bias + em.read("add", places[v] + p * BLOCK, NEON)) for p in pixels]
                for which in (0, 1):
                    em.store(sums, self.slot(pair, v, which), self.half(which, *two))

    def multiply(self, sums: Any, pixels: dict[int, Expr], width: int, panel: Expr) -> None:
        """All channels of a block, of one column of taps.

        Args:
            pixels: where each pixel's input lies, of those inside the image.
            panel: where the column's weights begin.
        """
        em, vectors = self.emitter, self.schedule.vectors
        pairs = [pair for pair in range(-(-width // 2)) if {2 * pair, 2 * pair + 1} & set(pixels)]
        zeros = splat(tirx.const(0, "uint16"), LANES)
        for first in range(0, BLOCK, LANES):
            near = {p: em.let(load(em.buffers["src"], at + first, LANES), "pixel") for p, at in pixels.items()}
            for part in (0, 1):
                two = {}
                for pair in pairs:
                    left, right = (near.get(min(p, width - 1), zeros) for p in (2 * pair, 2 * pair + 1))
                    two[pair] = em.let(self.half(part, left, right), "two")
                at = panel + (first // DEPTH + part) * (self.wide * DEPTH)
                for v, which in itertools.product(range(vectors), (0, 1)):
                    weight = em.let(load(em.buffers["weight"], at + (2 * v + which) * LANES, LANES), "w")
                    for pair, inputs in two.items():
                        slot = self.slot(pair, v, which)
                        total = load(sums, slot, NEON)
                        em.store(sums, slot, em.inline(CODE, BFMMLA.name, "float32x4", total, inputs, weight))

    def finished(self, sums: Any, places: list[Expr], width: int) -> None:
        """Clamp and store a tile's sums."""
        em, bounds = self.emitter, self.spec.activation

        def two(pair: int, v: int) -> list[Expr]:
            return [clamp(load(sums, self.slot(pair, v, which), NEON), bounds) for which in (0, 1)]

        for pair, v in itertools.product(range(-(-width // 2)), range(0, self.schedule.vectors, 2)):
            pixels = range(2 * pair, min(2 * pair + 2, width))
            if self.spec.out_element == BRAIN:
                # rounded as they are, two outputs of a pixel are a word
                words = [em.let(tirx.reinterpret("int32x4", em.brain(*two(pair, v + i))), "words") for i in (0, 1)]
                for name, p in zip(("even", "odd"), pixels, strict=False):
                    value = tirx.reinterpret(f"uint16x{LANES}", em.inline(WORDS, name, "int32x4", *words))
                    em.store(em.buffers["dst"], places[v] + p * BLOCK, value)
                continue
            for i in (0, 1):
                outputs = [em.let(value, "sum") for value in two(pair, v + i)]
                for p in pixels:
                    em.write("dst", places[v + i] + p * BLOCK, self.half(p % 2, *outputs))


def emit(spec: Conv, schedule: SquareSchedule, name: str) -> list[tirx.PrimFunc]:
    """The convolution as a TIR function of the emitter's C signature."""
    return [_Squares(conv.whole_blocks(spec), schedule, Emitter(name, spec.pointers)).emit()]


def serves(spec: Conv, isa: Isa) -> str | None:
    """Of bfloat16 alone; the network's own input is fp32."""
    if spec.in_element != BRAIN:
        return f"it multiplies {spec.in_element}, not bfloat16 in blocks of {BLOCK}"
    return None if isa.has(BRAIN_SQUARES) else f"{isa.name} has no {BFMMLA.name}"


def _repacked(spec: Conv, _isa: Isa, schedule: SquareSchedule, vectors: int) -> SquareSchedule:
    pairs = max(1, MOST // 2 // vectors)
    row = conv.image(spec)[3]
    return _cut(spec, replace(schedule, vectors=vectors, pixels=2 * min(pairs, -(-row // 2))))


CONV: Family[Conv, SquareSchedule] = Family(
    "vector.squares",
    Conv,
    serves,
    choose,
    conv.units,
    emit,
    pack_weight,
    space,
    features,
    layout=lambda schedule: schedule.vectors,
    repacked=_repacked,
)
