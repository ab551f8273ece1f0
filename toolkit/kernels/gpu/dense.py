"""A fully connected layer of a few images on a GPU: bound by reading the weights once.

A warp computes one output: its lanes read a row of weights in order, four floats each, and multiply them with the
input of every image. The 32 sums of a warp are added up through shared memory, always in the same order. Weights stay
`[O][K]`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from tvm import tirx

from ..elements import BLOCK, kept
from ..emit import clamp, const, load
from ..family import Family, Launch, Program, of_gpu
from ..isa import Isa
from ..spec import Conv
from .emit import QUAD, REALS, GpuEmitter, div, fma, mod
from .epilogue import write_plain

WARP = 32
MAX_BATCH = 8
"""Images whose sums a thread keeps. With more, the matrix product of `gpu.conv` is the better one, but for weights that
a plan for fewer images has packed: then neighbouring blocks, which run at the same time, read the same weights for
these and those images.
"""


@dataclass(frozen=True)
class DenseSchedule:
    """How a fully connected layer is cut.

    Attributes:
        warps: of a block, each with one output; divides 16.
    """

    warps: int = 8


def fits(spec: Conv) -> bool:
    """Every output reads all inputs of its image, and there are few images."""
    maps = (spec.height, spec.width, spec.out_height, spec.out_width)
    alone = spec.groups == 1 and not spec.split
    return spec.pointwise and maps == (1, 1, 1, 1) and alone and spec.batch <= MAX_BATCH


def images(spec: Conv) -> tuple[int, int]:
    """Into how many parts the images are cut, and how many a part has; the last may have fewer."""
    cut = -(-spec.batch // MAX_BATCH)
    each = -(-spec.batch // cut)
    return -(-spec.batch // each), each


def program(spec: Conv, schedule: DenseSchedule) -> Program:
    """One launch."""
    grid = (images(spec)[0], spec.out_channels // schedule.warps, 1)
    launch = Launch(grid, (schedule.warps * WARP, 1, 1), tuple(range(len(spec.operands))))
    return Program((launch,))


def pack_weight(weight: np.ndarray, spec: Conv, _schedule: DenseSchedule) -> np.ndarray:
    """`[O, K, 1, 1]` to `[O][K]`."""
    return kept(np.ascontiguousarray(weight.reshape(len(weight), -1), dtype=np.float32), spec.in_element)


def emit(spec: Conv, schedule: DenseSchedule, symbol: str) -> list[Any]:
    """The device function."""
    return [_emit(spec, schedule, symbol)]


def _emit(spec: Conv, schedule: DenseSchedule, symbol: str) -> tirx.PrimFunc:
    em = GpuEmitter(symbol, spec.pointers, program(spec, schedule).launches[0])
    quads, (cut, each) = spec.channels // QUAD, images(spec)
    # one float more a row, so that the 32 sums of different warps lie in different banks
    shared = em.shared(schedule.warps * each * (WARP + 1), "partial")
    sums = em.local(each, name="sums")
    w, x = em.local(QUAD, name="w"), em.local(QUAD, name="x")
    lane, warp = em.let(mod(em.thread, WARP), "lane"), em.let(div(em.thread, WARP), "warp")
    first, row = em.blocks[0] * each if cut > 1 else 0, em.blocks[1] * schedule.warps
    output = em.let(row + warp, "output")
    with em.unrolled(each) as n:
        em.store(sums, n, const(0.0))
    with em.loop(div(quads - lane + (WARP - 1), WARP), "step") as step:
        at = em.let(step * WARP + lane, "at")
        em.copy(w, 0, em.buffers["weight"], output * quads + at)
        with em.unrolled(each, "n") as n:
            # what a part lacks is read twice, and not written
            image = tirx.min(first + n, spec.batch - 1) if spec.batch % each else first + n
            em.copy(x, 0, em.buffers["src"], image * (spec.in_stride // QUAD) + at)
            for q in range(QUAD):
                em.store(sums, n, fma(load(x, q), load(w, q), load(sums, n)))
    with em.unrolled(each, "n") as n:
        em.store(shared, (warp * each + n) * (WARP + 1) + lane, load(sums, n))
    em.barrier()
    total = em.local(1, name="total")
    exists = em.thread < schedule.warps * each
    if spec.batch % each:
        exists = tirx.all(exists, first + mod(em.thread, each) < spec.batch)
    with em.when(exists):
        mine = em.let(row + div(em.thread, each), "mine")
        image = em.let(first + mod(em.thread, each), "image") if spec.batch > 1 else 0
        em.store(total, 0, load(em.buffers["bias"], mine))
        with em.loop(WARP, "i") as i:
            em.store(total, 0, load(total, 0) + load(shared, em.thread * (WARP + 1) + i))
        value = load(total, 0)
        if spec.add:
            value = value + em.read("add", image * spec.add_stride + mine)
        result = clamp(value, spec.activation)
        if spec.plain:
            write_plain(em, spec, image, mine, [result])
        else:
            em.write("dst", image * spec.out_stride + mine, result)
    return em.finish()


def units(spec: Conv, schedule: DenseSchedule) -> int:
    """Blocks of threads."""
    return images(spec)[0] * spec.out_channels // schedule.warps


def serves(spec: Conv, isa: Isa) -> str | None:
    """fp32, or what is converted to it, of a few images."""
    if spec.in_element not in REALS:
        return of_gpu(isa) or f"it multiplies {spec.in_element}"
    return of_gpu(isa) or (None if fits(spec) else f"it is no fully connected layer of at most {MAX_BATCH} images")


DENSE: Family[Conv, DenseSchedule] = Family(
    "gpu.dense", Conv, serves, lambda _spec, _isa: DenseSchedule(), units, emit, pack_weight, program=program
)

assert BLOCK % DenseSchedule().warps == 0
