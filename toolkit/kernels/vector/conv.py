"""Direct convolution for CPUs: a tile of `pixels x vectors` accumulators stays in registers.

Every input element is broadcast once for `vectors` multiply-adds and every weight vector is loaded once for `pixels`
of them, so a tile of 8 to 28 accumulators keeps both FMA units busy from the first-level cache. Weights are packed as
`[group of vectors][input block][r][s][input lane][vectors * lanes]`: a work unit reads them from front to back.

Nothing is padded in memory. The tiles of a row are laid out when the kernel is made, as even as they can be (17
pixels are 9 + 8, not 16 + 1), so taps that fall off the left or right edge are left out of a tile's code, and the
loop over kernel rows is cut to those inside the image. A 1x1 convolution sees its image as one row.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeVar

import numpy as np
from tvm import tirx

from ..arm import MULTIPLY
from ..cut import runs, split
from ..elements import BLOCK, BRAIN, HALF, HALVES, WIDE
from ..emit import NEON, Emitter, Expr, clamp, fma, load, splat
from ..family import Family, of_vectors
from ..isa import BRAIN_SQUARES, HALF_VECTORS, Isa
from ..spec import Conv

LINE_BYTES = 64
"""Of a cache line."""

NEXT_GROUP = -1
"""`ConvSchedule.fetch`: every tile of a group fetches its share of the next group's weights."""

NEXT_GROUP_BYTES = 128 * 1024
"""A group's weights up to this size are fetched so by default: measured, with 209 KB it loses (docs/perf/cpu-fp32.md,
step 2).
"""

AHEAD_KIB = 8
"""How far ahead a group's first tile fetches larger ones by default: measured (docs/perf/cpu-fp32.md, step 2)."""

LEAST_TURNS = 5
"""Tiles that a group needs for their shares of the next group's weights to be small: measured (docs/perf/tuning.md,
round 2).
"""

K_BLOCK, LEAST_UNITS = 8, 8
"""Input blocks that a deep pointwise convolution does at a time by default: measured (docs/perf/tuning.md, round 2).
The units that it is to keep: four for each of the two threads that this was measured with.
"""

DEEP = {16: 256, 8: 512}
"""By the lanes of a vector, from how many channels on. With 8 a group's weights then are 32 KB, all of the first-level
cache: measured (docs/perf/cpu-avx2.md, step 3).
"""

MANY_REGISTERS, MOST_OF_MANY, MOST_OF_FEW = 32, 18, 12
"""Accumulators of a tile by the registers: measured, with more of them LLVM 22 spills (docs/perf/cpu-fp32.md, step
1).
"""

WIDE_FEW = 8
"""Lanes of the vectors of which there are only 16 (AVX2). There a kernel's columns are done one after the other: in
one loop LLVM keeps the inputs that several columns share, and spills accumulators (docs/perf/cpu-avx2.md, step 2). So
they are where inputs are taken by the lane: a weight of one column is then near enough for pairs of loads.
"""

BY_LANE = NEON
"""Lanes of the vectors, of which instructions multiply with one lane: NEON's."""

MOST_BY_LANE = 20
"""The same where instructions take inputs as vectors: 5 pixels of 4 vectors, 10 inputs and 2 weights have all registers
of AArch64, and nothing spills where a block's lanes are unrolled (docs/perf/arm.md).
"""

LANE_VECTORS, LANE_PIXELS = 2, 4
"""A tile for 16 registers and an instruction that takes the inputs as vectors: 8 sums, 4 inputs and the weights. With
12 sums LLVM spills (docs/perf/arm.md).
"""

FETCHES = (NEXT_GROUP, 0, 4, AHEAD_KIB, 16)
"""What a search tries of `ConvSchedule.fetch`."""

STREAMED = 0.1
"""Cycles of an accumulator for what comes from the second-level cache, once a pixel and once a vector. Not measured: so
little that it decides only between tiles that `cycles` holds for equal.
"""

UNIT_MACS = 400_000
"""Multiply-adds of a work unit: 4 microseconds of a core with two units of 16 lanes at 3 GHz, so that threads wait no
longer for each other at a layer's end.
"""

STAYING = 512 * 1024
"""Bytes of weights that stay in a second-level cache while pixels go by: half of the smallest one beside AVX-512 units
(1 MiB, Zen 4 and Skylake).
"""


