"""Convolution on a GPU: an implicit matrix product of pixels and output channels, in fp32.

A block of threads computes `bm` pixels of `bn` output channels. It walks the input 16 deep - one kernel tap of one
channel block a
step: fetches 16 lanes of each of its pixels and the matching panel of weights into registers while it multiplies the
panels of the step before from shared memory, and keeps `tm x tn` sums a thread in registers. Nothing is padded in
memory: a pixel whose tap falls off the image is read as zeros.

Pixels lie in shared memory in rows of 20 floats: rows of 16 would put the same lane of every pixel into the same two
banks. Maps too small to fill a GPU are cut along the depth as well (`split`, `gpu.parts`).

Weights are packed as `[tile of output channels][input block][r][s][input lane][bn]`; a planar input's depth is its
channels and taps in one row, filled up with zeros to a multiple of 16. One image's fully connected layer is a kernel
of its own (`gpu.dense`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from tvm import tirx

from ..cards import Card
from ..elements import BLOCK, kept
from ..emit import Expr, const, load
from ..family import Family, Program, of_gpu
from ..isa import Isa
from ..spec import Conv
from . import parts
from .emit import QUAD, REALS, GpuEmitter, both, div, fma, inside, mod
from .epilogue import finish
from .parts import MEETING, Cut, splits

QUADS = BLOCK // QUAD
"""Quads of a channel block."""

ROW = QUADS + 1
"""Quads from one pixel's lanes to the next pixel's in shared memory."""


@dataclass(frozen=True)
class GemmSchedule:
    """The knobs of the template.

    Attributes:
        tm, tn: pixels and output channels of a thread; tn is a multiple of 4.
        ty, tx: threads along pixels (a multiple of 8) and along output channels (a multiple of 4).
        split: parts that the depth is cut into.
        across: blocks that follow each other share pixels, and not weights.
    """

    tm: int
    tn: int
    ty: int
    tx: int
    split: int = 1
    across: bool = False

    @property
    def bm(self) -> int:
        """Pixels of a block."""
        return self.tm * self.ty

    @property
    def bn(self) -> int:
        """Output channels of a block."""
        return self.tn * self.tx

    @property
    def threads(self) -> int:
        """Threads of a block."""
        return self.ty * self.tx

    @property
    def shared_bytes(self) -> int:
        """Shared memory of a block."""
        return 2 * QUAD * 4 * (self.bm * ROW + self.bn * QUADS)


TILES = (
    GemmSchedule(8, 8, 16, 8),  # 128 x 64
    GemmSchedule(8, 4, 16, 8),  # 128 x 32
    GemmSchedule(8, 4, 8, 16),  # 64 x 64
    GemmSchedule(4, 4, 16, 8),  # 64 x 32
    GemmSchedule(4, 4, 16, 4),  # 64 x 16
    GemmSchedule(4, 4, 8, 8),  # 32 x 32
)
"""Tiles to choose from: every one divides its panels' loads evenly among its threads."""


@dataclass(frozen=True)
class Shape:
    """A convolution as a matrix product: `pixels x depth` times `depth x channels`, for each of `groups`."""

    pixels: int
    channels: int
    steps: int

    @staticmethod
    def of(spec: Conv) -> Shape:
        """`steps` counts the depth in sixteens."""
        depth = spec.channels * math.prod(spec.kernel)
        return Shape(
            spec.batch * spec.out_height * spec.out_width, spec.out_channels // spec.groups, -(-depth // BLOCK)
        )


# -- choice ----------------------------------------------------------------------------------------------------------
_LATENCY = 500.0  # cycles a step takes at least: it waits for device memory, or for a barrier
_LAUNCH = 4000.0  # cycles from one launch to the next
_BYTES_A_CYCLE = 900.0  # of the second-level cache


def choose(spec: Conv, card: Card, bn: int | None = None) -> GemmSchedule:
    """The tile and the split that a model of a GPU takes to be fastest. Not measured: see docs/cuda.md.

    Args:
        bn: the output channels of a block, which weights are packed for; None for any.
    """
    candidates = [
        replace(tile, split=split) for tile in TILES if bn in (None, tile.bn) for split in splits(Shape.of(spec).steps)
    ]
    return min(candidates, key=lambda s: cycles(spec, s, card))


