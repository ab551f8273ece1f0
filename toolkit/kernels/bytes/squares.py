"""Convolution of bytes by an instruction that multiplies matrices of two rows: smmla."""

from __future__ import annotations

import itertools

from tvm import tirx

from ..arm import HALVES
from ..emit import Expr, load, splat
from ..vector.conv import Tile
from .direct import Direct
from .math import dot


class Squares(Direct):
    """With an instruction that multiplies two pixels by two outputs. A pair of pixels has its sums of four outputs in
    two vectors, the first of them for two outputs; a pixel outside of the image, or beside an odd one, is zeros.
    """

    def tile(self, where: Tile) -> None:
        """See `Direct.tile`."""
        em, spec, vectors, lanes = self.emitter, self.spec, self.schedule.vectors, self.schedule.lanes
        (src0, add0, dst0), group, y, x, width, blocks, turn = where
        acc = self.started(group, y, x, width)
        pairs = -(-width // 2)
        sums = em.local(pairs * 2 * self.wide, "int32", "sums")

        def half(which: int, kind: str, a: Expr, b: Expr) -> Expr:
            return em.inline(HALVES, f"{('lower', 'upper')[which]}_{kind}", kind, a, b)

        def slot(pair: int, v: int, which: int) -> int:
            return ((pair * vectors + v) * 2 + which) * lanes

        def of(p: int, v: int) -> Expr:
            return load(acc, (min(p, width - 1) * vectors + v) * lanes, lanes)

        for pair, v, which in itertools.product(range(pairs), range(vectors), (0, 1)):
            em.store(sums, slot(pair, v, which), half(which, "int32x4", of(2 * pair, v), of(2 * pair + 1, v)))

        step, spread = spec.stride[1], spec.dilation[1]

        def taps(block: Expr, r: Expr, iy: Expr) -> None:
            base, panel = self.source(src0, group, block, iy, x), self.panel(group, block, r)
            for s in range(spec.kernel[1]):
                inside = set(self.columns(x, width, s))
                if not inside:
                    continue
                pixels = [
                    em.let(self.bytes(base + (p * step + s * spread) * self.pixel if p in inside else None), "pixel")
                    for p in range(2 * pairs)
                ]
                for part in (0, 1):
                    two = [em.let(half(part, "int8x16", pixels[2 * i], pixels[2 * i + 1]), "two") for i in range(pairs)]
                    at = panel + (s * self.in_lanes + part) * (self.wide * self.depth)
                    for v, which in itertools.product(range(vectors), (0, 1)):
                        w = em.let(
                            load(em.buffers["weight"], at + (2 * v + which) * self.dot.count, self.dot.count), "w"
                        )
                        for i in range(pairs):
                            place = slot(i, v, which)
                            em.store(sums, place, dot(em, self.dot, load(sums, place, lanes), two[i], w))

        with em.loop(blocks[1] - blocks[0], "block", blocks[0]) as b:
            self.fetch_ahead(group, b, turn)
            self.rows(y, lambda r, iy: taps(b, r, iy))
        for p, v in itertools.product(range(width), range(vectors)):
            first, second = (load(sums, slot(p // 2, v, which), lanes) for which in (0, 1))
            em.store(acc, (p * vectors + v) * lanes, half(p % 2, "int32x4", first, second))
        self.finished(acc, (group, y, x, width), add0, dst0)

    def bytes(self, at: Expr | None) -> Expr:
        """A pixel of a block as the instruction takes it; zeros for none."""
        if at is None:
            return splat(tirx.const(0, "int8"), self.pixel)
        value = load(self.emitter.buffers["src"], at, self.pixel)
        lowered = value ^ splat(tirx.const(self.dot.offset, "uint8"), self.pixel)
        return tirx.reinterpret(f"int8x{self.pixel}", lowered)
