"""Direct convolution of bytes: the tiles of `vector.conv`, as many input channels at a time as an instruction
multiplies (`dots.Dot`).

One instruction adds, in each lane, the products of a word of the inputs, broadcast to all lanes, and a word of weights
to an int32. Where it multiplies bytes (vpdpbusd), a word of the inputs is four of them as they lie in memory. Where it
multiplies 16-bit numbers (vpmaddwd, smlal), the bytes of a block are widened on the way, a pixel of a tile at a time,
and so are the weights, unless they need more than 8 bits and lie so. Inputs of 16 bits are multiplied as they lie, and
what may leave 32 bits is put together from sums of some input blocks. Where it multiplies signed bytes (sdot), those of
a pixel are lowered by 128 on the way, and the bias makes up for it.

Taps outside of the image are left out, as in fp32. The zero point they would have read is in the bias: see
`spec.Conv`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import tirx

from ..elements import BLOCK, BYTE, SIXTEEN, element_of
from ..emit import Emitter, Expr, load, splat
from ..spec import Conv, column_sets
from ..vector import conv
from ..x86 import WORDS_OF
from .math import broadcast, dot, leave, scaling_at
from .schedule import PIXEL, DotSchedule, sharing


class Direct(conv.Direct):
    """`vector.conv.Direct` in words. Positions in the input count what `src` does: words where the instruction takes
    bytes as they lie, else bytes.
    """

    schedule: DotSchedule

    def __init__(self, spec: Conv, schedule: DotSchedule, name: str) -> None:
        self.dot = schedule.row
        self.itemsize = np.dtype(spec.weight_element).itemsize
        self.depth = self.dot.depth
        self.widened = self.dot.bits > 8 and spec.in_element == BYTE
        # beside inputs of 16 bits only one that takes a word from a lane of several has them laid aside
        self.changed = self.widened or self.dot.offset > 0 or (self.dot.depth == 1 and spec.in_element == SIXTEEN)
        self.shared: Any = None  # the widened pixels of the tiles from `first` on
        self.first: Expr = 0
        self.in_memory = self.widened and schedule.unroll == 1 and self.depth > 1  # pairs, broadcast from there (x86)
        self.few = self.dot.pairs and not self.changed  # registers (x86)
        source = element_of(spec.in_element).stored if self.changed else "int32"
        pointers = [(n, source if n == "src" else element) for n, element in spec.pointers]
        super().__init__(spec, schedule, Emitter(name, pointers))
        lanes = PIXEL if spec.planar else BLOCK
        self.in_lanes = lanes // self.depth
        self.in_blocks = 1 if spec.planar else spec.channels // BLOCK
        self.pixel = lanes if self.changed else self.in_lanes
        self.in_plane = spec.height * spec.width * self.pixel
        self.column_set, self.whole = column_sets(spec)

    def tile(self, where: conv.Tile) -> None:
        """See `Direct.tile`. All of the depth is done at once."""
        em, spec, vectors = self.emitter, self.spec, self.schedule.vectors
        lanes = self.schedule.lanes
        (src0, add0, dst0), group, y, x, width, blocks, turn = where
        src0 = src0 if self.changed else tirx.floordiv(src0, self.depth)
        acc = self.started(group, y, x, width)

        def slot(p: int, v: int) -> int:
            return (p * vectors + v) * lanes

        step, spread = spec.stride[1], spec.dilation[1]
        # Words that are broadcast from memory: all columns of a kernel row, because taps share them.
        reach = (width - 1) * step + (spec.kernel[1] - 1) * spread + 1 if self.in_memory else width
        near = em.buffers["src"]
        if self.changed:
            near = em.local(reach * self.in_lanes, self.dot.word, "near")
        slab = 0 if self.shared is None else em.let((turn - self.first) * self.slab, "slab")

        count = min(self.schedule.unroll, self.in_lanes)
        few = em.local(width * count, self.dot.word, "few") if count > 1 else None
        narrow = 8 * self.itemsize < self.dot.bits
        wider = em.local(self.wide * self.depth, self.dot.second, "w") if narrow else None

        def multiply(panel: Expr, s: int, word: Expr, words: dict[int, Expr]) -> None:
            """One word of a column of taps, which is in all lanes, by the pixel of the tile."""
            at = panel + (s * self.in_lanes + word) * (self.wide * self.depth)
            weights = self.weights(at, wider)
            # code stays in order: there a word is laid while the one before it is used, for cores that would wait
            laid, ahead = list[Expr](), 1 if self.dot.code else 0
            for n, p in enumerate(words):
                laid += [em.let(value, "a") for value in [*words.values()][len(laid) : n + 1 + ahead]]
                for v, w in weights.items():
                    held = BLOCK if self.dot.code else lanes
                    em.store(acc, slot(p, v), dot(em, self.dot, load(acc, slot(p, v), held), laid[n], w))

        def taps(block: Expr, r: Expr, iy: Expr) -> None:
            """All columns and words of one kernel row."""
            base, panel = self.source(src0, group, block, iy, x), self.panel(group, block, r)
            seen = [{p: p * step + s * spread for p in self.columns(x, width, s)} for s in range(spec.kernel[1])]
            of_block: Expr = None
            if self.shared is not None:
                of_block = tirx.address_of(load(self.shared, slab + block * (self.widest * self.in_lanes)))
                of_block = em.let(of_block, "of_block")
            elif self.in_memory:
                for column in sorted({column for of in seen for column in of.values()}):
                    em.store(near, column * self.in_lanes, self.words(base + column * self.pixel))

            def wide(place: Expr, source: Any = near) -> Expr:
                return splat(load(source, place), lanes)

            for s in range(spec.kernel[1]):
                places = {p: base + column * self.pixel for p, column in seen[s].items()}
                if self.in_memory:
                    places = {p: column * self.in_lanes for p, column in seen[s].items()}
                elif self.changed:
                    for p, place in places.items():
                        em.store(near, p * self.in_lanes, self.words(place))
                    places = {p: p * self.in_lanes for p in places}
                if places and ((self.changed and self.dot.bits > 8) or (self.few and spec.kernel[1] > 1)):
                    # A loop, so that `near` stays in memory: a broadcast from there is one load; and LLVM does not keep
                    # words that columns share on the stack. Or there are registers for some words of each pixel, whose
                    # lanes the instruction broadcasts itself.
                    with em.loop(self.looped(self.in_lanes // count), "words") as i:
                        if of_block is not None:
                            call = (WORDS_OF, "words_of", f"int32x{lanes}", of_block)
                            multiply(panel, s, i, {p: em.inline(*call, place, i) for p, place in places.items()})
                            continue
                        if count == 1:
                            multiply(panel, s, i, {p: wide(place + i) for p, place in places.items()})
                            continue
                        for p, place in places.items():
                            em.store(few, p * count, load(near, place + i * count, count))
                        for word in range(count):
                            words = {p: wide(p * count + word, few) for p in places}
                            multiply(panel, s, i * count + word, words)
                    continue
                for word in range(self.in_lanes if places else 0):
                    laid = {p: broadcast(em, self.dot, near, place, word, self.in_lanes) for p, place in places.items()}
                    multiply(panel, s, word, laid)

        def summed(first: Expr, count: Expr) -> None:
            with em.loop(count, "block", first) as b:
                self.fetch_ahead(group, b, turn)
                self.rows(y, lambda r, iy: taps(b, r, iy))

        acc = self.over(summed, acc, blocks, (group, y, x, width))
        self.finished(acc, (group, y, x, width), add0, dst0)

    def over(
        self, summed: Callable[[Expr, Expr], None], acc: Any, blocks: tuple[int, int], _where: tuple[Any, ...]
    ) -> Any:
        """A tile's sums over input blocks; `summed` adds those of so many from a first one on to `acc`."""
        summed(blocks[0], blocks[1] - blocks[0])
        return acc

    def started(self, group: Expr, y: Expr, x: int | Expr, width: int) -> Any:
        """A tile's sums, a pixel's vectors side by side, with the bias in them."""
        return self.biases(group, y, x, width)

    def biases(self, group: Expr, y: Expr, x: int | Expr, width: int, behind: int = 0) -> Any:
        """The biases of a tile, which begin so far behind the first."""
        em, spec, lanes, vectors = self.emitter, self.spec, self.schedule.lanes, self.schedule.vectors
        acc = em.local(width * self.wide, "int32")
        rows_seen = load(em.buffers["sets"], y) if spec.row_sets > 1 else 0
        first_set = em.let(rows_seen * spec.column_sets, "set")
        for v in range(vectors):
            starts: dict[int, Expr] = {}
            for p in range(width):
                seen = self.column_set[x + p] if isinstance(x, int) and not spec.pointwise else self.whole
                if seen not in starts:
                    at = (first_set + seen) * spec.out_channels + (group * vectors + v) * lanes + behind
                    starts[seen] = em.let(load(em.buffers["bias"], at, lanes), "start")
                em.store(acc, (p * vectors + v) * lanes, starts[seen])
        return acc

    def finished(self, acc: Any, where: tuple[Expr, Expr, int | Expr, int], add0: Expr, dst0: Expr) -> None:
        """Round and store a tile's sums, which lie as `started` made them."""
        em, lanes, vectors = self.emitter, self.schedule.lanes, self.schedule.vectors
        group, y, x, width = where
        # vectors of a block become bytes together: one store, and fewer instructions that narrow
        wide = BLOCK if vectors * lanes % BLOCK == 0 else lanes
        for v in range(0, vectors, wide // lanes):
            at = em.let(self.out_index(group, v, y, x), "at")
            factor = em.let(load(em.buffers["factor"], (group * vectors + v) * lanes, wide), "factor")
            scaling = None
            if self.spec.scaling is not None:
                scaling = scaling_at(em, (group * vectors + v) * lanes, self.spec.out_channels, wide)
            for p in range(width):
                sums, add_at, dst_at = load(acc, (p * vectors + v) * lanes, wide), add0 + at, dst0 + at
                place = (add_at + p * BLOCK, dst_at + p * BLOCK)
                leave(em, self.spec, sums, factor, *place, self.schedule.narrow, scaling)

    @property
    def widest(self) -> int:
        """Pixels of the widest tile."""
        return conv.tile_widths(self.spec, self.schedule)[0]

    @property
    def slab(self) -> int:
        """Words of a tile's pixels, where they are shared."""
        return self.in_blocks * self.widest * self.in_lanes

    def emit(self) -> tirx.PrimFunc:
        """The whole kernel."""
        em, spec, parts = self.emitter, self.spec, sharing(self.spec, self.schedule)
        if not parts:
            return super().emit()
        count, rows = conv.row_blocks(spec, self.schedule), self.schedule.rows
        extent, each = len(conv.tile_widths(spec, self.schedule)), self.groups // parts
        with em.units() as unit:
            rest = em.let(tirx.floormod(unit, count * parts), "rest") if spec.batch > 1 else unit
            n = em.let(tirx.floordiv(unit, count * parts), "n") if spec.batch > 1 else 0
            image_ = (n * spec.in_stride, n * spec.add_stride, n * spec.out_stride)
            block, part = em.let(tirx.floordiv(rest, parts)), em.let(tirx.floormod(rest, parts))
            self.first = em.let(block * rows, "first")
            end = em.let(tirx.min(self.first + rows, extent), "end")
            self.shared = em.local(min(rows, extent) * self.slab, self.dot.word, "shared")

            def share(x: Expr, width: int, t: Expr) -> None:
                slab = em.let((t - self.first) * self.slab, "slab")
                with em.loop(self.in_blocks, "block") as b:
                    base = self.source(image_[0], 0, b, 0, x)
                    for p in range(width):
                        at = slab + (b * self.widest + p) * self.in_lanes
                        em.store(self.shared, at, self.words(base + p * self.pixel))

            self.each_tile(self.first, end, share)
            with em.loop(each, "group", part * each) as group:
                self.tiles(image_, group, self.first, end, (0, self.in_blocks))
        return em.finish()

    def looped(self, count: int) -> Expr:
        """`count`; where pairs are broadcast from memory (x86), in a form that LLVM does not see through: it would
        unroll narrow tiles and keep `near` in registers, where each word takes a shuffle and sums are spilled.
        """
        if not self.in_memory and not self.few:
            return count
        return count + tirx.min(self.emitter.lo, tirx.const(0, "int32"))

    def weights(self, at: Expr, wider: Any) -> dict[int, Expr]:
        """The words of weights of each vector, or of each four, as the instruction takes them.

        Args:
            wider: None, or where they are widened, a block at a time at least: room for all of them.
        """
        em, count = self.emitter, self.schedule.lanes * self.depth
        each = range(0, self.schedule.vectors)
        source, wide = em.buffers["weight"], max(count, 8)
        if wider is not None:
            for start in range(0, len(each) * count, wide):
                em.store(wider, start, tirx.Cast(f"{self.dot.second}x{wide}", load(source, at + start, wide)))
            return {v: em.let(load(wider, v * count, count), "w") for v in each}
        once = BLOCK // self.schedule.lanes if self.dot.code else 1
        return {v: em.let(load(source, at + v * count, once * count), "w") for v in each[::once]}

    def words(self, at: Expr) -> Expr:
        """The bytes of a pixel of a block as words: widened, or lowered by flipping the highest bit."""
        value = load(self.emitter.buffers["src"], at, self.pixel)
        if not self.widened and not self.dot.offset:
            return value
        if self.dot.offset:
            value = value ^ splat(tirx.const(self.dot.offset, "uint8"), self.pixel)
        else:
            value = tirx.Cast(f"{self.dot.first}x{self.pixel}", value)
        return tirx.reinterpret(f"{self.dot.word}x{self.in_lanes}" if self.in_lanes > 1 else self.dot.word, value)
