"""Convolution of binary16 on a GPU's tensor cores: an implicit matrix product of pixels and channels, summed in fp32.

A block of threads computes `bm` pixels of `bn` output channels; each of its warps a rectangle of `wm` by `wn` of them
in registers. A step is 32 deep: two pairs of a kernel tap and a block of 16 channels. Copies into shared memory run
`stages - 1` steps ahead (cp.async), and a pixel whose tap falls off the image is copied as zeros. A row of shared
memory is one pixel's, or one output channel's, 32 numbers in four chunks of 16 bytes; chunk `c` of row `r` lies at
place `c ^ (r / 2 % 4)`, so that the eight rows that ldmatrix takes at once hit every bank once.

Weights are packed as `[tile of output channels][step][bn][32]`. Maps too small to fill a GPU are cut along the depth,
as in `gpu.conv`. Fragments are PTX's (mma.m16n8k16, ldmatrix.x4): with `g = lane / 4` and `t = lane % 4`, register `i`
of the sums is row `g + 8 (i / 2)` and column `2 t + i % 2`.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from tvm import tirx

from ..elements import BLOCK, HALF
from ..emit import Expr, clamp, const, load
from ..family import Family, of_gpu
from ..isa import Isa
from ..spec import Conv
from . import parts
from .conv import Shape, extents, program, tiles, units
from .emit import GpuEmitter, both, div, inside, mod
from .parts import SPLITS

DEPTH = 2 * BLOCK
"""Of a step."""

CHUNK = 8
"""Halves in the 16 bytes that a thread copies at once."""

CHUNKS = DEPTH // CHUNK
"""Of a row of shared memory."""

WARP = 32


@dataclass(frozen=True)
class MmaSchedule:
    """The knobs of the template.

    Attributes:
        wm, wn: pixels and output channels of a warp; multiples of 16.
        ym, xn: warps along pixels and along output channels.
        stages: steps in shared memory at a time.
        split: parts that the depth is cut into.
    """

    wm: int
    wn: int
    ym: int
    xn: int
    stages: int = 3
    split: int = 1

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
        return 2 * DEPTH * (self.bm + self.bn) * self.stages


TILES = (
    MmaSchedule(64, 32, 2, 4),  # 128 x 128
    MmaSchedule(64, 32, 2, 2),  # 128 x 64
    MmaSchedule(32, 32, 2, 2),  # 64 x 64
    MmaSchedule(32, 32, 2, 1),  # 64 x 32
    MmaSchedule(32, 16, 2, 1),  # 64 x 16
    MmaSchedule(16, 32, 2, 2),  # 32 x 64
    MmaSchedule(16, 16, 2, 2),  # 32 x 32
)


def steps(spec: Conv) -> int:
    """Of the whole depth."""
    return -(-Shape.of(spec).steps // 2)


# -- choice -----------------------------------------------------------------------------------------------------------
_MULTIPROCESSORS = 108  # an A100's; an H100 has 132
_PRODUCTS = 1024.0  # multiply-adds of a multiprocessor in a cycle (A100 whitepaper, table 1)
_RESIDENT_SHARED = 96 << 10
_BYTES_A_CYCLE = 24.0  # that each multiprocessor gets from the second-level cache
_LATENCY = 600.0  # cycles from a copy to its arrival, shared by the stages that wait
_LAUNCH = 3000.0
_MEETING = 1500.0  # until the last part has been counted, and has read the others


def choose(spec: Conv) -> MmaSchedule:
    """The tile and the split that a model of the machine takes to be fastest. Not measured: see docs/cuda.md."""
    depth = steps(spec)
    candidates = [replace(t, split=split) for t in TILES for split in SPLITS if split == 1 or depth >= 4 * split]
    return min(candidates, key=lambda schedule: cycles(spec, schedule))


def cycles(spec: Conv, schedule: MmaSchedule) -> float:
    """How long the convolution takes in the model: blocks go round the multiprocessors, a few at a time."""
    blocks, depth = math.prod(extents(spec, schedule)), -(-steps(spec) // schedule.split)
    each = -(-blocks // _MULTIPROCESSORS)
    resident = min(each, max(1, _RESIDENT_SHARED // schedule.shared_bytes))
    products = schedule.bm * schedule.bn * DEPTH / _PRODUCTS
    copies = 2 * DEPTH * (schedule.bm + schedule.bn) / _BYTES_A_CYCLE
    step = max(resident * max(products, copies), _LATENCY / (schedule.stages - 1))
    total = -(-each // resident) * (depth + schedule.stages) * step + _LAUNCH
    if schedule.split > 1:
        sums = spec.batch * spec.out_channels * spec.out_height * spec.out_width * 4 * schedule.split
        total += _MEETING + 2 * sums / (_BYTES_A_CYCLE * _MULTIPROCESSORS)
    return total


# -- geometry ---------------------------------------------------------------------------------------------------------
def pack_weight(weight: np.ndarray, spec: Conv, schedule: MmaSchedule) -> np.ndarray:
    """`[O, I, r, s]` (physical channels, one group's I) to `[group][tile][step][bn][32]` of binary16, filled up with
    zeros.
    """
    out, channels, rows, columns = weight.shape
    across, group, depth = tiles(spec, schedule), out // spec.groups, steps(spec)
    panel = weight.reshape(out, channels // BLOCK, BLOCK, rows, columns).transpose(0, 1, 3, 4, 2).reshape(out, -1)
    wide = np.zeros((spec.groups, across * schedule.bn, depth * DEPTH), np.float16)
    wide[:, :group, : panel.shape[1]] = panel.reshape(spec.groups, group, -1).astype(np.float16)
    packed = wide.reshape(spec.groups * across, schedule.bn, depth, DEPTH).transpose(0, 2, 1, 3)
    return np.ascontiguousarray(packed).view(np.uint16)


# -- code -------------------------------------------------------------------------------------------------------------
class _Mma:
    """The state that the parts of the main kernel's code share."""

    def __init__(self, spec: Conv, schedule: MmaSchedule, name: str) -> None:
        self.spec, self.schedule, self.shape, self.depth = spec, schedule, Shape.of(spec), steps(spec)
        self.em = GpuEmitter(name, parts.pointers(spec, schedule), program(spec, schedule).launches[0])
        self.tiles = tiles(spec, schedule)
        self.plane, self.out_plane = spec.height * spec.width, spec.out_height * spec.out_width
        self.each = schedule.threads // CHUNKS  # rows that the threads copy at once

    def emit(self) -> tirx.PrimFunc:
        """The whole kernel."""
        em, sch = self.em, self.schedule
        self.a_shared = em.shared(sch.stages * sch.bm * DEPTH, "pixels", "uint16")
        self.b_shared = em.shared(sch.stages * sch.bn * DEPTH, "weights", "uint16")
        self.down, self.across = sch.wm // 16, sch.wn // 8  # tiles of sums of a warp
        self.sums = em.local(self.down * self.across * 4, name="sums")
        self.a = em.local(self.down * 4, "uint32", "a")
        self.b = em.local(self.across * 2, "uint32", "b")
        pixel_block, self.tile, part = em.blocks
        self.first_pixel = em.let(pixel_block * sch.bm, "first_pixel")
        self._locate()
        with em.unrolled(self.down * self.across * 4) as i:
            em.store(self.sums, i, const(0.0))
        begin, end = parts.steps_of(em, self.depth, sch.split, part)
        for ahead in range(sch.stages - 1):
            with em.when(begin + ahead < end):
                self._copy(begin + ahead, ahead)
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
        self.chunk, self.row = em.let(mod(em.thread, CHUNKS), "chunk"), em.let(div(em.thread, CHUNKS), "row")
        self.rows, self.columns, self.bases, self.valid = [], [], [], []
        group = div(self.tile, self.tiles) * (spec.channels // BLOCK * self.plane) if spec.groups > 1 else 0
        for i in range(-(-sch.bm // self.each)):
            pixel = em.let(self.first_pixel + self.row + i * self.each, "pixel")
            n = em.let(div(pixel, self.out_plane), "n") if spec.batch > 1 else 0
            at = em.let(mod(pixel, self.out_plane), "at") if spec.batch > 1 else pixel
            iy = em.let(div(at, spec.out_width) * spec.stride[0] - spec.pad[0], "iy")
            ix = em.let(mod(at, spec.out_width) * spec.stride[1] - spec.pad[1], "ix")
            self.rows.append(iy)
            self.columns.append(ix)
            self.valid.append(em.let(pixel < self.shape.pixels, "valid"))
            self.bases.append(em.let(n * (spec.in_stride // BLOCK) + group + iy * spec.width + ix, "base"))
        lane, warp = em.let(mod(em.thread, WARP), "lane"), em.let(div(em.thread, WARP), "warp")
        self.lane, self.matrix, self.line = lane, em.let(div(lane, 8), "matrix"), em.let(mod(lane, 8), "line")
        self.warp_row = em.let(div(warp, sch.xn) * sch.wm, "warp_row")
        self.warp_column = em.let(mod(warp, sch.xn) * sch.wn, "warp_column")

    def _copy(self, step: Expr, stage: Expr) -> None:
        """Start the copies of a step into a stage."""
        em, spec, sch = self.em, self.spec, self.schedule
        taps, columns, pairs = math.prod(spec.kernel), spec.kernel[1], self.shape.steps
        pair = em.let(step * 2 + div(self.chunk, 2), "pair")
        block, tap = em.let(div(pair, taps), "block"), em.let(mod(pair, taps), "tap")
        dy = em.let(div(tap, columns) * spec.dilation[0], "dy")
        dx = em.let(mod(tap, columns) * spec.dilation[1], "dx")
        offset = em.let(block * self.plane + dy * spec.width + dx, "offset")
        within = em.let(mod(self.chunk, 2) * CHUNK, "within")
        for i in range(-(-sch.bm // self.each)):
            row = self.row + i * self.each
            checks = [
                self.valid[i] if self.shape.pixels % sch.bm else None,
                inside(self.rows[i] + dy, spec.height),
                inside(self.columns[i] + dx, spec.width),
                pair < pairs if pairs % 2 else None,
            ]
            exists = em.let(both(*checks), "exists")
            address = tirx.Select(exists, (self.bases[i] + offset) * BLOCK + within, tirx.const(0, "int32"))
            bytes_ = tirx.Select(exists, tirx.const(2 * CHUNK, "int32"), tirx.const(0, "int32"))
            with em.when(row < sch.bm) if sch.bm % self.each else nullcontext():
                self._start(self.a_shared, stage * sch.bm + row, row, em.buffers["src"], address, bytes_)
        panel = em.let((self.tile * self.depth + step) * sch.bn, "panel")
        for i in range(-(-sch.bn // self.each)):
            row = self.row + i * self.each
            with em.when(row < sch.bn) if sch.bn % self.each else nullcontext():
                source = (panel + row) * DEPTH + self.chunk * CHUNK
                whole = tirx.const(2 * CHUNK, "int32")
                self._start(self.b_shared, stage * sch.bn + row, row, em.buffers["weight"], source, whole)

    def _start(self, shared: Any, at: Expr, row: Expr, source: Any, index: Expr, bytes_: Expr) -> None:
        to = at * DEPTH + _place(row, self.chunk) * CHUNK
        self.em.do("id_copy_async", tirx.address_of(load(shared, to)), tirx.address_of(load(source, index)), bytes_)

    def _multiply(self, stage: Expr) -> None:
        """One step."""
        em, sch = self.em, self.schedule
        for half in range(2):
            for i in range(self.down):
                row = self.warp_row + i * 16 + mod(self.matrix, 2) * 8 + self.line
                self._load(self.a, 4 * i, self.a_shared, stage * sch.bm + row, row, 2 * half + div(self.matrix, 2))
            for j in range(self.across // 2):
                row = self.warp_column + j * 16 + div(self.matrix, 2) * 8 + self.line
                self._load(self.b, 4 * j, self.b_shared, stage * sch.bn + row, row, 2 * half + mod(self.matrix, 2))
            for i in range(self.down):
                for j in range(self.across):
                    sums = [load(self.sums, (i * self.across + j) * 4 + k) for k in range(4)]
                    left = [load(self.a, 4 * i + k) for k in range(4)]
                    em.do("id_mma_f16", *sums, *left, load(self.b, 2 * j), load(self.b, 2 * j + 1))

    def _load(self, into: Any, first: int, shared: Any, at: Expr, row: Expr, chunk: Expr) -> None:
        address = tirx.address_of(load(shared, at * DEPTH + _place(row, chunk) * CHUNK))
        self.em.do("id_ldmatrix", *(load(into, first + k) for k in range(4)), address)

    def _write(self) -> None:
        """The sums, through the epilogue, to the output."""
        em, spec, sch = self.em, self.spec, self.schedule
        channels = self.shape.channels
        tile = mod(self.tile, self.tiles) if spec.groups > 1 else self.tile
        shift = div(self.tile, self.tiles) * channels if spec.groups > 1 else 0
        line, pair = em.let(div(self.lane, 4), "line"), em.let(mod(self.lane, 4) * 2, "pair")
        for i in range(self.down):
            for below in range(2):
                pixel = em.let(self.first_pixel + self.warp_row + (16 * i + 8 * below) + line, "out_pixel")
                n = em.let(div(pixel, self.out_plane), "n") if spec.batch > 1 else 0
                at = em.let(mod(pixel, self.out_plane), "at") if spec.batch > 1 else pixel
                for j in range(self.across):
                    within = em.let(tile * sch.bn + self.warp_column + 8 * j + pair, "within")
                    exists = both(
                        pixel < self.shape.pixels if self.shape.pixels % sch.bm else None,
                        within < channels if channels % sch.bn else None,
                    )
                    with em.when(exists) if exists is not None else nullcontext():
                        channel = em.let(shift + within, "channel")
                        place = (div(channel, BLOCK) * self.out_plane + at) * (BLOCK // 2) + div(mod(channel, BLOCK), 2)
                        sums = [load(self.sums, (i * self.across + j) * 4 + 2 * below + k) for k in range(2)]
                        self._epilogue(sums, channel, n, em.let(place, "place"))

    def _epilogue(self, sums: list[Expr], channel: Expr, n: Expr, place: Expr) -> None:
        em, spec = self.em, self.spec
        values = []
        for k in range(2):
            value = sums[k] + load(em.buffers["bias"], channel + k)
            if spec.add:
                value = value + em.read("add", n * spec.add_stride + place * 2 + k)
            values.append(clamp(value, spec.activation))
        self._pair("dst", n * (spec.out_stride // 2) + place, values)

    def _pair(self, pointer: str, index: Expr, values: list[Expr]) -> None:
        """Two neighbours in one store; `index` counts pairs."""
        em = self.em
        result = em.local(2, em.buffers[pointer].dtype, "result")
        for k, value in enumerate(values):
            em.store(result, k, em.kept(pointer, value))
        em.store(em.buffers[pointer], index * 2, load(result, 0, 2))


def _place(row: Expr, chunk: Expr) -> Expr:
    """Where a chunk of a row lies in it."""
    return tirx.bitwise_xor(chunk, mod(div(row, 2), CHUNKS))


def emit(spec: Conv, schedule: MmaSchedule, symbol: str) -> list[Any]:
    """The device function."""
    return [_Mma(spec, schedule, symbol).emit()]


def serves(spec: Conv, isa: Isa) -> str | None:
    """binary16 in blocks, on sm_80 and later."""
    if reason := of_gpu(isa):
        return reason
    if spec.in_element != HALF or spec.planar:
        return f"it multiplies {spec.in_element}, and tensor cores {HALF}"
    return None if isa.has("halves") else f"{isa.name} lacks cp.async and mma.m16n8k16"


CONV: Family[Conv, MmaSchedule] = Family(
    "gpu.mma", Conv, serves, lambda spec, _isa: choose(spec), units, emit, pack_weight, program=program
)
