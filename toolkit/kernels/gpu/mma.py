"""Convolution on a GPU's tensor cores: an implicit matrix product of pixels and channels, of binary16, bfloat16 or fp32
summed in fp32, or of bytes summed in int32 (`ROWS`).

A block of threads computes `bm` pixels of `bn` output channels; each of its warps a rectangle of `wm` by `wn` of them
in registers. A step is 64 bytes deep: so many pairs of a kernel tap and a block of 16 channels as fit, one of fp32,
two of 16 bits or four of bytes. Copies into shared memory run `stages - 1` steps ahead (cp.async), and a pixel whose
tap falls off the image is copied as zeros; the first steps' weights are copied before earlier launches are waited
for. A row of shared memory is one pixel's, or one output channel's, 64 bytes in four chunks of 16; chunk `c` of row
`r` lies at place `c ^ (r / 2 % 4)`, so that the eight rows that ldmatrix takes at once hit every bank once. Of the
network's own input in words of four bytes a pixel, a chunk is four taps, which are copied one by one.

Weights are packed as `[tile of output channels][step][bn][64 bytes]`. Maps too small to fill a GPU are cut along the
depth (`gpu.parts`). Fragments are PTX's (mma.m16n8k16 and m16n8k32, ldmatrix.x4): with `g = lane / 4` and `t = lane %
4`, register `i` of the sums is row `g + 8 (i / 2)` and column `2 t + i % 2`. Which channel a column is, is free: a
warp's rows of weights are packed so that a thread's columns in all of its `wn / 8` tiles are neighbours (`_columns`),
eight channels of fp16 that it stores at once, and not two.

fp32 is split, or rounded to TF32, in registers. ldmatrix gives a lane the numbers `t, 4 + t, 8 + t, 12 + t` of a row of
16, and mma.m16n8k16 takes from it those that are called `2 t, 2 t + 1, 8 + 2 t, 9 + 2 t`: the order in which products
are summed is free, so weights are packed in it (`_ORDER`), the 16 high halves of a row and then the 16 low ones.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import tirx

from ..cards import Card
from ..elements import BLOCK, BRAIN, BYTE, HALF, PAIRS, TF32, bfloat16, element_of, kept
from ..emit import Expr, load
from ..family import Family, of_gpu
from ..isa import Isa
from ..spec import Conv
from . import parts
from .conv import Shape, block_of, extents, features, memory_cycles, orders, program, tiles, units
from .emit import GpuEmitter, both, div, inside, mod
from .epilogue import finish
from .parts import MEETING, splits

LINE, CHUNK = 64, 16
"""Bytes of a row of shared memory, which is how deep a step is, and of what a thread copies at once."""

CHUNKS = LINE // CHUNK

WORD = 4
"""Bytes of a pixel of the network's own input."""

WARP = 32


@dataclass(frozen=True)
class Row:
    """What tensor cores multiply.

    Attributes:
        call: the instruction, as `targets.cuda_source` names it; each adds up 32 bytes, of pairs half of 64.
        sums: their type.
        speed: products of a multiprocessor in a cycle, times those of 16 bits.
    """

    call: str
    sums: str
    speed: float = 1.0


ROWS = {
    HALF: Row("id_mma_half", "float32"),
    BRAIN: Row("id_mma_brain", "float32"),
    BYTE: Row("id_mma_bytes", "int32", 2.0),
    PAIRS: Row("id_mma_brain", "float32", 1 / 3),
    TF32: Row("id_mma_tf32", "float32", 0.5),
}
"""By what the input is kept in; of fp32 by how it is multiplied."""

_ORDER = [8 * half + 4 * second + t for half in range(2) for t in range(4) for second in range(2)]
"""Which of 16 numbers mma.m16n8k16 takes for each of its own."""


def itemsize(spec: Conv) -> int:
    """Bytes of a number of the input."""
    return np.dtype(element_of(spec.in_element).stored).itemsize