@dataclass(frozen=True)
class ConvSchedule:
    """The knobs of the template.

    Attributes:
        lanes: floats in a vector register.
        vectors: output vectors of a tile; divides a group's output vectors.
        pixels: widest tile along a row.
        rows: output rows in a work unit (tiles, for a pointwise convolution).
        unroll: input lanes unrolled; divides 16.
        k_block: input blocks done before moving on to the next tile; 0 for all.
        rows_outer: units run through all output channels of some rows before the next rows (else the other way round).
        fetch: which weights are asked for before they are used: NEXT_GROUP, or 0 for none, or how many KiB ahead the
            first tile of a group fetches its own.
    """

    lanes: int
    vectors: int
    pixels: int
    rows: int = 1
    unroll: int = 1
    k_block: int = 0
    rows_outer: bool = False
    fetch: int = 0

    def widths(self, row: int) -> list[int]:
        """Of the tiles of a row of so many pixels."""
        return split(row, self.pixels)


S = TypeVar("S", bound=ConvSchedule)


@dataclass(frozen=True)
class LaneSchedule(ConvSchedule):
    """The same with an instruction that takes a lane of a vector of inputs.

    Attributes:
        multiply: the instruction, of `arm.MULTIPLY`.
    """

    multiply: str = ""


def image(spec: Conv) -> tuple[int, int, int, int]:
    """Input height and width, output height and width, as the kernel sees them (one row, if pointwise)."""
    if spec.pointwise:
        return 1, spec.height * spec.width, 1, spec.out_height * spec.out_width
    return spec.height, spec.width, spec.out_height, spec.out_width


class Share(NamedTuple):
    """How many neighbouring outputs read the same inputs, and how many inputs those are."""

    outputs: int
    inputs: int


