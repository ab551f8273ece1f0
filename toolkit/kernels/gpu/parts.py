"""A product whose depth is cut into parts, in one launch: the block of threads that comes last adds them up.

Each part of a tile leaves its sums in scratch memory, thread by thread, and counts itself. Which block is the last to
be counted depends on time; it reads all parts, its own too, in their order, so the result does not. The counter is
back at 0 then (`atomicInc` wraps), as the next launch finds it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from tvm import tirx

from ..emit import Expr, load
from ..family import COUNTERS, SCRATCH, Launch, Program
from ..spec import Conv
from .emit import QUAD, GpuEmitter

_SPLITS = (1, 2, 3, 4, 6, 8, 12, 16)


def splits(steps: int) -> tuple[int, ...]:
    """How many parts to choose from, of a depth of so many steps."""
    return tuple(split for split in _SPLITS if split == 1 or steps >= 4 * split)


MEETING = 1500.0
"""Cycles until the last part has been counted, and has read the others (assumed)."""

PARTS, COUNTS = "parts", "counts"
"""The pointers of the two memories."""


class Cut(Protocol):
    """What a schedule says of how a product is cut, whoever multiplies: `conv.GemmSchedule`, `mma.MmaSchedule`."""

    @property
    def bm(self) -> int:
        """Pixels of a block."""

    @property
    def bn(self) -> int:
        """Output channels of a block."""

    @property
    def threads(self) -> int:
        """Threads of a block."""

    @property
    def split(self) -> int:
        """Parts that the depth is cut into."""

    @property
    def across(self) -> bool:
        """Blocks that follow each other share pixels, and not weights."""


def pointers(spec: Conv, schedule: Cut, sums: str = "float32") -> list[tuple[str, str]]:
    """Of the kernel: the spec's, and where there are parts, what they meet in; `sums` is their type."""
    return [*spec.pointers, (PARTS, sums), (COUNTS, "int32")] if schedule.split > 1 else spec.pointers


def program(spec: Conv, schedule: Cut, grid: tuple[int, int, int]) -> Program:
    """The launch, with what its parts pass on; of the grid the third extent is the part."""
    args: tuple[int, ...] = tuple(range(len(spec.operands)))
    tiles = math.prod(grid[:2])
    if schedule.split == 1:
        return Program((Launch(grid, (schedule.threads, 1, 1), args),))
    launch = Launch(grid, (schedule.threads, 1, 1), (*args, SCRATCH, COUNTERS))
    return Program((launch,), scratch=4 * tiles * schedule.bm * schedule.bn * schedule.split, counters=tiles)


def steps_of(em: GpuEmitter, steps: int, split: int, part: Expr) -> tuple[Expr, Expr]:
    """The first step of a part of the depth, and that behind its last: as even as can be."""
    if split == 1:
        return 0, steps
    each, longer = divmod(steps, split)
    begin = em.let(part * each + tirx.min(part, longer), "begin")
    return begin, em.let(begin + each + tirx.Cast("int32", part < longer), "end")


@contextmanager
def whole(em: GpuEmitter, schedule: Cut, grid: tuple[int, int, int], sums: Any, count: int) -> Iterator[None]:
    """Statements that are done once for each tile, with the `count` sums of a thread (whole quads) of all parts."""
    split, quads = schedule.split, count // QUAD
    if split == 1:
        yield
        return
    parts, (across, down, part) = em.buffers[PARTS], em.blocks
    tile = em.let(down * grid[0] + across, "tile_number")

    def place(number: Expr, q: Expr) -> Expr:
        return ((tile * split + number) * quads + q) * schedule.threads + em.thread

    with em.unrolled(quads, "q") as q:
        em.copy_quad(parts, place(part, q), sums, q)
    counter = tirx.address_of(load(em.buffers[COUNTS], tile))
    last = em.let(tirx.call_extern("int32", "id_last", counter, tirx.const(split, "int32")), "last")
    with em.when(last != 0):
        one = em.local(QUAD, sums.dtype, "one")
        with em.unrolled(quads, "q") as q:
            em.copy_quad(sums, q, parts, place(0, q))
        with em.loop(split - 1, "other", 1) as other, em.unrolled(quads, "q") as q:
            em.copy_quad(one, 0, parts, place(other, q))
            for lane in range(QUAD):
                em.store(sums, q * QUAD + lane, load(sums, q * QUAD + lane) + load(one, lane))
        yield