@dataclass(frozen=True)
class MmaSchedule:
    """The knobs of the template.

    Attributes:
        wm, wn: pixels and output channels of a warp; multiples of 16.
        ym, xn: warps along pixels and along output channels.
        stages: steps in shared memory at a time.
        split: parts that the depth is cut into.
        across: blocks that follow each other share pixels, and not weights.
        by: how fp32 is multiplied; empty for all else.
    """

    wm: int
    wn: int
    ym: int
    xn: int
    stages: int = 3
    split: int = 1
    across: bool = False
    by: str = ""

    @property
    def bm(self) -> int:
        """Pixels of a block."""
        return self.wm * self.ym

    @property
    def bn(self) -> int:
        """Output channels of a block."""
        return self.wn * self.xn

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return WARP * self.ym * self.xn

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block."""
        return LINE * (self.bm + self.bn) * self.stages


TILES = (
    MmaSchedule(64, 32, 2, 4),  # 128 x 128
    MmaSchedule(64, 32, 2, 2),  # 128 x 64
    MmaSchedule(32, 32, 2, 2),  # 64 x 64
    MmaSchedule(32, 32, 2, 1),  # 64 x 32
    MmaSchedule(32, 16, 2, 1),  # 64 x 16
    MmaSchedule(16, 32, 2, 2),  # 32 x 64
    MmaSchedule(16, 16, 2, 2),  # 32 x 32
)

NARROW_TILES = (MmaSchedule(32, 32, 4, 4), MmaSchedule(32, 32, 4, 2), *TILES[2:])
"""Of bytes, whose epilogue needs more registers, and of pairs, which are two of each factor: the largest are shared by
twice as many warps.
"""


def steps(spec: Conv) -> int:
    """Of the whole depth."""
    return -(-Shape.of(spec).steps * BLOCK * itemsize(spec) // LINE)


def neighbours(schedule: MmaSchedule) -> int:
    """Output channels beside each other that a thread has of each of its pixels: two of each tile of eight."""
    return schedule.wn // 4


def _columns(schedule: MmaSchedule) -> list[int]:
    """The channel, in a block's tile, of each row of packed weights: row `8 j + 2 t + k` of a warp's rectangle is the
    channel `2 j + k` of thread `t`'s.
    """
    tiles_of = schedule.wn // 8
    own = [neighbours(schedule) * t + 2 * j + k for j in range(tiles_of) for t in range(4) for k in range(2)]
    return [schedule.wn * warp + channel for warp in range(schedule.xn) for channel in own]


def row_of(spec: Conv, schedule: MmaSchedule) -> Row:
    """What is multiplied, and how."""
    return ROWS[schedule.by or spec.in_element]


# -- choice -----------------------------------------------------------------------------------------------------------
_BYTES_A_CYCLE = 24.0  # that each multiprocessor gets from the second-level cache
_LATENCY = 600.0  # cycles from a copy to its arrival, shared by the stages that wait
_LAUNCH = 3000.0
_STAGES = (2, 3, 4, 6)
MOST_SHARED = 48 << 10  # bytes of shared memory that a kernel may declare
_SPLIT_THREADS = 256  # with more, what adds up the parts does not fit the registers


def choose(spec: Conv, card: Card, layout: tuple[int, int] | None = None, by: str = "") -> MmaSchedule:
    """The tile and the split that a model of a GPU takes to be fastest. Not measured: see docs/cuda.md.

    Args:
        layout: what weights are packed for (`_layout`); None for any.
        by: how fp32 is multiplied.
    """
    cut = NARROW_TILES if spec.quantized or by == PAIRS else TILES
    candidates = [
        replace(tile, split=split, by=by)
        for tile in cut
        if layout in (None, _layout(tile))
        for split in _splits(spec, tile)
    ]
    return min(candidates, key=lambda schedule: cycles(spec, schedule, card))


def _layout(schedule: MmaSchedule) -> tuple[int, int]:
    """What of a schedule the packing of weights depends on: the output channels of a block and of a warp."""
    return schedule.bn, schedule.wn


def _splits(spec: Conv, tile: MmaSchedule) -> tuple[int, ...]:
    return splits(steps(spec)) if tile.threads <= _SPLIT_THREADS else (1,)


def space(spec: Conv, isa: Isa) -> Iterator[tuple[MmaSchedule, dict[str, tuple[int, ...]]]]:
    """Every tile that the registers hold, with every split and order, and as many stages as fit."""
    by = _by(spec, isa)
    narrow = spec.quantized or by == PAIRS
    for tile in dict.fromkeys(NARROW_TILES if narrow else (*TILES, *NARROW_TILES)):
        stages = tuple(n for n in _STAGES if replace(tile, stages=n).shared_bytes <= MOST_SHARED)
        yield (
            replace(tile, by=by),
            {"stages": stages, "split": _splits(spec, tile), "across": orders(spec, tile)},
        )


def _features(spec: Conv, schedule: MmaSchedule, multiprocessors: int) -> list[float]:
    """As of multiply-adds, with the stages and a warp's tile."""
    own = [float(schedule.stages), math.log2(schedule.wm), math.log2(schedule.wn)]
    return [*features(spec, schedule, multiprocessors), *own]