def share(spec: Conv, lanes: int) -> Share:
    """What vectors of `lanes` compute together: a group. Where that is several of the network's, with a block-diagonal
    weight, it is as few of them as whole vectors hold, so that most of the weight's zeros are left out.
    """
    whole, (outputs, inputs) = Share(spec.out_channels // spec.groups, spec.channels), spec.diagonal
    if not outputs:
        return whole
    join = math.lcm(lanes // math.gcd(lanes, outputs), lanes // math.gcd(lanes, inputs))
    # the last of several together may be half of padding, but all of it lies in the input
    if join * inputs >= spec.channels or (join > 1 and spec.groups * spec.channels % (join * inputs)):
        return whole
    return Share(join * outputs, join * inputs)


def whole_blocks(spec: Conv) -> Conv:
    """For kernels that read blocks of inputs whole, zeros of a block-diagonal weight included."""
    return replace(spec, diagonal=(0, 0))


def in_lanes(spec: Conv, lanes: int) -> int:
    """Input channels that lie side by side and are read together: a block, or as much of one as a share has."""
    return spec.channels if spec.planar else math.gcd(BLOCK, share(spec, lanes).inputs)


def tile_widths(spec: Conv, schedule: ConvSchedule) -> list[int]:
    """Widths of the tiles of one row."""
    return schedule.widths(image(spec)[3])


def row_blocks(spec: Conv, schedule: ConvSchedule) -> int:
    """Work units along the rows (along the tiles, if pointwise)."""
    extent = len(tile_widths(spec, schedule)) if spec.pointwise else spec.out_height
    return -(-extent // schedule.rows)


def units(spec: Conv, schedule: ConvSchedule) -> int:
    """Work units of the kernel."""
    return spec.batch * (spec.out_channels // (schedule.lanes * schedule.vectors)) * row_blocks(spec, schedule)


def pack_weight(weight: np.ndarray, spec: Conv, schedule: ConvSchedule) -> np.ndarray:
    """`[O, I, r, s]` (physical channels) to the order the kernel reads. I is one group's input channels."""
    out, channels, rows, columns = weight.shape
    outputs, inputs = share(spec, schedule.lanes)
    if inputs < channels:
        output = np.arange(out)
        first = output // outputs * inputs - output // (out // spec.groups) * channels
        # of outputs that are padding, whose weights are all zero, any
        first = np.clip(first, 0, channels - inputs)
        weight = weight[output[:, None], first[:, None] + np.arange(inputs)]
        channels = inputs
    wide, lanes = schedule.lanes * schedule.vectors, in_lanes(spec, schedule.lanes)
    packed = weight.reshape(out // wide, wide, channels // lanes, lanes, rows, columns).transpose(0, 2, 4, 5, 3, 1)
    return np.ascontiguousarray(packed, dtype=np.float32)


def cycles(widths: Sequence[int], vectors: int) -> float:
    """Of one step through the depth for tiles of these widths: two multiply-adds or two loads each cycle, and at least
    the latency of a chain of multiply-adds: 4 cycles, on every core since Skylake and Zen (docs/perf/cpu-fp32.md).
    """
    return sum(max(width * vectors / 2, (width + vectors) / 2, 4.0) for width in widths)


def choose(spec: Conv, isa: Isa) -> ConvSchedule:
    """The schedule a cost model takes to be fastest; no measuring."""
    group_vectors = share(spec, isa.lanes).outputs // isa.lanes
    row = image(spec)[3]
    if isa.multiply and row > 1 and group_vectors % LANE_VECTORS == 0:
        tile = replace(_start(isa), vectors=LANE_VECTORS, pixels=max(split(row, LANE_PIXELS)))
        return balanced(spec, tile)
    few = isa.registers < MANY_REGISTERS
    most = MOST_OF_FEW if few else MOST_BY_LANE if isa.lanes == BY_LANE else MOST_OF_MANY
    return tiled(spec, isa, _start(isa), most, keep=few and isa.lanes == WIDE_FEW)


def tiled(spec: Conv, isa: Isa, start: ConvSchedule, most: int, *, keep: bool = False) -> ConvSchedule:
    """`start` with the tile of at most so many accumulators that a cost model takes to be fastest.

    The model counts `cycles` an accumulator, and a little for what streams from the second-level cache (weights once a
    tile, inputs once a group of vectors). Tiles keep to about three fifths of the registers: with more, LLVM spills.
    docs/perf/cpu-fp32.md holds it against measurements.

    Args:
        keep: tiles leave registers for their weights and an input (docs/perf/cpu-avx2.md, step 1).
    """
    lanes = isa.lanes
    group_vectors = _together(spec, lanes)
    per_block = math.gcd(BLOCK // lanes, group_vectors)
    most_vectors = 4 * BLOCK // lanes
    row = image(spec)[3]

    def room(vectors: int) -> int:
        """Pixels whose accumulators stay in registers beside the weights and an input; of one pixel, weights are
        operands in memory.
        """
        return max(1, (isa.registers - 1 - vectors) // vectors) if keep else most

    def cost(vectors: int, pixels: int) -> float:
        return cycles(split(row, pixels), vectors) / (vectors * row) + STREAMED / pixels + STREAMED / vectors

    options = []
    for vectors in (
        range(per_block, most_vectors + 1, per_block) if row > 1 else (per_block * n for n in (1, 2, 3, 4, 6, 8, 9))
    ):
        if group_vectors % vectors == 0 and vectors < isa.registers - 2:
            pixels = max(split(row, max(1, min(most // vectors, room(vectors)))))
            options.append((cost(vectors, pixels), replace(start, vectors=vectors, pixels=pixels)))
    return _streamed(spec, balanced(spec, min(options, key=lambda option: option[0])[1]))


def _together(spec: Conv, lanes: int) -> int:
    """What the vectors of a tile divide: those of a share, and all."""
    return math.gcd(share(spec, lanes).outputs, spec.out_channels) // lanes


def _start(isa: Isa) -> ConvSchedule:
    """What the instruction set says of every schedule. Where a block is four vectors, its lanes are unrolled so that
    instructions multiply with a lane of a vector of them (docs/perf/arm.md).
    """
    if isa.multiply:
        return LaneSchedule(isa.lanes, 1, 1, unroll=isa.lanes, multiply=isa.multiply)
    return ConvSchedule(isa.lanes, 1, 1, unroll=BLOCK if isa.lanes == BY_LANE else 1)


def _streamed(spec: Conv, schedule: ConvSchedule) -> ConvSchedule:
    """How weights come to the tiles, as measuring showed it (docs/perf/tuning.md).

    A group of few tiles fetches nothing for the next one: each tile's share would be a burst. Nor does a k x k kernel
    ahead of itself. On x86, deep pointwise convolutions do a few blocks for all tiles of a larger unit before the next
    blocks, so that these weights stay in the first-level cache.
    """
    turns = len(tile_widths(spec, schedule)) * (1 if spec.pointwise else spec.out_height)
    if turns < LEAST_TURNS or (schedule.fetch > 0 and not spec.pointwise):
        schedule = replace(schedule, fetch=0)
    least = DEEP.get(schedule.lanes)
    if not spec.pointwise or turns == 1 or least is None or share(spec, schedule.lanes).inputs < least:
        return schedule
    groups = spec.out_channels // (schedule.lanes * schedule.vectors)
    # as many units as can be shared out evenly
    most = max(1, turns * groups // LEAST_UNITS)
    # of few tiles each has its sums written and read again less often
    block = K_BLOCK if schedule.lanes == BLOCK or turns >= 2 * K_BLOCK else 2 * K_BLOCK
    return replace(schedule, k_block=block, rows=max(schedule.rows, min(8 * schedule.rows, turns, most)))


def balanced(spec: Conv, schedule: S) -> S:
    """Units large enough to be worth handing out, and the loop order that reuses the larger operand."""
    wide = schedule.lanes * schedule.vectors
    depth = share(spec, schedule.lanes).inputs * math.prod(spec.kernel)
    row = image(spec)[3] if not spec.pointwise else schedule.pixels
    rows = max(1, round(UNIT_MACS / (row * wide * depth)))
    weights = 4 * spec.out_channels * depth
    pixels = 4 * spec.height * spec.width * spec.channels * spec.groups
    extent = len(tile_widths(spec, schedule)) if spec.pointwise else spec.out_height
    return replace(
        schedule,
        rows=min(rows, extent),
        rows_outer=weights <= STAYING < pixels,
        fetch=NEXT_GROUP if 4 * wide * depth <= NEXT_GROUP_BYTES else AHEAD_KIB,
    )


def repacked(spec: Conv, schedule: ConvSchedule, vectors: int) -> ConvSchedule:
    """A schedule with tiles of as many accumulators, in which weights are packed for tiles of so many vectors.

    Args:
        vectors: divides those of a group.
    """
    row, most = image(spec)[3], schedule.vectors * schedule.pixels
    tile = replace(schedule, vectors=vectors, pixels=max(split(row, max(1, most // vectors))))
    return _streamed(spec, balanced(spec, tile))


def space(spec: Conv, isa: Isa) -> Iterator[tuple[ConvSchedule, dict[str, tuple[int, ...]]]]:
    """The schedules worth a measurement: each register tile and unit, with the values that the other knobs may take."""
    lanes, registers = isa.lanes, isa.registers
    group_vectors = _together(spec, lanes)
    per_block = math.gcd(BLOCK // lanes, group_vectors)
    row, side = image(spec)[3], in_lanes(spec, lanes)
    in_blocks = share(spec, lanes).inputs // side
    parts = () if spec.out_element in HALVES else (4, 8, 16, 32)  # sums half done have to be fp32
    knobs = {
        "unroll": (1,) if spec.planar else (BY_LANE, side) if lanes == BY_LANE else (1, 2, 4),
        "k_block": (0, *(block for block in parts if 2 * block <= in_blocks)),
        "fetch": FETCHES,
    }
    for vectors in (per_block * n for n in (1, 2, 3, 4, 6, 8)):
        if group_vectors % vectors:
            continue
        most = min(row, (registers - 4) // vectors)
        for pixels in sorted({max(split(row, width)) for width in range(1, most + 1)}):
            if pixels * vectors < min(6, row):
                continue
            tiled = replace(_start(isa), vectors=vectors, pixels=pixels)
            for rows, rows_outer in cuts(spec, tiled):
                yield replace(tiled, rows=rows, rows_outer=rows_outer), knobs


def cuts(spec: Conv, schedule: ConvSchedule) -> Iterator[tuple[int, bool]]:
    """What `rows` and `rows_outer` may be of a tile."""
    extent = len(tile_widths(spec, schedule)) if spec.pointwise else spec.out_height
    for rows in sorted({-(-extent // parts) for parts in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)}):
        yield from ((rows, outer) for outer in ((False, True) if rows < extent else (False,)))


class Tile(NamedTuple):
    """`width` pixels from column `x` of row `y`, for a group of vectors, over input blocks `blocks[0] .. blocks[1]`.

    Attributes:
        image: where the image begins in the input, in what is added, and in the output.
        x: an int in a tile with code of its own.
        turn: counts the tiles of a group.
    """

    image: tuple[Expr, Expr, Expr]
    group: Expr
    y: Expr
    x: int | Expr
    width: int
    blocks: tuple[int, int]
    turn: Expr


class Direct:
    """The state that the parts of one kernel's code share. Other element types replace `tile`."""

    itemsize = 4
    """Bytes of what a weight is kept in."""

    depth = 1
    """Channels that one multiply-add takes at once."""

    def __init__(self, spec: Conv, schedule: ConvSchedule, emitter: Emitter) -> None:
        self.spec, self.schedule, self.emitter = spec, schedule, emitter
        self.in_height, self.in_width, self.out_height, self.out_width = image(spec)
        self.share = share(spec, schedule.lanes)
        self.in_lanes = in_lanes(spec, schedule.lanes)
        self.in_blocks = self.share.inputs // self.in_lanes
        self.parts = 1 if spec.planar else BLOCK // self.in_lanes  # of a block, that are read apart
        self.pixel = 1 if spec.planar else BLOCK  # elements from one input pixel to the next
        self.lane = spec.height * spec.width if spec.planar else 1
        self.in_plane = spec.height * spec.width * BLOCK
        self.out_plane = spec.out_height * spec.out_width * BLOCK
        self.wide = schedule.lanes * schedule.vectors
        self.groups = spec.out_channels // self.wide

    def out_index(self, group: Expr, vector: int, y: Expr, x: Expr) -> Expr:
        """Where vector `vector` of a tile's pixel lies in the output."""
        per_block = BLOCK // self.schedule.lanes
        index = group * self.schedule.vectors + vector
        at = (y * self.out_width + x) * BLOCK
        if per_block == 1:
            return index * self.out_plane + at
        return (
            tirx.floordiv(index, per_block) * self.out_plane
            + at
            + tirx.floormod(index, per_block) * self.schedule.lanes
        )

    def columns(self, x: int | Expr, width: int, s: int) -> list[int]:
        """The pixels of a tile for which column `s` of the kernel lies inside the image."""
        (_, step), (_, left), (_, spread) = self.spec.stride, self.spec.pad, self.spec.dilation
        if not isinstance(x, int):
            return list(range(width))
        return [p for p in range(width) if 0 <= (x + p) * step - left + s * spread < self.in_width]

    def each_column(self, x: int | Expr, width: int, column: Callable[[Expr, list[int]], None]) -> None:
        """`column(s, inside)` for every column of the kernel that a tile sees: a loop where all its pixels see all."""
        seen = [self.columns(x, width, s) for s in range(self.spec.kernel[1])]
        if len(seen) > 1 and all(len(inside) == width for inside in seen):
            with self.emitter.loop(len(seen), "s") as s:
                column(s, seen[0])
        else:
            for s, inside in enumerate(seen):
                if inside:
                    column(s, inside)

    def source(self, src0: Expr, group: Expr, block: Expr, iy: Expr, x: Expr) -> Expr:
        """Where the first column of a tile's first pixel lies in row `iy` of an input block."""
        spec, (outputs, inputs) = self.spec, self.share
        shift = 0
        if outputs < spec.out_channels:  # a share starts at its own input block
            which, last = tirx.floordiv(group, outputs // self.wide), spec.groups * spec.channels // inputs - 1
            # there may be outputs behind the last share: padding, that reads what it reads
            which = tirx.min(which, last) if (last + 1) * outputs < spec.out_channels else which
            shift = which * self.in_blocks
        column = iy * self.in_width + x * spec.stride[1] - spec.pad[1]
        at, parts = shift + block, self.parts
        place = at * self.in_plane
        if parts > 1:
            place = tirx.floordiv(at, parts) * self.in_plane + tirx.floormod(at, parts) * self.in_lanes
        return self.emitter.let(src0 + place + column * self.pixel, "base")

    def panel(self, group: Expr, block: Expr, r: Expr) -> Expr:
        """Where the weights of kernel row `r` begin, for a group of vectors and an input block."""
        rows, columns = self.spec.kernel
        taps = ((group * self.in_blocks + block) * rows + r) * columns
        return self.emitter.let(taps * (self.in_lanes * self.wide * self.depth), "panel")

    def tile(self, where: Tile) -> None:
        """All that is summed, and stored, of a tile."""
        em, spec, sch = self.emitter, self.spec, self.schedule
        lanes, vectors = sch.lanes, sch.vectors
        (src0, add0, dst0), group, y, x, width, blocks, turn = where
        acc = em.local(width * self.wide)
        last = blocks[1] == self.in_blocks

        def slot(p: int, v: int) -> int:
            return (p * vectors + v) * lanes

        for v in range(vectors):
            at = em.let(self.out_index(group, v, y, x), "at")
            start = em.let(load(em.buffers["bias"], (group * vectors + v) * lanes, lanes)) if blocks[0] == 0 else None
            for p in range(width):
                if start is None:
                    value = load(em.buffers["dst"], dst0 + at + p * BLOCK, lanes)
                elif spec.add:
                    value = start + em.read("add", add0 + at + p * BLOCK, lanes)
                else:
                    value = start
                em.store(acc, slot(p, v), value)

        # Of each pixel a vector of lanes, for instructions that multiply with one of them.
        near = em.local(width * lanes, name="near") if lanes == BY_LANE <= sch.unroll and not spec.planar else None

        def taps(block: Expr, r: Expr, iy: Expr) -> None:
            """All columns and lanes of one kernel row."""
            step, spread = spec.stride[1], spec.dilation[1]
            base, panel = self.source(src0, group, block, iy, x), self.panel(group, block, r)

            def weights(s: Expr, lane: Expr) -> list[Expr]:
                at = panel + (s * self.in_lanes + lane) * self.wide
                return [em.let(load(em.buffers["weight"], at + v * lanes, lanes), "w") for v in range(vectors)]

            def column_taps(s: Expr, inside: list[int], first: Expr, count: int) -> None:
                for lane in range(count if inside and near is None else 0):
                    w = weights(s, first + lane)
                    for p in inside:
                        at = base + (p * step + s * spread) * self.pixel + (first + lane) * self.lane
                        a = em.let(splat(load(em.buffers["src"], at), lanes), "a")
                        for v in range(vectors):
                            em.store(acc, slot(p, v), fma(a, w[v], load(acc, slot(p, v), lanes)))
                for few in range(0, 0 if near is None or not inside else count, lanes):
                    for p in inside:
                        at = base + (p * step + s * spread) * self.pixel + (first + few)
                        em.store(near, p * lanes, load(em.buffers["src"], at, lanes))
                    for lane in range(lanes):
                        for v, value in enumerate(weights(s, first + (few + lane))):
                            for p in inside:
                                total = load(acc, slot(p, v), lanes)
                                em.store(acc, slot(p, v), self.by_lane(near, p * lanes, lane, value, total))

            def lanes_of(columns: Sequence[tuple[Expr, list[int]]], unroll: int) -> None:
                if unroll == self.in_lanes:
                    for s, inside in columns:
                        column_taps(s, inside, 0, unroll)
                    return
                with em.loop(self.in_lanes // unroll, "lane") as i:
                    first = em.let(i * unroll, "first")
                    for s, inside in columns:
                        column_taps(s, inside, first, unroll)

            unroll = self.in_lanes if spec.planar else min(sch.unroll, self.in_lanes)
            columns = [(s, self.columns(x, width, s)) for s in range(spec.kernel[1])]
            if (lanes != WIDE_FEW and near is None) or len(columns) == 1:
                lanes_of(columns, unroll)
            elif all(len(inside) == width for _, inside in columns):
                with em.loop(len(columns), "s") as s:
                    lanes_of([(s, columns[0][1])], unroll)
            else:
                for column in columns:
                    if column[1]:
                        lanes_of([column], unroll if near is None else BY_LANE)

        with em.loop(blocks[1] - blocks[0], "block", blocks[0]) as b:
            self.fetch_ahead(group, b, turn)
            self.rows(y, lambda r, iy: taps(b, r, iy))
        for v in range(vectors):
            at = em.let(self.out_index(group, v, y, x), "at")
            for p in range(width):
                value = load(acc, slot(p, v), lanes)
                if last:
                    em.write("dst", dst0 + at + p * BLOCK, clamp(value, spec.activation))
                else:
                    em.store(em.buffers["dst"], dst0 + at + p * BLOCK, value)

    def by_lane(self, near: Any, at: int, lane: int, weight: Expr, total: Expr) -> Expr:
        """`total` and the products of a weight vector and lane `lane` of the vector at `at`."""
        multiply = getattr(self.schedule, "multiply", "")
        if not multiply:
            return fma(splat(load(near, at + lane), BY_LANE), weight, total)
        vector = load(near, at, BY_LANE)
        return self.emitter.inline(MULTIPLY[multiply], f"vmla{lane}", "float32x4", total, weight, vector)

    def fetch_ahead(self, group: Expr, block: Expr, turn: Expr) -> None:
        """Bring weights nearer before they are used: they come from memory once an inference.

        Where two groups' weights fit the second-level cache beside the inputs, each of a group's tiles fetches its
        share of the lines of the next group (after the last: of the next layer, whose weights follow in the blob).
        Otherwise the first tile fetches its own, a few input blocks ahead.
        """
        em, weight, fetch = self.emitter, self.emitter.buffers["weight"], self.schedule.fetch
        line = LINE_BYTES // self.itemsize
        size = math.prod(self.spec.kernel) * self.in_lanes * self.wide * self.depth  # of one input block
        if fetch == 0:
            return
        if fetch == NEXT_GROUP:
            turns = self.turns()
            start = em.let(((group + 1) * self.in_blocks + block) * size + turn * line, "ahead")
            for i in range(-(-size // (line * turns))):
                em.prefetch(weight, start + i * line * turns)
            return
        distance = -(-fetch * 1024 // (self.itemsize * size))
        with em.when(turn == 0):
            start = em.let((group * self.in_blocks + block + distance) * size, "ahead")
            with em.loop(size // line, "line") as i:
                em.prefetch(weight, start + i * line)

    def turns(self) -> int:
        """Tiles that use one group's weights."""
        return len(tile_widths(self.spec, self.schedule)) * (1 if self.spec.pointwise else self.out_height)

    def rows(self, y: Expr, body: Any) -> None:
        """Calls `body(r, iy)` for the kernel rows whose input row `iy` lies inside the image."""
        (step, _), (top, _), (spread, _), (count, _) = (
            self.spec.stride,
            self.spec.pad,
            self.spec.dilation,
            self.spec.kernel,
        )
        first = y * step - top
        lowest, highest = -top, (self.out_height - 1) * step - top + (count - 1) * spread
        if count == 1 and lowest >= 0 and highest < self.in_height:
            body(0, first)
            return
        em = self.emitter
        begin = em.let(tirx.max(0, tirx.floordiv(spread - 1 - first, spread)), "begin") if lowest < 0 else 0
        end = count
        if highest >= self.in_height:
            end = em.let(tirx.min(count, tirx.floordiv(self.in_height - 1 - first, spread) + 1), "end")
        with em.loop(end - begin, "r", begin) as r:
            body(r, first + r * spread)

    def row(self, image_: tuple[Expr, Expr, Expr], group: Expr, y: Expr, blocks: tuple[int, int]) -> None:
        """All tiles of a row; runs of equal tiles away from the edges are a loop."""
        widths = tile_widths(self.spec, self.schedule)
        turn = y * len(widths)
        for first, width, count in runs(widths, self.inner):
            if count == 1:
                self.tile(Tile(image_, group, y, first, width, blocks, turn))
            else:
                with self.emitter.loop(count, "t") as t:
                    x = self.emitter.let(first + t * width, "x")
                    self.tile(Tile(image_, group, y, x, width, blocks, turn + t))
            turn = turn + count

    def inner(self, x: int, width: int) -> bool:
        """No tap of this tile falls off the left or right edge."""
        return all(len(self.columns(x, width, s)) == width for s in range(self.spec.kernel[1]))

    def tiles(
        self, image_: tuple[Expr, Expr, Expr], group: Expr, first: Expr, end: Expr, blocks: tuple[int, int]
    ) -> None:
        """Tiles `first .. end` of a pointwise convolution."""
        self.each_tile(first, end, lambda x, width, t: self.tile(Tile(image_, group, 0, x, width, blocks, t)))

    def each_tile(self, first: Expr, end: Expr, body: Any) -> None:
        """Calls `body(x, width, t)` for tiles `first .. end` of a row, those of one width in a loop."""
        em, begin, column = self.emitter, 0, 0
        for width, alike in itertools.groupby(tile_widths(self.spec, self.schedule)):
            stop = begin + len(list(alike))
            start = em.let(tirx.max(first, begin), "start")
            with em.loop(tirx.max(tirx.min(end, stop) - start, 0), "t", start) as t:
                body(em.let(column + (t - begin) * width if begin else t * width, "x"), width, t)
            column += (stop - begin) * width
            begin = stop

    def emit(self) -> tirx.PrimFunc:
        """The whole kernel."""
        em, spec, sch = self.emitter, self.spec, self.schedule
        count = row_blocks(spec, sch)
        extent = len(tile_widths(spec, sch)) if spec.pointwise else self.out_height
        step = sch.k_block or self.in_blocks
        with em.units() as unit:
            rest = em.let(tirx.floormod(unit, self.groups * count), "rest") if spec.batch > 1 else unit
            n = em.let(tirx.floordiv(unit, self.groups * count), "n") if spec.batch > 1 else 0
            image_ = (n * spec.in_stride, n * spec.add_stride, n * spec.out_stride)
            if sch.rows_outer:
                block, group = em.let(tirx.floordiv(rest, self.groups)), em.let(tirx.floormod(rest, self.groups))
            else:
                group, block = em.let(tirx.floordiv(rest, count)), em.let(tirx.floormod(rest, count))
            first = em.let(block * sch.rows, "first")
            end = em.let(tirx.min(first + sch.rows, extent), "end")
            for start in range(0, self.in_blocks, step):
                blocks = (start, min(start + step, self.in_blocks))
                if spec.pointwise:
                    self.tiles(image_, group, first, end, blocks)
                else:
                    with em.loop(end - first, "y", first) as y:
                        self.row(image_, group, y, blocks)
        return em.finish()


def emit(spec: Conv, schedule: ConvSchedule, name: str) -> list[tirx.PrimFunc]:
    """The convolution as a TIR function of the emitter's C signature."""
    return [Direct(spec, schedule, Emitter(name, spec.pointers)).emit()]


def serves(spec: Conv, isa: Isa) -> str | None:
    """fp32 in blocks of 16; in larger ones where each has one pixel, which lies the same way. Beside fp16 in vectors,
    or bfloat16 in squares, what it adds and what it makes may be that.
    """
    one = spec.height == spec.width == spec.out_height == spec.out_width == 1
    beside = {spec.out_element, *([spec.add_element] if spec.add else [])}
    beside -= {element for need, element in ((HALF_VECTORS, HALF), (BRAIN_SQUARES, BRAIN)) if isa.has(need)}
    if other := {spec.in_element, *beside} - {"float32", *([WIDE] if one else [])}:
        return of_vectors(spec, isa) or f"vectors multiply float32, and it has {', '.join(sorted(other))}"
    return of_vectors(spec, isa)


def features(spec: Conv, schedule: ConvSchedule, threads: int) -> list[float]:
    """What the machine will notice of a schedule, on scales where a step of one matters."""
    vectors, row = schedule.vectors, image(spec)[3]
    widths = tile_widths(spec, schedule)
    accumulators = max(widths) * vectors
    inputs = share(spec, schedule.lanes).inputs
    group_kib = 4 * vectors * schedule.lanes * inputs * math.prod(spec.kernel) / 1024
    count = units(spec, schedule)
    idle = math.ceil(count / threads) * threads / count
    blocks = 1 if spec.planar else inputs // BLOCK
    passes = 1.0 if not schedule.k_block else blocks / schedule.k_block
    own = schedule.fetch > 0
    return [
        4 * math.log2(cycles(widths, vectors) / (vectors * row / 2)),
        accumulators / 8,
        max(0, accumulators - MOST_OF_MANY) / 4,
        4.0 / max(widths),
        2.0 / vectors,
        math.log2(group_kib) / 2,
        math.log2(schedule.rows) / 2,
        math.log2(count / threads) / 2,
        4 * math.log2(idle),
        float(schedule.rows_outer),
        float(schedule.rows_outer) * math.log2(group_kib) / 4,
        math.log2(schedule.unroll),
        math.log2(passes),
        float(schedule.fetch == NEXT_GROUP),
        float(schedule.fetch == NEXT_GROUP) * math.log2(group_kib) / 4,
        float(own),
        math.log2(schedule.fetch / 8) if own else 0.0,
    ]


CONV: Family[Conv, ConvSchedule] = Family(
    "vector.conv",
    Conv,
    serves,
    choose,
    units,
    emit,
    pack_weight,
    space,
    features,
    layout=lambda schedule: schedule.vectors,
    repacked=lambda spec, _isa, schedule, vectors: repacked(spec, schedule, vectors),
    version=2,
)
