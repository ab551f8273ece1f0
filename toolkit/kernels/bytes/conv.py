"""Direct convolution of bytes for CPUs with AVX-512 VNNI: the tiles of `cpu_conv`, four input channels at a time.

One ``vpdpbusd`` multiplies, in each of 16 lanes, four unsigned input bytes by four signed weights and adds the products
to an int32; the four input bytes are one broadcast word. Weights are packed as `[group of vectors][input
block][r][s][word][vectors * 16][4]`.

Taps outside of the image are left out, as in fp32. The zero point they would have read is in the bias: see
`spec.Conv`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from tvm import tirx

from ..cut import split
from ..elements import BLOCK
from ..emit import Emitter, Expr, clamp, load, splat
from ..spec import Conv, tap_sets
from ..vector import conv
from ..vector.conv import ConvSchedule
from .math import added, narrow, real, rounded, widen

WORD = 4
"""Bytes that one multiply-add takes at once."""

LANES = 16
"""int32 in a vector register."""


POINTWISE_PIXELS = 10
"""Pixels of a pointwise tile of two vectors: a wider one reads its weights less often, and more accumulators spill."""

WIDE_KERNEL, WIDE_PIXELS = 5, 6
"""Kernels from so many columns on do best with tiles of so many pixels: their edge tiles are code of their own."""


def choose(spec: Conv, *, lanes: int, registers: int) -> ConvSchedule:
    """`cpu_conv.choose` for a quarter of the depth (a word is what a float is there), where measuring found no better.

    docs/perf/cpu-int8.md holds it against measurements.
    """
    words = replace(spec, channels=spec.channels // WORD)
    row = conv.image(spec)[3]
    if spec.pointwise and row > 1 and spec.out_channels // spec.groups // LANES % 2 == 0:
        return conv.balanced(words, ConvSchedule(LANES, 2, max(split(row, POINTWISE_PIXELS))))
    # A tile's accumulators never leave the registers half done: bytes could not hold them.
    chosen = replace(conv.choose(words, lanes=LANES, registers=registers), k_block=0)
    if spec.kernel[1] < WIDE_KERNEL or chosen.pixels <= WIDE_PIXELS:
        return chosen
    return conv.balanced(words, replace(chosen, pixels=max(split(row, WIDE_PIXELS))))


def units(spec: Conv, schedule: ConvSchedule) -> int:
    """Work units of the kernel."""
    return conv.units(spec, schedule)


def pack_weight(weight: np.ndarray, spec: Conv, schedule: ConvSchedule) -> np.ndarray:
    """int8 `[O, I, r, s]` (physical channels) to the order the kernel reads. I is one group's input channels."""
    out, channels, rows, columns = weight.shape
    wide = schedule.lanes * schedule.vectors
    words = (WORD if spec.planar else BLOCK) // WORD
    parts = weight.reshape(out // wide, wide, channels // (words * WORD), words, WORD, rows, columns)
    return np.ascontiguousarray(parts.transpose(0, 2, 5, 6, 3, 1, 4), dtype=np.int8)


class _Bytes(conv.Direct):
    """`Direct` in words of four bytes. Positions in the input count words, in weights and outputs elements."""

    elements = WORD

    def __init__(self, spec: Conv, schedule: ConvSchedule, name: str) -> None:
        # words of four bytes: what one broadcast reads
        pointers = [(n, "int32" if n == "src" else element) for n, element in spec.pointers]
        super().__init__(spec, schedule, Emitter(name, pointers))
        self.in_lanes = 1 if spec.planar else BLOCK // WORD
        self.in_blocks = 1 if spec.planar else spec.channels // BLOCK
        self.pixel = self.in_lanes
        self.in_plane = spec.height * spec.width * self.in_lanes
        columns = tap_sets(spec)[1]
        known = list(dict.fromkeys(columns))
        one = spec.column_sets == 1
        self.column_set = [0 if one else known.index(found) for found in columns]
        self.whole = 0 if one or (0, spec.kernel[1]) not in known else known.index((0, spec.kernel[1]))

    def tile(
        self,
        image_: tuple[Expr, Expr, Expr],
        group: Expr,
        y: Expr,
        x: int | Expr,
        width: int,
        blocks: tuple[int, int],
        turn: Expr,
    ) -> None:
        """See `Direct.tile`. All of the depth is done at once."""
        em, spec, vectors = self.emitter, self.spec, self.schedule.vectors
        src0, add0, dst0 = tirx.floordiv(image_[0], WORD), image_[1], image_[2]
        acc = em.local(width * self.wide, "int32")
        rows_seen = load(em.buffers["sets"], y) if spec.row_sets > 1 else 0
        first_set = em.let(rows_seen * spec.column_sets, "set")

        def slot(p: int, v: int) -> int:
            return (p * vectors + v) * LANES

        for v in range(vectors):
            starts: dict[int, Expr] = {}
            for p in range(width):
                seen = self.column_set[x + p] if isinstance(x, int) and not spec.pointwise else self.whole
                if seen not in starts:
                    at = (first_set + seen) * spec.out_channels + (group * vectors + v) * LANES
                    starts[seen] = em.let(load(em.buffers["bias"], at, LANES), "start")
                em.store(acc, slot(p, v), starts[seen])

        def taps(block: Expr, r: Expr, iy: Expr) -> None:
            """All columns and words of one kernel row."""
            step, spread = spec.stride[1], spec.dilation[1]
            base, panel = self.source(src0, group, block, iy, x), self.panel(group, block, r)
            for s in range(spec.kernel[1]):
                inside = self.columns(x, width, s)
                for word in range(self.in_lanes if inside else 0):
                    panel_at = panel + (s * self.in_lanes + word) * (self.wide * WORD)
                    weights = [
                        em.let(load(em.buffers["weight"], panel_at + v * LANES * WORD, LANES * WORD), "w")
                        for v in range(vectors)
                    ]
                    for p in inside:
                        at = base + (p * step + s * spread) * self.pixel + word
                        a = em.let(splat(load(em.buffers["src"], at), LANES), "a")
                        for v in range(vectors):
                            em.store(acc, slot(p, v), dot(load(acc, slot(p, v), LANES), a, weights[v]))

        with em.loop(blocks[1] - blocks[0], "block", blocks[0]) as b:
            self.fetch_ahead(group, b, turn)
            self.rows(y, lambda r, iy: taps(b, r, iy))
        for v in range(vectors):
            at = em.let(self.out_index(group, v, y, x), "at")
            factor = em.let(load(em.buffers["factor"], (group * vectors + v) * LANES, LANES), "factor")
            for p in range(width):
                self.finish(load(acc, slot(p, v), LANES), factor, add0 + at + p * BLOCK, dst0 + at + p * BLOCK)

    def finish(self, acc: Expr, factor: Expr, add_at: Expr, dst_at: Expr) -> None:
        """The epilogue of one vector."""
        em, spec = self.emitter, self.spec
        if spec.rounding is None:
            em.store(em.buffers["dst"], dst_at, clamp(real(acc) * factor, spec.activation))
            return
        q = em.let(rounded(acc, factor, spec.rounding), "q")
        if spec.addition is not None:
            q = added(q, widen(load(em.buffers["add"], add_at, LANES)), spec.addition)
        em.store(em.buffers["dst"], dst_at, narrow(q))


def dot(acc: Expr, a: Expr, weight: Expr) -> Expr:
    """``vpdpbusd``: int32x16 plus, lane by lane, four unsigned bytes (a word of `a`) times four signed ones."""
    unsigned = tirx.reinterpret("uint8x64", a)
    return tirx.call_llvm_pure_intrin("int32x16", "llvm.x86.avx512.vpdpbusd.512", acc, unsigned, weight)


def emit(spec: Conv, schedule: ConvSchedule, name: str) -> tirx.PrimFunc:
    """The convolution as a TIR function of the emitter's C signature."""
    return _Bytes(spec, schedule, name).emit()
