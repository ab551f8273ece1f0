"""Convolution with x86's matrix tiles (AMX): bfloat16 in, sums in fp32.

A tile register holds 16 rows of 64 bytes. A row of an input tile is one pixel's 32 channels as they lie in memory, so a
tile is loaded with the distance between pixels as its stride, whatever the convolution's stride; a weight tile holds 16
output channels of 16 pairs of input channels, packed in this order at export. One ``tdpbf16ps`` is 16 pixels x 16
outputs x 32 inputs; of pairs of bfloat16 (`elements.PAIR`) it takes three. Sums stay in registers over all of the
depth: 1 tile of pixels x 2 of outputs, or 2 x 2, or 1 x 4.

All tiles of a kernel have the same number of rows: the last one of a row of pixels is moved back until it ends with it,
and its first rows, which another tile has done, are not stored.

int8 (``tdpbusd``) is the same with 64 channels in a block and quads of them in a weight tile's row.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import tirx

from ..dots import TDPBF16PS
from ..elements import BF16, PAIR, bfloat16, element_of
from ..emit import Emitter, Expr, clamp, load
from ..family import Family
from ..isa import Isa
from ..spec import Conv, Output, pointer_of
from .layout import LANES, lines, zero_frame

ROWS = 16
"""Rows of a tile; fp32 in one."""

TILE = ROWS * ROWS
"""fp32 in a tile of sums, pairs of bfloat16 in one of weights."""

NEXT_GROUP = -1
"""`TileSchedule.fetch` of kernels that fetch the next outputs' weights, each turn its share."""

AHEAD_KIB = 8
"""How far ahead of themselves kernels fetch weights that do not fetch the next outputs'."""

STAYING = 1 << 20
"""Bytes of weights that stay in a second-level cache while pixels go by; half as many where those lie in k rows."""

UNIT_MACS = 4_000_000
"""Multiply-adds of a work unit: few microseconds, and many units a layer."""

LEAST_UNITS = 16
"""Work units of a layer that is so small that they would be fewer: one for each of 16 threads."""


REGISTER_TILES = ((2, 1), (1, 2), (1, 1))
"""Tiles of pixels by blocks of outputs whose sums fit the eight tile registers, beside operands."""

PRODUCTS: dict[str, tuple[tuple[int, int], ...]] = {BF16: ((0, 0),), PAIR: ((0, 1), (0, 0), (1, 0))}
"""By the element: which half of the inputs (0 is the high one) meets which of the weights, in this order."""


@dataclass(frozen=True)
class TileSchedule:
    """How a convolution on matrix tiles is cut.

    Attributes:
        tiles: tiles of pixels done at once.
        blocks: blocks of 32 outputs done at once.
        run: turns (of `tiles` tiles each) in a work unit.
        rows_outer: units run over the outputs first, and over the rows of pixels after that; else the other way round.
        fetch: which weights are brought into the second-level cache ahead of their use: -1 the next outputs', 0 none, n
            those n KiB ahead.
    """

    tiles: int
    blocks: int
    run: int
    rows_outer: bool = False
    fetch: int = NEXT_GROUP


@dataclass(frozen=True)
class Rows:
    """How output pixels are cut into tiles: `count` tiles of `rows` pixels in each of `lines` lines of `width`.

    Attributes:
        pitch: where it is not 0, all of the image is one line, in which a row of it follows the one above after so many
            pixels: those beyond the image's own are computed from the input's next columns, and dropped.
    """

    lines: int
    width: int
    count: int
    rows: int
    pitch: int = 0

    @property
    def tiles(self) -> int:
        """All tiles of an image."""
        return self.lines * self.count