def cycles(spec: Conv, schedule: MmaSchedule, card: Card) -> float:
    """How long the convolution takes in the model: blocks go round the multiprocessors, a few at a time."""
    blocks, depth = math.prod(extents(spec, schedule)), -(-steps(spec) // schedule.split)
    each = -(-blocks // card.multiprocessors)
    resident = min(each, card.resident(schedule.threads, schedule.shared_bytes))
    products = schedule.bm * schedule.bn * LINE / itemsize(spec) / (card.products * row_of(spec, schedule).speed)
    copies = LINE * (schedule.bm + schedule.bn) / _BYTES_A_CYCLE
    step = max(resident * max(products, copies), _LATENCY / (schedule.stages - 1))
    total = max(-(-each // resident) * (depth + schedule.stages) * step, memory_cycles(spec, card)) + _LAUNCH
    if schedule.split > 1:
        sums = spec.batch * spec.out_channels * spec.out_height * spec.out_width * 4 * schedule.split
        total += MEETING + 2 * sums / (_BYTES_A_CYCLE * card.multiprocessors)
    return total


# -- geometry ---------------------------------------------------------------------------------------------------------
def pack_weight(weight: np.ndarray, spec: Conv, schedule: MmaSchedule) -> np.ndarray:
    """`[O, I, r, s]` (physical channels, one group's I) to `[group][tile][step][bn][64 bytes]`, filled up with
    zeros; the rows of a tile in the order of `_columns`.
    """
    out, channels, rows, columns = weight.shape
    across, group, depth = tiles(spec, schedule), out // spec.groups, steps(spec)
    block = channels if spec.planar else BLOCK
    panel = weight.reshape(out, channels // block, block, rows, columns).transpose(0, 1, 3, 4, 2).reshape(out, -1)
    size = LINE // itemsize(spec)
    numbers = panel.astype(spec.weight_element) if spec.quantized else kept(panel.astype(np.float32), spec.in_element)
    wide = np.zeros((spec.groups, across * schedule.bn, depth * size), numbers.dtype)
    wide[:, :group, : panel.shape[1]] = numbers.reshape(spec.groups, group, -1)
    rows_of = wide.reshape(spec.groups * across, schedule.bn, depth, size)[:, _columns(schedule)]
    packed = np.ascontiguousarray(rows_of.transpose(0, 2, 1, 3))
    return {PAIRS: _pairs, TF32: _tf32}[schedule.by](packed) if schedule.by else packed


def _pairs(rows: np.ndarray) -> np.ndarray:
    """fp32 `[..., 16]` as bfloat16: the high halves in `_ORDER`, then the low ones, in as many bytes."""
    high = bfloat16(rows[..., _ORDER])
    low = bfloat16(rows[..., _ORDER] - (high.astype(np.uint32) << 16).view(np.float32))
    halves: np.ndarray = np.concatenate([high, low], -1).view(np.float32)
    return halves


def _tf32(rows: np.ndarray) -> np.ndarray:
    """fp32 rounded to eleven bits, what is half way up from zero: cvt.rna.tf32."""
    rounded: np.ndarray = ((rows.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
    return rounded


# -- code -------------------------------------------------------------------------------------------------------------
class _Mma:
    """The state that the parts of the main kernel's code share."""

    def __init__(self, spec: Conv, schedule: MmaSchedule, name: str) -> None:
        self.spec, self.schedule, self.shape, self.depth = spec, schedule, Shape.of(spec), steps(spec)
        self.row, self.size = row_of(spec, schedule), itemsize(spec)
        self.line, self.chunk_size = LINE // self.size, CHUNK // self.size  # in numbers
        self.em = GpuEmitter(name, parts.pointers(spec, schedule, self.row.sums), program(spec, schedule).launches[0])
        self.tiles = tiles(spec, schedule)
        self.plane, self.out_plane = spec.height * spec.width, spec.out_height * spec.out_width
        self.each = schedule.threads // CHUNKS  # rows that the threads copy at once

    def emit(self) -> tirx.PrimFunc:
        """The whole kernel."""
        em, sch = self.em, self.schedule
        source, weight = (em.buffers[name].dtype for name in ("src", "weight"))
        self.a_shared = em.shared(sch.stages * sch.bm * self.line, "pixels", source)
        self.b_shared = em.shared(sch.stages * sch.bn * self.line, "weights", weight)
        self.down, self.across = sch.wm // 16, sch.wn // 8  # tiles of sums of a warp
        self.sums = em.local(self.down * self.across * 4, self.row.sums, "sums")
        self.a = em.local(self.down * 4, "uint32", "a")
        pairs = sch.by == PAIRS
        self.b = em.local(self.across * (4 if pairs else 2), "uint32", "b")
        self.raw: Any = em.local(8, "uint32", "raw") if pairs else None
        self.low: Any = em.local(4, "uint32", "low") if pairs else None
        pixel_block, self.tile, part = block_of(em, sch)
        self.first_pixel = em.let(pixel_block * sch.bm, "first_pixel")
        self._locate()
        with em.unrolled(self.down * self.across * 4) as i:
            em.store(self.sums, i, tirx.const(0, self.row.sums))
        begin, end = parts.steps_of(em, self.depth, sch.split, part)
        for ahead in range(sch.stages - 1):
            with em.when(begin + ahead < end):
                self._copy_weights(begin + ahead, ahead)
        em.earlier_done()
        for ahead in range(sch.stages - 1):
            with em.when(begin + ahead < end):
                self._copy_input(begin + ahead, ahead)
            em.do("id_copy_commit")
        with em.loop(end - begin, "step", begin) as step:
            em.do(f"id_copy_wait<{sch.stages - 2}>")
            em.barrier()  # all see this step, and none reads the one before any more
            with em.when(step + (sch.stages - 1) < end):
                self._copy(step + (sch.stages - 1), mod(step - begin + (sch.stages - 1), sch.stages))
            em.do("id_copy_commit")  # an empty group counts, so that the wait stays right at the end
            self._multiply(em.let(mod(step - begin, sch.stages), "stage"))
        with parts.whole(em, sch, extents(self.spec, sch), self.sums, self.down * self.across * 4):
            self._write()
        return em.finish()

    def _locate(self) -> None:
        """Where in the input each pixel lies that this thread copies a chunk of, and its place in a warp."""
        em, spec, sch = self.em, self.spec, self.schedule
        self.chunk, self.first = em.let(mod(em.thread, CHUNKS), "chunk"), em.let(div(em.thread, CHUNKS), "row")
        self.rows, self.columns, self.bases, self.valid = [], [], [], []
        group = div(self.tile, self.tiles) * (spec.channels // BLOCK * self.plane) if spec.groups > 1 else 0
        for i in range(-(-sch.bm // self.each)):
            pixel = em.let(self.first_pixel + self.first + i * self.each, "pixel")
            n = em.let(div(pixel, self.out_plane), "n") if spec.batch > 1 else 0
            at = em.let(mod(pixel, self.out_plane), "at") if spec.batch > 1 else pixel
            iy = em.let(div(at, spec.out_width) * spec.stride[0] - spec.pad[0], "iy")
            ix = em.let(mod(at, spec.out_width) * spec.stride[1] - spec.pad[1], "ix")
            self.rows.append(iy)
            self.columns.append(ix)
            self.valid.append(em.let(pixel < self.shape.pixels, "valid"))
            each = spec.channels if spec.planar else BLOCK  # numbers that lie side by side
            self.bases.append(em.let(n * (spec.in_stride // each) + group + iy * spec.width + ix, "base"))
        lane, warp = em.let(mod(em.thread, WARP), "lane"), em.let(div(em.thread, WARP), "warp")
        self.lane, self.matrix, self.eighth = lane, em.let(div(lane, 8), "matrix"), em.let(mod(lane, 8), "eighth")
        self.warp_row = em.let(div(warp, sch.xn) * sch.wm, "warp_row")
        self.warp_column = em.let(mod(warp, sch.xn) * sch.wn, "warp_column")

    def _copy(self, step: Expr, stage: Expr) -> None:
        """Start the copies of a step into a stage."""
        self._copy_input(step, stage)
        self._copy_weights(step, stage)

    def _copy_input(self, step: Expr, stage: Expr) -> None:
        if self.spec.planar:
            self._copy_words(step, stage)
        else:
            self._copy_pixels(step, stage)

    def _copy_weights(self, step: Expr, stage: Expr) -> None:
        em, sch = self.em, self.schedule
        panel = em.let((self.tile * self.depth + step) * sch.bn, "panel")
        for i in range(-(-sch.bn // self.each)):
            row = self.first + i * self.each
            with em.when(row < sch.bn) if sch.bn % self.each else nullcontext():
                source = (panel + row) * self.line + self.chunk * self.chunk_size
                to = self._at(self.b_shared, stage * sch.bn + row, row)
                em.do("id_copy_async", to, self._of("weight", source), tirx.const(CHUNK, "int32"))

    def _copy_pixels(self, step: Expr, stage: Expr) -> None:
        """A chunk is the channels of a pixel, all 16 bytes or half of the others."""
        em, spec, sch = self.em, self.spec, self.schedule
        pairs, each, taps = self.shape.steps, BLOCK // self.chunk_size, math.prod(spec.kernel)
        pair = em.let(step * (CHUNKS // each) + div(self.chunk, each), "pair")
        block, tap = em.let(div(pair, taps), "block"), em.let(mod(pair, taps), "tap")
        dy, dx = self._tap(tap)
        offset = em.let(block * self.plane + dy * spec.width + dx, "offset")
        within = em.let(mod(self.chunk, each) * self.chunk_size, "within") if each > 1 else 0
        behind = pair < pairs if pairs % (CHUNKS // each) else None
        for i in range(-(-sch.bm // self.each)):
            row = self.first + i * self.each
            exists = self._exists(i, dy, dx, behind)
            address = tirx.Select(exists, (self.bases[i] + offset) * BLOCK + within, tirx.const(0, "int32"))
            with em.when(row < sch.bm) if sch.bm % self.each else nullcontext():
                to = self._at(self.a_shared, stage * sch.bm + row, row)
                em.do("id_copy_async", to, self._of("src", address), _bytes(exists, CHUNK))

    def _copy_words(self, step: Expr, stage: Expr) -> None:
        """A chunk is four taps of four bytes."""
        em, spec, sch = self.em, self.spec, self.schedule
        taps = math.prod(spec.kernel)
        for word in range(CHUNK // WORD):
            tap = em.let((step * CHUNKS + self.chunk) * (CHUNK // WORD) + word, "tap")
            dy, dx = self._tap(tap)
            for i in range(-(-sch.bm // self.each)):
                row = self.first + i * self.each
                exists = self._exists(i, dy, dx, tap < taps)
                address = tirx.Select(exists, (self.bases[i] + dy * spec.width + dx) * WORD, tirx.const(0, "int32"))
                with em.when(row < sch.bm) if sch.bm % self.each else nullcontext():
                    to = self._at(self.a_shared, stage * sch.bm + row, row, word * WORD)
                    em.do("id_copy_word", to, self._of("src", address), _bytes(exists, WORD))

    def _tap(self, tap: Expr) -> tuple[Expr, Expr]:
        """How far below and to the right of the first a tap lies."""
        em, spec = self.em, self.spec
        dy = em.let(div(tap, spec.kernel[1]) * spec.dilation[0], "dy")
        return dy, em.let(mod(tap, spec.kernel[1]) * spec.dilation[1], "dx")

    def _exists(self, i: int, dy: Expr, dx: Expr, more: Expr | None) -> Expr:
        """Whether a tap of copied pixel `i` lies in the image."""
        checks = [
            self.valid[i] if self.shape.pixels % self.schedule.bm else None,
            inside(self.rows[i] + dy, self.spec.height),
            inside(self.columns[i] + dx, self.spec.width),
            more,
        ]
        return self.em.let(both(*checks), "exists")

    def _at(self, shared: Any, at: Expr, row: Expr, more: int = 0) -> Expr:
        """The address of this thread's chunk in a row of shared memory."""
        return tirx.address_of(load(shared, at * self.line + _place(row, self.chunk) * self.chunk_size + more))

    def _of(self, pointer: str, index: Expr) -> Expr:
        return tirx.address_of(load(self.em.buffers[pointer], index))

    def _multiply(self, stage: Expr) -> None:
        """One step."""
        if self.schedule.by == PAIRS:
            self._multiply_pairs(stage)
            return
        for half in range(2):
            for i in range(self.down):
                self._load_pixels(self.a, 4 * i, stage, i, half)
                for k in range(4 if self.schedule.by == TF32 else 0):
                    self.em.do("id_to_tf32", load(self.a, 4 * i + k))
            self._load_weights(0, stage, half)
            for i in range(self.down):
                for j in range(self.across):
                    self._add(i, j, self.a, 4 * i, 2 * j)

    def _multiply_pairs(self, stage: Expr) -> None:
        """The low halves of pixels by the high ones of weights, the high ones by the low ones, and by the high ones."""
        low_weights = 2 * self.across
        self._load_weights(0, stage, 0)
        self._load_weights(low_weights, stage, 1)
        for i in range(self.down):
            for half in range(2):
                self._load_pixels(self.raw, 4 * half, stage, i, half)
            for k in range(4):
                numbers = [load(self.raw, 4 * (k // 2) + k % 2 + 2 * second) for second in range(2)]
                self.em.do("id_split", load(self.a, k), load(self.low, k), *numbers)
            for j in range(self.across):
                self._add(i, j, self.low, 0, 2 * j)
                self._add(i, j, self.a, 0, low_weights + 2 * j)
                self._add(i, j, self.a, 0, 2 * j)

    def _add(self, i: int, j: int, left: Any, at: int, right: int) -> None:
        """The products of 16 pixels and 8 channels, to their sums."""
        sums = [load(self.sums, (i * self.across + j) * 4 + k) for k in range(4)]
        weights = [load(self.b, right + k) for k in range(2)]
        self.em.do(self.row.call, *sums, *(load(left, at + k) for k in range(4)), *weights)

    def _load_pixels(self, into: Any, first: int, stage: Expr, i: int, half: int) -> None:
        """Half a row of each of 16 pixels."""
        row = self.warp_row + i * 16 + mod(self.matrix, 2) * 8 + self.eighth
        self._load(into, first, self.a_shared, stage * self.schedule.bm + row, row, 2 * half + div(self.matrix, 2))

    def _load_weights(self, first: int, stage: Expr, half: int) -> None:
        """Half a row of each of the warp's channels."""
        for j in range(self.across // 2):
            row = self.warp_column + j * 16 + div(self.matrix, 2) * 8 + self.eighth
            at = stage * self.schedule.bn + row
            self._load(self.b, first + 4 * j, self.b_shared, at, row, 2 * half + mod(self.matrix, 2))

    def _load(self, into: Any, first: int, shared: Any, at: Expr, row: Expr, chunk: Expr) -> None:
        address = tirx.address_of(load(shared, at * self.line + _place(row, chunk) * self.chunk_size))
        self.em.do("id_ldmatrix", *(load(into, first + k) for k in range(4)), address)

    def _write(self) -> None:
        """The sums, through the epilogue, to the output."""
        em, spec, sch = self.em, self.spec, self.schedule
        channels, count = self.shape.channels, neighbours(sch)
        tile = mod(self.tile, self.tiles) if spec.groups > 1 else self.tile
        shift = div(self.tile, self.tiles) * channels if spec.groups > 1 else 0
        line, column = em.let(div(self.lane, 4), "line"), em.let(mod(self.lane, 4) * count, "column")
        within = em.let(tile * sch.bn + self.warp_column + column, "within")

        def pixels() -> Iterator[tuple[Expr, Expr, list[Expr]]]:
            for i in range(self.down):
                for below in range(2):
                    pixel = em.let(self.first_pixel + self.warp_row + (16 * i + 8 * below) + line, "out_pixel")
                    exists = pixel < self.shape.pixels
                    with em.when(exists) if self.shape.pixels % sch.bm else nullcontext():
                        n = em.let(div(pixel, self.out_plane), "n") if spec.batch > 1 else 0
                        at = em.let(mod(pixel, self.out_plane), "at") if spec.batch > 1 else pixel
                        tiles_of = [(i * self.across + j) * 4 + 2 * below for j in range(self.across)]
                        yield n, at, [load(self.sums, first + k) for first in tiles_of for k in range(2)]

        with em.when(within < channels) if channels % sch.bn else nullcontext():
            finish(em, spec, em.let(shift + within, "channel"), count, pixels)


def _bytes(exists: Expr, count: int) -> Expr:
    """How many bytes to copy; what is not copied is zeros."""
    return tirx.Select(exists, tirx.const(count, "int32"), tirx.const(0, "int32"))


def _place(row: Expr, chunk: Expr) -> Expr:
    """Where a chunk of a row lies in it."""
    return tirx.bitwise_xor(chunk, mod(div(row, 2), CHUNKS))


def emit(spec: Conv, schedule: MmaSchedule, symbol: str) -> list[Any]:
    """The device function."""
    return [_Mma(spec, schedule, symbol).emit()]


def serves(spec: Conv, isa: Isa) -> str | None:
    """What `ROWS` has, in blocks or words; of bfloat16 on sm_80 and later."""
    if reason := of_gpu(isa):
        return reason
    known = spec.in_element in ROWS or (spec.in_element == "float32" and isa.floats)
    if not known or (spec.planar and not spec.quantized):
        return f"it multiplies {spec.in_element}, and tensor cores {', '.join(ROWS)}"
    if spec.weight_element != "int8" or spec.weighed:
        return "its weights are no bytes, or its windows count differently"
    return None if spec.in_element != BRAIN or isa.has(BRAIN) else f"{isa.name} has no tensor cores for bfloat16"


def _by(spec: Conv, isa: Isa) -> str:
    """How fp32 is multiplied on a GPU."""
    return isa.floats if spec.in_element == "float32" else ""


CONV: Family[Conv, MmaSchedule] = Family(
    "gpu.mma",
    Conv,
    serves,
    lambda spec, isa: choose(spec, isa.of_card, by=_by(spec, isa)),
    units,
    emit,
    pack_weight,
    program=program,
    layout=_layout,
    space=space,
    features=_features,
    repacked=lambda spec, isa, schedule, layout: choose(spec, isa.of_card, layout, schedule.by),
    version=2,
)
