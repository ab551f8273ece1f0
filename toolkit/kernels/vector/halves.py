"""Direct convolution of fp16 on ARM: the tiles of `vector.conv` in vectors of eight.

Inputs, weights and products are fp16 (`fmla` of eight). A sum of many of them would lose what is small: `CHAIN`
products are summed in fp16, and those sums in fp32. Bias, addend and clamp are fp32 too. Weights are packed as there,
two bytes each.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from tvm import tirx

from ..elements import BLOCK, HALF, kept
from ..emit import NEON, Emitter, Expr, clamp, fma, load, splat
from ..family import Family
from ..isa import HALF_VECTORS, Isa
from ..spec import Conv
from . import conv
from .conv import ConvSchedule

LANES = 8
"""Halves of a vector."""

CHAIN = 32
"""Products that are summed in fp16: two blocks of channels of a 1x1; of other kernels a row (docs/perf/arm.md)."""


def choose(spec: Conv, isa: Isa) -> ConvSchedule:
    """`vector.conv.tiled` in vectors of eight."""
    start, spec = ConvSchedule(LANES, 1, 1, unroll=BLOCK), conv.whole_blocks(spec)
    chosen = conv.tiled(spec, replace(isa, lanes=LANES, dots=()), start, conv.MOST_BY_LANE)
    return replace(conv.balanced(spec, chosen), k_block=0)


def space(spec: Conv, isa: Isa) -> Iterator[tuple[ConvSchedule, dict[str, tuple[int, ...]]]]:
    """`vector.conv.space` in vectors of eight, whose blocks are unrolled whole and done one after the other."""
    for schedule, knobs in conv.space(conv.whole_blocks(spec), replace(isa, lanes=LANES, dots=())):
        yield replace(schedule, unroll=BLOCK), {"fetch": knobs["fetch"]}


def features(spec: Conv, schedule: ConvSchedule, threads: int) -> list[float]:
    """`vector.conv.features` of whole blocks."""
    return conv.features(conv.whole_blocks(spec), schedule, threads)


def pack_weight(weight: np.ndarray, spec: Conv, schedule: ConvSchedule) -> np.ndarray:
    """`[O, I, r, s]` (physical channels) to the order the kernel reads, as uint16. I is one group's input channels."""
    return kept(conv.pack_weight(weight, conv.whole_blocks(spec), schedule), HALF)


class _Halves(conv.Direct):
    """`Direct`, whose sums are in two parts."""

    itemsize = 2

    def tile(self, where: conv.Tile) -> None:
        """See `Direct.tile`. All of the depth is done at once."""
        em, spec, vectors = self.emitter, self.spec, self.schedule.vectors
        (src0, add0, dst0), group, y, x, width, blocks, turn = where
        acc, sums = em.local(width * self.wide, "float16"), em.local(width * self.wide, name="sums")
        near = em.local(width * LANES, "float16", "near")
        slots = [(p, v, (p * vectors + v) * LANES) for v in range(vectors) for p in range(width)]
        nothing = splat(tirx.const(0, "float16"), LANES)
        places = [em.let(self.out_index(group, v, y, x), "at") for v in range(vectors)]
        for p, v, slot in slots:
            start = load(em.buffers["bias"], (group * vectors + v) * LANES, LANES)
            if spec.add:
                start = start + em.read("add", add0 + places[v] + p * BLOCK, LANES)
            em.store(sums, slot, start)
            em.store(acc, slot, nothing)

        def flush() -> None:
            """To the sums in fp32."""
            for _, _, slot in slots:
                total = load(sums, slot, LANES) + tirx.Cast(f"float32x{LANES}", load(acc, slot, LANES))
                em.store(sums, slot, total)
                em.store(acc, slot, nothing)

        step, spread = spec.stride[1], spec.dilation[1]

        def column(base: Expr, panel: Expr, s: Expr, inside: list[int]) -> None:
            """All channels of a block, of one column of taps."""
            for first in range(0, BLOCK, LANES):
                for p in inside:
                    em.store(near, p * LANES, self.halves("src", base + (p * step + s * spread) * BLOCK + first))
                for lane in range(LANES):
                    at = panel + (s * BLOCK + first + lane) * self.wide
                    weights = [em.let(self.halves("weight", at + v * LANES), "w") for v in range(vectors)]
                    for p, v, slot in slots:
                        if p in inside:
                            a = splat(load(near, p * LANES + lane), LANES)
                            em.store(acc, slot, fma(a, weights[v], load(acc, slot, LANES)))

        def taps(block: Expr, r: Expr, iy: Expr) -> None:
            """All columns of a kernel row."""
            base, panel = self.source(src0, group, block, iy, x), self.panel(group, block, r)
            self.each_column(x, width, lambda s, inside: column(base, panel, s, inside))
            if each == 0:
                flush()

        each = CHAIN // (BLOCK * math.prod(spec.kernel))  # blocks of a chain; 0 where one has several

        def one(block: Expr) -> None:
            self.fetch_ahead(group, block, turn)
            self.rows(y, lambda r, iy: taps(block, r, iy))

        count = blocks[1] - blocks[0]
        with em.loop(-(-count // max(each, 1)), "chain") as chain:
            if each <= 1:
                one(chain + blocks[0])
            else:
                size = each if count % each == 0 else tirx.min(each, count - chain * each)
                with em.loop(size, "block", chain * each + blocks[0]) as block:
                    one(block)
            if each:
                flush()
        for p, v, slot in slots:
            parts = [clamp(load(sums, slot + first, NEON), spec.activation) for first in range(0, LANES, NEON)]
            em.write("dst", dst0 + places[v] + p * BLOCK, *parts)

    def halves(self, pointer: str, at: Expr) -> Expr:
        """Eight of them."""
        return tirx.reinterpret(f"float16x{LANES}", load(self.emitter.buffers[pointer], at, LANES))


def emit(spec: Conv, schedule: ConvSchedule, name: str) -> list[tirx.PrimFunc]:
    """The convolution as a TIR function of the emitter's C signature."""
    return [_Halves(conv.whole_blocks(spec), schedule, Emitter(name, spec.pointers)).emit()]


def serves(spec: Conv, isa: Isa) -> str | None:
    """Of fp16 alone; the network's own input is fp32."""
    if spec.in_element != HALF:
        return f"it multiplies {spec.in_element}, not fp16"
    return None if isa.has(HALF_VECTORS) else f"{isa.name} has no instruction that multiplies vectors of fp16"


def _repacked(spec: Conv, _isa: Isa, schedule: ConvSchedule, vectors: int) -> ConvSchedule:
    return replace(conv.repacked(conv.whole_blocks(spec), schedule, vectors), k_block=0)


CONV: Family[Conv, ConvSchedule] = Family(
    "vector.halves",
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