def rows_of(spec: Conv) -> Rows:
    """A pointwise convolution sees its image as one line. So may others, where those are fewer tiles: a tile takes
    nearly as long with 9 rows as with 16.
    """
    if spec.pointwise:
        return _cut(1, spec.out_height * spec.out_width)
    cut = _cut(spec.out_height, spec.out_width)
    pitch, uneven = divmod(spec.stride[0] * spec.width, spec.stride[1])
    if spec.planar or uneven:
        return cut
    whole = _cut(1, (spec.out_height - 1) * pitch + spec.out_width)
    return replace(whole, pitch=pitch) if whole.tiles < cut.tiles else cut


def _cut(lines: int, width: int) -> Rows:
    count = -(-width // ROWS)
    return Rows(lines, width, count, -(-width // count))


def choose(spec: Conv, _isa: Isa) -> TileSchedule:
    """1 x 2 tiles, whose five registers leave some to the neighbour on the same core (docs/perf/cpu-fp32-tiles.md)."""
    deep = math.prod(spec.depth) * LANES
    turn = ROWS * LANES * deep * len(PRODUCTS[spec.in_element])
    most = max(1, rows_of(spec).tiles * spec.batch * spec.out_channels // (LANES * LEAST_UNITS))
    schedule = TileSchedule(1, 1, max(1, min(rows_of(spec).tiles, most, round(UNIT_MACS / turn))))
    weights, pixels = (2 * spec.halves * count for count in (spec.out_channels * deep, read_of(spec)))
    if spec.out_channels > LANES and weights < pixels and weights <= STAYING >> (not spec.pointwise):
        return replace(schedule, rows_outer=True, fetch=AHEAD_KIB)
    return schedule


def read_of(spec: Conv) -> int:
    """Values of an image that are read."""
    return spec.height * spec.width * spec.channels * spec.groups


def space(spec: Conv, _isa: Isa) -> Iterator[tuple[TileSchedule, dict[str, tuple[int, ...]]]]:
    """The schedules worth a measurement: each register tile, with the values that the other knobs may take."""
    total = rows_of(spec).tiles
    for tiles, blocks in REGISTER_TILES:
        if tiles <= total and spec.span // LANES % blocks == 0:
            turns = -(-total // tiles)
            runs = sorted({-(-turns // parts) for parts in (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)})
            knobs = {"run": tuple(runs), "rows_outer": (False, True), "fetch": (NEXT_GROUP, 0, 4, AHEAD_KIB, 16)}
            yield TileSchedule(tiles, blocks, runs[-1]), knobs


def _runs(spec: Conv, schedule: TileSchedule) -> int:
    return math.ceil(math.ceil(rows_of(spec).tiles / schedule.tiles) / schedule.run)


def units(spec: Conv, schedule: TileSchedule) -> int:
    """Work units of the kernel."""
    return spec.batch * (spec.out_channels // (LANES * schedule.blocks)) * _runs(spec, schedule)


def pack_weight(weight: np.ndarray, spec: Conv, schedule: TileSchedule) -> np.ndarray:
    """`[O, I, r, s]` (physical channels) to bfloat16 (as uint16) `[O/32][depth][2][halves][pair][16][2]`."""
    out, channels, rows, columns = weight.shape
    if spec.planar:
        taps = spec.depth[2]
        line = np.zeros((out, rows, taps * LANES), np.float32)
        slots = np.zeros((out, rows, spec.reach, spec.channels), np.float32)
        slots[:, :, :: spec.dilation[1], :channels] = weight.transpose(0, 2, 3, 1)
        line[..., : spec.reach * spec.channels] = slots.reshape(out, rows, -1)
        ordered = line.reshape(out, rows * taps, LANES)
    else:
        split = weight.reshape(out, channels // LANES, LANES, rows, columns)
        ordered = split.transpose(0, 1, 3, 4, 2).reshape(out, -1, LANES)
    panel = ordered.reshape(out // LANES, 2, ROWS, -1, ROWS, 2).transpose(0, 3, 1, 4, 2, 5)
    high = bfloat16(panel)
    if spec.halves == 1:
        return high
    rest = panel - (high.astype(np.uint32) << 16).view(np.float32)
    return np.ascontiguousarray(np.stack([high, bfloat16(rest)], axis=3))


class _Tiles:
    """The state that the parts of one kernel's code share."""

    def __init__(self, spec: Conv, schedule: TileSchedule, name: str) -> None:
        self.spec, self.schedule = spec, schedule
        self.em = Emitter(name, spec.pointers)
        self.rows = rows_of(spec)
        self.blocks, self.kernel_rows, self.taps = spec.depth
        self.near = element_of(spec.in_element).cell
        self.pixel = spec.channels if spec.planar else self.near  # halves from one input pixel to the next
        self.line = -(-spec.width * self.pixel // LANES) * LANES
        self.low = (spec.height + 1) * self.line if spec.planar else LANES  # from high halves to low ones
        ends = itertools.accumulate(output.channels // LANES for output in spec.outputs)
        self.goals = [_Goal(pointer_of(i), o, end - o.channels // LANES, end, spec.out_height, spec.out_width)
                      for i, (o, end) in enumerate(zip(spec.outputs, ends, strict=True))]  # fmt: skip
        self.turns = math.ceil(self.rows.tiles / schedule.tiles)
        self.step = 2 * spec.halves * 2 * TILE  # halves of weights that 32 inputs have for a block of outputs
        self.panel = self.blocks * self.kernel_rows * self.taps * self.step

    # -- instructions ----------------------------------------------------------------------------------------------
    def op(self, name: str, *args: Any) -> None:
        """One AMX instruction."""
        self.em.run(tirx.call_llvm_intrin("void", f"llvm.x86.{name}", *args))

    def load_tile(self, tile: int, buffer: Any, index: Expr, stride: int) -> None:
        """Rows of 64 bytes, `stride` bytes apart."""
        address = tirx.address_of(load(buffer, index))
        self.op("tileloadd64", _tile(tile), address, tirx.const(stride, "int64"))

    def configure(self) -> None:
        """Sums and inputs have the kernel's rows, weights all 16."""
        em = self.em
        shape = em.local(16, "uint32", "shape")
        sums = self.schedule.tiles * 2 * self.schedule.blocks
        height = [ROWS if tile in self.registers(sums)[1] else self.rows.rows for tile in range(8)]
        em.store(shape, 0, _words([1, *[0] * 3]))
        em.store(shape, 4, _words([64 | 64 << 16] * 4))
        em.store(shape, 8, _words([0] * 4))
        em.store(shape, 12, _words([sum(height[w * 4 + b] << 8 * b for b in range(4)) for w in range(2)] + [0, 0]))
        self.op("ldtilecfg", tirx.address_of(load(shape, 0)))

    def registers(self, sums: int) -> tuple[list[int], list[int]]:
        """Tile registers for inputs and for weights, beside the sums."""
        inputs = self.schedule.tiles
        return list(range(sums, sums + inputs)), list(range(sums + inputs, 8))

    # -- the parts of a kernel -------------------------------------------------------------------------------------
    def place(self, index: Expr) -> tuple[Expr, Expr, Expr]:
        """Line and column of the first pixel of a tile, and how many of its pixels another tile has done."""
        em, rows = self.em, self.rows
        if rows.lines == 1:
            line, turn = 0, index
        else:
            line, turn = em.let(tirx.floordiv(index, rows.count), "line"), em.let(tirx.floormod(index, rows.count), "t")
        if rows.count * rows.rows == rows.width:
            return line, em.let(turn * rows.rows, "x"), 0
        x = em.let(tirx.min(turn * rows.rows, rows.width - rows.rows), "x")
        return line, x, em.let(turn * rows.rows - x, "skip")

    def turn(self, number: Expr, tiles: int, group: Expr, bases: tuple[Expr, Expr, Expr]) -> None:
        """Turn `number` of a group: `tiles` tiles of pixels, all of the depth, and the epilogue."""
        em, spec, sch = self.em, self.spec, self.schedule
        src, weight = em.buffers["src"], em.buffers["weight"]
        outputs = 2 * sch.blocks
        inputs, weights = self.registers(sch.tiles * outputs)
        places = [self.place(em.let(number * sch.tiles + i, "tile")) for i in range(tiles)]
        starts = []
        for line, x, _ in places:
            at = line * (spec.stride[0] * self.line) + x * (spec.stride[1] * self.pixel)
            starts.append(em.let(bases[0] + at, "start"))
        for i in range(tiles):
            for o in range(outputs):
                self.load_tile(i * outputs + o, em.buffers["bias"], group * (outputs * ROWS) + o * ROWS, 0)
        panel = em.let(group * (sch.blocks * self.panel), "panel")
        per_group = spec.out_channels // spec.groups // (LANES * sch.blocks)
        shift = em.let(tirx.floordiv(group, per_group) * self.blocks, "shift") if spec.groups > 1 else 0
        plane, stride = spec.height * self.line, 2 * self.pixel * spec.stride[1]

        held: dict[int, tuple[int, int]] = {}  # what lies in the tile registers

        def step(block: Expr, r: Expr, s: int) -> None:
            column = s * LANES if spec.planar else s * spec.dilation[1] * self.near
            offset = em.let((shift + block) * plane + r * (spec.dilation[0] * self.line) + column, "offset")
            index = (block * self.kernel_rows + r) * self.taps + s
            at = em.let(panel + index * self.step, "at")
            self.fetch(panel, index, number)
            for theirs, half in PRODUCTS[spec.in_element]:
                for first in range(0, outputs, len(weights)):
                    # all loads before all products: a neighbour on the same core, if it multiplies tiles too, goes
                    # ahead of every product that follows a load
                    some = range(first, min(first + len(weights), outputs))
                    for i in range(tiles):
                        if held.get(inputs[i]) != (i, theirs):
                            self.load_tile(inputs[i], src, starts[i] + offset + theirs * self.low, stride)
                            held[inputs[i]] = (i, theirs)
                    for o in some:
                        if held.get(weights[o - first]) != (o, half):
                            column = (o % 2) * (self.step // 2) + half * (2 * TILE)
                            self.load_tile(weights[o - first], weight, at + (o // 2) * self.panel + column, 64)
                            held[weights[o - first]] = (o, half)
                    for o in some:
                        for i in range(tiles):
                            operands = (i * outputs + o, inputs[i], weights[o - first])
                            self.op(TDPBF16PS.name, *map(_tile, operands))
            held.clear()

        with em.loop(self.blocks, "block") as b:
            if self.kernel_rows == 1:
                for s in range(self.taps):
                    step(b, 0, s)
            else:
                with em.loop(self.kernel_rows, "r") as r:
                    for s in range(self.taps):
                        step(b, r, s)
        for i in range(tiles * outputs):
            address = tirx.address_of(load(self.scratch, self.sums + i * TILE))
            self.op("tilestored64", _tile(i), address, tirx.const(4 * ROWS, "int64"))
        for goal in self.goals_of(group):
            for i, place in enumerate(places):
                for y, column, p in self.pixels(*place):
                    self.finish(goal, y, column, group, bases, self.sums + i * outputs * TILE + p * ROWS)

    def fetch(self, panel: Expr, index: Expr, number: Expr) -> None:
        """Bring weights nearer, at step `index` of turn `number`: they come from memory once an inference."""
        em, weight, fetch = self.em, self.em.buffers["weight"], self.schedule.fetch
        if fetch == NEXT_GROUP:
            # each turn its share; after the last group: of the next layer's, which follow in the blob
            size = self.schedule.blocks * self.panel
            steps = self.blocks * self.kernel_rows * self.taps
            lines = -(-size // (LANES * self.turns * steps))
            ahead = em.let(panel + size + (number * steps + index) * (lines * LANES), "ahead")
            for i in range(lines):
                em.prefetch(weight, ahead + i * LANES)
        elif fetch:
            with em.when(number == 0):
                ahead = em.let(panel + index * self.step + fetch * 512, "ahead")
                for block in range(self.schedule.blocks):
                    for line in range(0, self.step, LANES):
                        em.prefetch(weight, ahead + block * self.panel + line)

    def pixels(self, line: Expr, x: Expr, skip: Expr) -> Iterator[tuple[Expr, Expr, Expr]]:
        """Loops over the pixels of a tile that are its own: line, column, and row of the tile."""
        em, pitch = self.em, self.rows.pitch
        if not pitch:
            with em.loop(self.rows.rows - skip, "p", skip) as p:
                yield line, em.let(x + p, "column"), p
            return
        first, end = em.let(x + skip, "first"), em.let(x + self.rows.rows, "end")
        top = em.let(tirx.floordiv(first, pitch), "top")
        with em.loop(tirx.floordiv(end - 1, pitch) - top + 1, "y", top) as y:
            start = em.let(y * pitch, "start")
            begin = em.let(tirx.max(first - start, 0), "begin")
            count = em.let(tirx.max(tirx.min(end - start, self.spec.out_width) - begin, 0), "count")
            with em.loop(count, "column", begin) as column:
                yield y, column, start + column - x

    def goals_of(self, group: Expr) -> Iterator[_Goal]:
        """Where a group of outputs goes: what is emitted for each is done only for its own groups."""
        if len(self.goals) == 1:
            yield self.goals[0]
            return
        for goal in self.goals:
            first, end = goal.first // self.schedule.blocks, goal.end // self.schedule.blocks
            with self.em.when(tirx.all(group >= first, group < end)):
                yield goal

    def finish(self, goal: _Goal, line: Expr, x: Expr, group: Expr, bases: tuple[Expr, Expr, Expr], row: Expr) -> None:
        """Epilogue of one pixel: its sums are at `row` of the scratch, a tile apart."""
        em, spec, sch = self.em, self.spec, self.schedule
        top, left, _, _ = goal.output.frame
        pixel = line * spec.out_width + x
        framed = pixel
        if any(goal.output.frame):
            if spec.pointwise:
                line = em.let(tirx.floordiv(x, spec.out_width), "y")
                x = em.let(x - line * spec.out_width, "x")
            framed = em.let((line + top) * goal.width + left + x, "framed")
        for b in range(sch.blocks):
            block = group * sch.blocks + b
            values = []
            for half in range(2):
                value = load(self.scratch, row + (2 * b + half) * TILE, ROWS)
                if spec.add:
                    cell = element_of(spec.add_element).cell
                    at = bases[1] + (block * (spec.out_height * spec.out_width) + pixel) * cell + half * ROWS
                    value = value + em.read("add", at, ROWS)
                values.append(clamp(value, goal.output.activation))
            em.write(goal.pointer, goal.at(bases[2], block, framed), *values)

    def emit(self) -> tirx.PrimFunc:
        """The whole kernel."""
        em, spec, sch = self.em, self.spec, self.schedule
        runs, groups = _runs(spec, sch), spec.out_channels // (LANES * sch.blocks)
        self.configure()
        self.scratch, self.sums = lines(em, sch.tiles * 2 * sch.blocks * TILE, "scratch")
        with em.units() as unit:
            n = em.let(tirx.floordiv(unit, groups * runs), "n") if spec.batch > 1 else 0
            rest = em.let(tirx.floormod(unit, groups * runs), "rest") if spec.batch > 1 else unit
            inner = groups if sch.rows_outer else runs
            outer, within = em.let(tirx.floordiv(rest, inner), "outer"), em.let(tirx.floormod(rest, inner), "within")
            group, run = (within, outer) if sch.rows_outer else (outer, within)
            bases = (n * spec.in_stride, n * spec.add_stride, n)
            if any(any(output.frame) for output in spec.outputs):
                with em.when(run == 0):
                    for goal in self.goals_of(group):
                        for b in range(sch.blocks if any(goal.output.frame) else 0):
                            at = em.let(goal.at(n, group * sch.blocks + b, 0), "at")
                            zero_frame(em, at, spec.out_height, spec.out_width, goal.output.frame, goal.pointer)
            whole, odd = divmod(self.rows.tiles, sch.tiles)
            first = em.let(run * sch.run, "first")
            end = em.let(tirx.min(first + sch.run, whole), "end")
            with em.loop(tirx.max(end - first, 0), "turn", first) as turn:
                self.turn(turn, sch.tiles, group, bases)
            if odd:
                with em.when(run == runs - 1):
                    self.turn(whole, odd, group, bases)
        self.op("tilerelease")
        return em.finish()


@dataclass(frozen=True)
class _Goal:
    """An output: its pointer, which of the kernel's blocks of outputs it takes, and the map that each of them is."""

    pointer: str
    output: Output
    first: int
    end: int
    rows: int
    columns: int

    @property
    def width(self) -> int:
        """Pixels of a line, with the frame."""
        return self.output.frame[1] + self.columns + self.output.frame[3]

    def at(self, n: Expr, block: Expr, pixel: Expr) -> Expr:
        """Index of a pixel of a block."""
        plane = (self.output.frame[0] + self.rows + self.output.frame[2]) * self.width
        return (
            n * self.output.out_stride
            + ((block - self.first) * plane + pixel) * element_of(self.output.out_element).cell
        )


def _tile(number: int) -> Expr:
    return tirx.const(number, "int8")


def _words(values: list[int]) -> Expr:
    """A vector of constants; LLVM makes one of it."""
    return tirx.Shuffle([tirx.const(v, "uint32") for v in values], list(range(len(values))))


def emit(spec: Conv, schedule: TileSchedule, name: str) -> list[tirx.PrimFunc]:
    """The convolution as a TIR function of the emitter's C signature."""
    return [_Tiles(spec, schedule, name).emit()]


def serves(spec: Conv, isa: Isa) -> str | None:
    """What the instruction set has tiles of, without padding."""
    if spec.in_element not in isa.tiled:
        return f"{isa.name} has no tiles of {spec.in_element}"
    return "what it reads around its image does not lie in memory" if spec.pad != (0, 0) else None


def features(spec: Conv, schedule: TileSchedule, threads: int) -> list[float]:
    """What the machine will notice of a schedule, on scales where a step of one matters."""
    total = rows_of(spec).tiles
    turns = math.ceil(total / schedule.tiles)
    group_kib = 2 * spec.halves * schedule.blocks * math.prod(spec.depth) * LANES**2 / 1024
    weights_kib = group_kib * spec.out_channels / (schedule.blocks * LANES)
    pixels_kib = 2 * spec.halves * read_of(spec) / 1024
    count = units(spec, schedule)
    idle = math.ceil(count / threads) * threads / count
    own, outer = schedule.fetch > 0, float(schedule.rows_outer)
    return [
        4 * math.log2(turns * schedule.tiles / total),
        4.0 / schedule.tiles,
        2.0 / schedule.blocks,
        math.log2(schedule.run) / 2,
        math.log2(count / threads) / 2,
        4 * math.log2(idle),
        outer,
        outer * math.log2(weights_kib / 512) / 2,
        outer * math.log2(weights_kib / pixels_kib) / 2,
        float(schedule.fetch == NEXT_GROUP),
        float(schedule.fetch == NEXT_GROUP) * math.log2(turns) / 2,
        float(own),
        float(own) * math.log2(group_kib) / 4,
        math.log2(schedule.fetch / AHEAD_KIB) if own else 0.0,
    ]


CONV: Family[Conv, TileSchedule] = Family(
    "matrix.conv", Conv, serves, choose, units, emit, pack_weight, space, features
)