def cycles(spec: Conv, schedule: GemmSchedule, card: Card) -> float:
    """How long the convolution takes in the model: blocks go round the multiprocessors, and a few at a time hide each
    other's waits.
    """
    shape = Shape.of(spec)
    blocks, steps = math.prod(extents(spec, schedule)), -(-shape.steps // schedule.split)
    each = -(-blocks // card.multiprocessors)
    resident = min(each, card.resident(schedule.threads, schedule.shared_bytes))
    # reads of shared memory take turns
    arithmetic = schedule.tm * schedule.tn * BLOCK * schedule.threads / card.adds
    reads = (schedule.tm + schedule.tn) * QUAD * schedule.threads / 32 * 1.5
    step = max(resident * max(arithmetic, reads), _LATENCY)
    total = max(-(-each // resident) * (steps + 2) * step, memory_cycles(spec, card)) + _LAUNCH
    if schedule.split > 1:
        sums = spec.batch * spec.out_channels * spec.out_height * spec.out_width * 4 * schedule.split
        total += MEETING + 2 * sums / _BYTES_A_CYCLE
    return total


def memory_cycles(spec: Conv, card: Card) -> float:
    """How long device memory takes for the weights: nothing else was last seen an inference ago."""
    return sum(operand.bytes for operand in spec.operands if operand.name == "weight") / card.bytes_a_cycle


def space(spec: Conv, _isa: Isa) -> Iterator[tuple[GemmSchedule, dict[str, tuple[int, ...]]]]:
    """Every tile, with every split and order."""
    for tile in TILES:
        yield tile, {"split": splits(Shape.of(spec).steps), "across": orders(spec, tile)}


def orders(spec: Conv, schedule: Cut) -> tuple[int, ...]:
    """The values of `across`: a grid is at most 65535 blocks high."""
    return (0, 1) if -(-Shape.of(spec).pixels // schedule.bm) <= _MOST_HIGH else (0,)


_MOST_HIGH = 65535


def features(spec: Conv, schedule: Cut, multiprocessors: int) -> list[float]:
    """For tuning's model: the tile, what of it and of the GPU is idle, what a block does, and the order."""
    shape, blocks = Shape.of(spec), math.prod(extents(spec, schedule))
    rounds = -(-blocks // multiprocessors)
    return [
        math.log2(schedule.bm),
        math.log2(schedule.bn),
        math.log2(schedule.threads),
        math.log2(schedule.split),
        math.log2(rounds),
        4 * blocks / (rounds * multiprocessors),
        4 * shape.pixels / (-(-shape.pixels // schedule.bm) * schedule.bm),
        4 * shape.channels / (tiles(spec, schedule) * schedule.bn),
        float(schedule.across),
    ]


# -- geometry --------------------------------------------------------------------------------------------------------
def tiles(spec: Conv, schedule: Cut) -> int:
    """Tiles along one group's output channels."""
    return -(-Shape.of(spec).channels // schedule.bn)


def extents(spec: Conv, schedule: Cut) -> tuple[int, int, int]:
    """The grid: tiles of pixels, tiles of output channels (in the other order where they go across first), parts of
    the depth.
    """
    down, across = -(-Shape.of(spec).pixels // schedule.bm), spec.groups * tiles(spec, schedule)
    return (across, down, schedule.split) if schedule.across else (down, across, schedule.split)


def block_of(em: GpuEmitter, schedule: Cut) -> tuple[Expr, Expr, Expr]:
    """A block's tile of pixels, its tile of output channels, and its part of the depth."""
    first, second, part = em.blocks
    return (second, first, part) if schedule.across else (first, second, part)


def program(spec: Conv, schedule: Cut) -> Program:
    """One launch."""
    return parts.program(spec, schedule, extents(spec, schedule))


def pack_weight(weight: np.ndarray, spec: Conv, schedule: GemmSchedule) -> np.ndarray:
    """`[O, I, r, s]` (physical channels, one group's I) to `[group][tile][step][16][bn]`, filled up with zeros."""
    out, channels, rows, columns = weight.shape
    across, group = tiles(spec, schedule), out // spec.groups
    if spec.planar:
        panel = weight.reshape(out, channels * rows * columns)
    else:
        # one step's 16 lanes last: [O][block][r][s][lane]
        panel = weight.reshape(out, channels // BLOCK, BLOCK, rows, columns).transpose(0, 1, 3, 4, 2).reshape(out, -1)
    steps = Shape.of(spec).steps
    wide = np.zeros((spec.groups, across * schedule.bn, steps * BLOCK), np.float32)
    wide[:, :group, : panel.shape[1]] = panel.reshape(spec.groups, group, -1)
    packed = np.ascontiguousarray(wide.reshape(spec.groups * across, schedule.bn, steps, BLOCK).transpose(0, 2, 3, 1))
    return kept(packed, spec.in_element)


# -- code ------------------------------------------------------------------------------------------------------------
class _Gemm:
    """The state that the parts of the main kernel's code share."""

    def __init__(self, spec: Conv, schedule: GemmSchedule, name: str) -> None:
        self.spec, self.schedule, self.shape = spec, schedule, Shape.of(spec)
        launch = program(spec, schedule).launches[0]
        self.em = GpuEmitter(name, parts.pointers(spec, schedule), launch)
        self.tiles = tiles(spec, schedule)
        # quads of the two panels that each thread fetches in a step
        self.a_loads = schedule.bm * QUADS // schedule.threads
        self.b_loads = schedule.bn * QUADS // schedule.threads
        self.plane = spec.height * spec.width
        self.out_plane = spec.out_height * spec.out_width

    def emit(self) -> tirx.PrimFunc:
        """The whole kernel."""
        em, sch = self.em, self.schedule
        self.a_shared = em.shared(2 * sch.bm * ROW * QUAD, "pixels")
        self.b_shared = em.shared(2 * sch.bn * BLOCK, "weights")
        self.a_next = em.local(self.a_loads * QUAD, name="next_pixels")
        self.b_next = em.local(self.b_loads * QUAD, name="next_weights")
        self.sums = em.local(sch.tm * sch.tn, name="sums")
        self.a = em.local(sch.tm * QUAD, name="a")
        self.b = em.local(sch.tn, name="b")
        pixel_block, self.tile, part = block_of(em, sch)
        self.first_pixel = em.let(pixel_block * sch.bm, "first_pixel")
        self._locate_pixels()
        with em.unrolled(sch.tm * sch.tn) as i:
            em.store(self.sums, i, const(0.0))

        begin, end = parts.steps_of(em, self.shape.steps, sch.split, part)
        self._fetch_weights(begin)
        em.earlier_done()
        self._fetch_pixels(begin)
        self._stage(0)
        em.barrier()
        self._place_thread()
        with em.loop(end - begin, "step", begin) as step:
            buffer = em.let(mod(step - begin, 2), "buffer")
            more = step + 1 < end
            with em.when(more):
                self._fetch(step + 1)
            self._multiply(buffer)
            with em.when(more):
                self._stage(1 - buffer)
            em.barrier()
        with parts.whole(em, sch, extents(self.spec, sch), self.sums, sch.tm * sch.tn):
            self._write()
        return em.finish()

    def _locate_pixels(self) -> None:
        """Where in the input each pixel lies that this thread fetches: the first tap's row, column and address.

        A thread fetches quad `thread % 4` of pixels `thread // 4`, and every so many further.
        """
        em, spec, sch = self.em, self.spec, self.schedule
        self.quad = em.let(mod(em.thread, QUADS), "quad")
        row = em.let(div(em.thread, QUADS), "row")
        self.rows, self.columns, self.bases, self.valid = [], [], [], []
        unit = 1 if spec.planar else QUADS  # addresses count floats of a planar input, else quads
        stride = spec.in_stride if spec.planar else spec.in_stride // QUAD
        group = div(self.tile, self.tiles) * (spec.channels // BLOCK * self.plane * QUADS) if spec.groups > 1 else 0
        for i in range(self.a_loads):
            pixel = em.let(self.first_pixel + row + i * (sch.threads // QUADS), "pixel")
            n = em.let(div(pixel, self.out_plane), "n") if spec.batch > 1 else 0
            at = em.let(mod(pixel, self.out_plane), "at") if spec.batch > 1 else pixel
            iy = em.let(div(at, spec.out_width) * spec.stride[0] - spec.pad[0], "iy")
            ix = em.let(mod(at, spec.out_width) * spec.stride[1] - spec.pad[1], "ix")
            self.rows.append(iy)
            self.columns.append(ix)
            self.valid.append(em.let(pixel < self.shape.pixels, "valid"))
            self.bases.append(em.let(n * stride + group + (iy * spec.width + ix) * unit, "base"))

    def _bounds(self, i: int, dy: Expr, dx: Expr) -> Expr | None:
        """Whether tap (dy, dx) of fetched pixel `i` exists; None where it always does."""
        spec = self.spec
        (sy, sx), (py, px), (gy, gx), (kr, kc) = spec.stride, spec.pad, spec.dilation, spec.kernel
        checks: list[Expr | None] = [self.valid[i] if self.shape.pixels % self.schedule.bm else None]
        if py > 0 or (spec.out_height - 1) * sy - py + (kr - 1) * gy >= spec.height:
            checks.append(inside(self.rows[i] + dy, spec.height))
        if px > 0 or (spec.out_width - 1) * sx - px + (kc - 1) * gx >= spec.width:
            checks.append(inside(self.columns[i] + dx, spec.width))
        return both(*checks)

    def _fetch(self, step: Expr) -> None:
        """The panels of `step`, from device memory into registers."""
        self._fetch_pixels(step)
        self._fetch_weights(step)

    def _fetch_pixels(self, step: Expr) -> None:
        em, spec = self.em, self.spec
        columns, taps = spec.kernel[1], math.prod(spec.kernel)
        if spec.planar:
            self._fetch_planar(step)
        else:
            block, tap = em.let(div(step, taps), "block"), em.let(mod(step, taps), "tap")
            dy = em.let(div(tap, columns) * spec.dilation[0], "dy")
            dx = em.let(mod(tap, columns) * spec.dilation[1], "dx")
            offset = em.let((block * self.plane + dy * spec.width + dx) * QUADS + self.quad, "offset")
            for i in range(self.a_loads):
                em.copy_if(self._bounds(i, dy, dx), self.a_next, i, em.buffers["src"], self.bases[i] + offset)

    def _fetch_weights(self, step: Expr) -> None:
        em, sch = self.em, self.schedule
        panel = em.let((self.tile * self.shape.steps + step) * (QUADS * sch.bn) + em.thread, "panel")
        with em.unrolled(self.b_loads) as j:
            em.copy(self.b_next, j, em.buffers["weight"], panel + j * sch.threads)

    def _fetch_planar(self, step: Expr) -> None:
        """One by one: the depth runs through channels, rows and columns of taps, and what lies beyond it is zero."""
        em, spec = self.em, self.spec
        columns, taps = spec.kernel[1], math.prod(spec.kernel)
        depth = spec.channels * taps
        for q in range(QUAD):
            k = em.let(step * BLOCK + self.quad * QUAD + q, "k")
            channel, tap = em.let(div(k, taps), "channel"), em.let(mod(k, taps), "tap")
            dy = em.let(div(tap, columns) * spec.dilation[0], "dy")
            dx = em.let(mod(tap, columns) * spec.dilation[1], "dx")
            offset = em.let(channel * self.plane + dy * spec.width + dx, "offset")
            exists = k < depth if depth % BLOCK else None
            for i in range(self.a_loads):
                condition = both(exists, self._bounds(i, dy, dx))
                em.load_if(condition, self.a_next, i * QUAD + q, em.buffers["src"], self.bases[i] + offset)

    def _stage(self, buffer: Expr) -> None:
        """What was fetched, from registers into half `buffer` of shared memory."""
        em, sch = self.em, self.schedule
        with em.unrolled(self.a_loads) as i:
            pixel = div(em.thread, QUADS) + i * (sch.threads // QUADS)
            em.copy(self.a_shared, buffer * (sch.bm * ROW) + pixel * ROW + self.quad, self.a_next, i)
        with em.unrolled(self.b_loads) as j:
            em.copy(self.b_shared, buffer * (sch.bn * QUADS) + em.thread + j * sch.threads, self.b_next, j)

    def _place_thread(self) -> None:
        """Which pixels and quads of channels are this thread's. A warp covers 8 x 4 neighbours: its reads hit every
        bank once.
        """
        em, sch = self.em, self.schedule
        lane, warp = mod(em.thread, 32), div(em.thread, 32)
        across = sch.tx // 4
        self.x = em.let(mod(warp, across) * 4 + mod(lane, 4), "x")
        self.y = em.let(div(warp, across) * 8 + div(lane, 4), "y")

    def _multiply(self, buffer: Expr) -> None:
        """One step: 16 lanes deep."""
        em, sch = self.em, self.schedule
        pixels = em.let(buffer * (sch.bm * ROW) + self.y * ROW, "pixels_at")
        weights = em.let(buffer * (sch.bn * QUADS) + self.x, "weights_at")
        with em.unrolled(QUADS, "quad") as quarter:
            with em.unrolled(sch.tm, "i") as i:
                em.copy(self.a, i, self.a_shared, pixels + i * (sch.ty * ROW) + quarter)
            with em.unrolled(QUAD, "lane") as lane:
                with em.unrolled(sch.tn // QUAD, "j") as j:
                    em.copy(self.b, j, self.b_shared, weights + (quarter * QUAD + lane) * (sch.bn // QUAD) + j * sch.tx)
                with em.unrolled(sch.tm, "i") as i, em.unrolled(sch.tn, "j") as j:
                    at = i * sch.tn + j
                    em.store(self.sums, at, fma(load(self.a, i * QUAD + lane), load(self.b, j), load(self.sums, at)))

    def _write(self) -> None:
        """The sums, through the epilogue, to the output."""
        em, spec, sch = self.em, self.spec, self.schedule
        group = self.shape.channels // QUAD
        tile = mod(self.tile, self.tiles) if spec.groups > 1 else self.tile
        shift = div(self.tile, self.tiles) * group if spec.groups > 1 else 0

        def pixels(j: int) -> Iterator[tuple[Expr, Expr, list[Expr]]]:
            with em.unrolled(sch.tm, "i") as i:
                pixel = em.let(self.first_pixel + self.y + i * sch.ty, "out_pixel")
                exists = pixel < self.shape.pixels
                with em.when(exists) if self.shape.pixels % sch.bm else nullcontext():
                    n = em.let(div(pixel, self.out_plane), "n") if spec.batch > 1 else 0
                    at = em.let(mod(pixel, self.out_plane), "at") if spec.batch > 1 else pixel
                    yield n, at, [load(self.sums, i * sch.tn + j * QUAD + q) for q in range(QUAD)]

        for j in range(sch.tn // QUAD):
            within = em.let(tile * (sch.bn // QUAD) + self.x + j * sch.tx, "within")
            with em.when(within < group) if self.shape.channels % sch.bn else nullcontext():
                finish(em, spec, em.let((shift + within) * QUAD, "channel"), QUAD, partial(pixels, j))


def emit(spec: Conv, schedule: GemmSchedule, symbol: str) -> list[Any]:
    """The device function."""
    return [_Gemm(spec, schedule, symbol).emit()]


def units(spec: Conv, schedule: Cut) -> int:
    """Blocks of threads."""
    return math.prod(extents(spec, schedule))


def serves(spec: Conv, isa: Isa) -> str | None:
    """fp32 in blocks of 16, and what is converted to it."""
    return of_gpu(isa) or (None if spec.in_element in REALS else f"it multiplies {spec.in_element}")


CONV: Family[Conv, GemmSchedule] = Family(
    "gpu.conv",
    Conv,
    serves,
    lambda spec, isa: choose(spec, isa.of_card),
    units,
    emit,
    pack_weight,
    program=program,
    space=space,
    features=features,
    layout=lambda schedule: schedule.bn,
    repacked=lambda spec, isa, _schedule, bn: choose(spec, isa.of_card, bn),
)
