"""The instructions of one step: tiles of outputs, each a sum of chunks that take turns in the contexts of SRAM.

    for each tile of the output        (rows, columns and blocks; the order is the tiling's)
        reset
        for each stage
            lead
            for each term: for each chunk of its depth
                LOAD inputs, LOAD tiles, a GEMM for each tap
            bias, pooling, shift, clamp
        STORE

A tap that leaves the input is multiplied for the pixels inside alone: padding is neither stored nor computed.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache, lru_cache
from typing import NamedTuple

from ..spec.vta import Pooling, Reads, Reduce, Stage, Term, Vta
from . import tiling as tilings
from .accelerator import Accelerator
from .area import Area, Rect, Slots, seen_by, taps_of
from .config import Config
from .isa import AluOp, Memory
from .program import GEMM, RESET, Contexts, Loop, Move, Op, Program, Uops, uops
from .tiling import Tile, Tiling, Where

SEQUENCE = 64
"""Micro-operations of the lists that walk over accumulators one by one."""

PAD = 15
"""Elements that a LOAD can leave at either end of a row."""

LOW = -(1 << 15)
"""The least immediate."""


@cache
def _list(config: Config, dst: tuple[int, ...], src: tuple[int, ...], wgt: int | tuple[int, ...]) -> Uops:
    return uops(config, dst, src, (wgt,) * len(dst) if isinstance(wgt, int) else wgt)


def divisor(number: int, most: int) -> int:
    """The greatest divisor of a number that is at most so much."""
    return next(d for d in range(min(number, most), 0, -1) if number % d == 0)


class _Emitter:
    def __init__(self, spec: Vta, tiling: Tiling, accelerator: Accelerator, start: Contexts) -> None:
        self.spec, self.tiling, self.at = spec, tiling, accelerator
        self.config = accelerator.config
        self.inp, self.wgt = Slots(start.inp, tiling.inputs), Slots(start.wgt, tiling.weights)
        self.fixed: list[dict[int, object]] = [{}, {}]  # what lies behind the chunks in each context, by its operand
        self.acc = start.acc % tiling.sums
        self.backwards = False  # chunks come in the other order
        self.ops: list[Op] = []
        self.tail: list[int] = []  # accumulators of the last steps, the newest last
        self.before: tuple[int, Tile, Area] | None = None  # image, tile and accumulators of the tile before
        self.began = 0  # the first instruction of the tile
        self.started = False  # whether a chunk of the tile was multiplied
        self.early: int | None = None  # before which instruction the next chunk is loaded, where not at the end
        self.words: list[dict[int, object]] = [{}, {}]  # what lies behind each context's accumulators, by its operand
        self.pointers = tilings.pointers(spec)

    # -- instructions -------------------------------------------------------------------------------------------------
    def move(self, memory: Memory, operand: int, offset: int, sram: int, rows: int, size: int, stride: int = 0) -> None:
        """A LOAD or STORE."""
        if rows > 1 and stride == size and rows * size < 1 << 16:
            rows, size = 1, rows * size
        most = self.tiling.piece
        if memory is Memory.WGT and rows * size > most:
            some = max(1, most // size) if rows > 1 else most
            for first in range(0, rows if rows > 1 else size, some):
                if rows > 1:
                    count = min(some, rows - first)
                    self.piece(memory, operand, offset + first * stride, sram + first * size, count, size, stride)
                else:
                    self.piece(memory, operand, offset + first, sram + first, 1, min(some, size - first), 0)
            return
        self.piece(memory, operand, offset, sram, rows, size, stride)

    def piece(self, memory: Memory, operand: int, offset: int, sram: int, rows: int, size: int, stride: int) -> None:
        """A LOAD or STORE, in as many instructions as its fields ask for."""
        if rows > 1 and stride >= 1 << 16:
            for row in range(rows):
                self.piece(memory, operand, offset + row * stride, sram + row * size, 1, size, 0)
            return
        self.ops.append(Move(memory, operand, offset, sram, rows, size, stride if rows > 1 else size))

    def loop(self, what: int, listed: Uops, **more: int | None) -> None:
        """A GEMM or ALU instruction, steps to pass the time before it where it follows too closely."""
        length = more.pop("length", None) or len(listed)
        for axis in ("out", "in"):  # of one round the distance to the next means nothing, and its bits may not hold it
            if more.get(f"iter_{axis}", 1) == 1:
                more |= {f"{index}_{axis}": 0 for index in ("dst", "src", "wgt")}
        it = Loop(what, listed, length, **more)  # type: ignore[arg-type]
        near = self.at.distance - 1
        first = [it.at(self.config, number) for number in range(min(near, it.steps))]
        for number, touched in enumerate(first):
            if set(touched) & set(self.tail[max(0, len(self.tail) - near + number) :]):
                self.spacer()
                break
        self.ops.append(it)
        last = [it.at(self.config, it.steps - 1 - number)[0] for number in range(min(near, it.steps))]
        self.tail = (self.tail + last[::-1])[-near:] if near else []

    def spacer(self) -> None:
        """As many steps on accumulators that nobody reads as must pass between two of one."""
        base = self.at.idle
        listed = _list(self.config, tuple(range(base, base + self.at.distance)), (0,) * self.at.distance, self.idle)
        self.ops.append(Loop(RESET, listed, len(listed)))
        self.tail = []

    @property
    def idle(self) -> int:
        """A weight tile that nothing writes."""
        return self.config.wgt_depth - 1

    def walk(self, what: int, base: int, size: int, imm: int | None = None) -> None:
        """An operation on accumulators that follow each other."""
        most = divisor(size, SEQUENCE)
        reach = min(SEQUENCE, self.at.acc_depth - base)
        dst = tuple(range(base, base + reach))
        listed = _list(self.config, dst, (0,) * reach if what == RESET else dst, self.idle if what == RESET else 0)
        step = 0 if what == RESET else most
        self.loop(what, listed, length=most, iter_in=size // most, dst_in=most, src_in=step, imm=imm)

    def rect(self, what: int, area: Area, rect: Rect, imm: int | None = None) -> None:
        """An operation on a part of an area."""
        if rect.empty:
            return
        first = area.base + rect.top * area.columns + rect.left
        dst = tuple(range(first, first + rect.columns))
        reset = what == RESET
        listed = _list(self.config, dst, (0,) * len(dst) if reset else dst, self.idle if reset else 0)
        outer, inner = area.plane, area.columns
        src = (0, 0) if reset else (outer, inner)
        self.loop(what, listed, iter_out=area.blocks, iter_in=rect.rows, dst_out=outer, dst_in=inner,
                  src_out=src[0], src_in=src[1], imm=imm)  # fmt: skip

    def shift(self, base: int, size: int, right: int) -> None:
        """To the right, or left where negative, by immediates that every hardware executes."""
        while right:
            part = max(-16, min(15, right))
            self.walk(AluOp.SHR, base, size, part)
            right -= part

    # -- a tile -------------------------------------------------------------------------------------------------------
    def tile(self, image: int, tile: Tile) -> None:
        """All of a tile of the output."""
        spec, half = self.spec, self.acc
        base = half * self.at.acc_room(self.tiling.sums)
        self.acc = (half + 1) % self.tiling.sums
        window = spec.pooling or Pooling(Reduce.MAX, spec.height, spec.width, (1, 1))
        top, left = tile.top * window.stride[0] - window.pad[0], tile.left * window.stride[1] - window.pad[1]
        high = (tile.rows - 1) * window.stride[0] + window.kernel[0]
        wide = (tile.columns - 1) * window.stride[1] + window.kernel[1]
        inner = Area(base, tile.blocks, high, wide)
        real = Rect(max(0, -top), min(high, window.height - top), max(0, -left), min(wide, window.width - left))
        goal = Area(base + inner.size, tile.blocks, tile.rows, tile.columns) if spec.pooling else inner
        size = max(goal.base + goal.size - base, self.at.distance)
        kept = self.kept(image, tile)
        real = replace(real, top=max(real.top, kept))
        self.began, self.started, self.early = len(self.ops), False, None
        self.walk(RESET, base, size)
        covered = False
        for number, stage in enumerate(spec.stages):
            last = number + 1 == len(spec.stages)
            where = self.pointers[number]
            self.shift(base, inner.size, -stage.lead if number else 0)
            for term, (given, tiles) in zip(stage.terms, where.terms, strict=True):
                if real.empty:
                    continue
                covered |= self.term(image, tile, term, given, tiles, inner, real, (top, left), stage, last)
                self.shift(base, inner.size, -term.shift)
            area = inner
            if last and spec.pooling:
                if kept:
                    self.keep(inner, kept)
                self.before = image, tile, inner
                self.pool(spec.pooling, inner, real, goal, kept)
                area, covered = goal, True
            self.bias(tile, stage, where, area, half)
            covered |= bool(stage.bias)
            covered |= self.clamp(tile, stage, where, area, half)
        if not covered:
            self.walk(AluOp.SHR, goal.base, goal.size, 0)  # a reset leaves something else in OUT
        self.store(image, tile, goal)

    def store(self, image: int, tile: Tile, goal: Area) -> None:
        """Put a tile into the outputs that its blocks belong to."""
        spec = self.spec
        high, wide = spec.map
        top, left = tile.top + spec.corner[0], tile.left + spec.corner[1]
        part = Rect(top, top + tile.rows, left, left + tile.columns)
        for plane in range(spec.planes):
            self.shift(goal.base, goal.size, 8 if plane else 0)
            begin = 0  # the first block of an output
            for number, share in enumerate(spec.outputs):
                size = share.blocks * high * wide
                offset = image * self.images(share.out_stride, spec.planes * size) + plane * size
                blocks = range(max(tile.first, begin), min(tile.first + tile.blocks, begin + share.blocks))
                if blocks:
                    sram = goal.base + (blocks.start - tile.first) * goal.plane
                    own = range(blocks.start - begin, blocks.stop - begin)
                    self.blocks(Memory.OUT, self.pointers[-1].output + number, offset, (high, wide), sram, own, part)
                begin += share.blocks

    def images(self, stride: int, packed: int) -> int:
        """Elements from one image to the next."""
        return stride // self.config.inp_bytes if stride else packed

    def blocks(self, memory: Memory, operand: int, offset: int, shape: tuple[int, int], sram: int,
               blocks: range, part: Rect) -> None:  # fmt: skip
        """Load or store a part of some blocks of channels; it lies densely in SRAM."""
        height, width = shape
        plane, size = height * width, part.rows * part.columns
        start = offset + blocks.start * plane + part.top * width + part.left
        if part.columns == width or part.rows == 1:
            self.move(memory, operand, start, sram, len(blocks), size, plane)
            return
        for number in range(len(blocks)):
            self.move(memory, operand, start + number * plane, sram + number * size, part.rows, part.columns, width)

    # -- sums ---------------------------------------------------------------------------------------------------------
    def term(self, image: int, tile: Tile, term: Term, given: int, tiles: int, inner: Area, real: Rect,
             origin: tuple[int, int], stage: Stage, last: bool) -> bool:  # fmt: skip
        """Add a term; whether it writes every accumulator."""
        seen = seen_by(term, real, origin)
        if seen.empty:
            return False
        frame = self.frame(term, seen, origin)
        taps = [tap for tap in taps_of(term, real, origin, frame) if not tap.part.empty]
        # Blocks of whole rows lie next to each other in DRAM, and so in SRAM.
        plane = (seen if frame.columns == term.width else frame).rows * frame.columns
        number = math.prod(term.kernel)
        offset = image * self.images(term.in_stride, term.blocks * term.height * term.width)
        cut = list(tilings.chunks(self.at, self.spec, self.tiling, term, tile))
        if self.backwards:
            cut.reverse()
        alone = tilings.is_fixed(term) and len(cut) == 1
        first_of_all = alone and not self.started
        self.started = True
        for outs, depths in cut:
            own = term.reads is Reads.OWN
            first = term.first(tile.first + outs.start)
            apart = own and term.group == 1  # each output block has inputs of its own
            many = len(outs) * term.span if apart and len(depths) == term.span else len(depths)
            blocks = range(first + depths.start, first + depths.start + many)
            before, self.ops = self.ops, []
            wgt = self.weights(tile, term, tiles, outs, depths)
            key = (image, given, blocks, seen, frame)
            # Inputs turn with the weights, so that pairs of halves, and lists of micro-operations, stay few.
            if alone:
                slot, there = self.inp.borrow(key, self.inp.last if first_of_all else self.inp.next)
            else:
                slot, there = self.inp.take(key)
            src = 1 + slot * self.at.inp_room(self.tiling.inputs)
            if not there:
                self.inputs(term, given, offset, src, blocks, seen, frame)
            at = len(before) if self.early is None else self.early
            before[at:at] = self.ops
            self.ops = before
            # A shortcut waits for the end of the tile before; what is loaded behind it, and not over it, need not.
            self.early = at if first_of_all and self.tiling.inputs > 1 else None
            for tap in taps:
                self.gemm(
                    _Sum(
                        inner.base + outs.start * inner.plane + tap.part.top * inner.columns + tap.part.left,
                        src + tap.src, wgt + tap.number, tap.part, inner.columns, inner.plane,
                        (term.stride[0] * frame.columns, term.stride[1]),
                        len(outs), term.span * plane if apart else 0, self.pitch(term, depths),
                        len(depths), plane, number,
                    )
                )  # fmt: skip
        return any(tap.part == real for tap in taps)

    def weights(self, tile: Tile, term: Term, tiles: int, outs: range, depths: range) -> int:
        """Load a chunk's weight tiles, where they are not there; where they lie."""
        number = math.prod(term.kernel)
        if tilings.is_fixed(term):
            first, count = (0, 1) if term.shared else (tile.first, tile.blocks)
            base = self.hold(tiles, tile, first * term.steps, count * term.steps)
            return base + (0 if term.shared else outs.start * term.steps) + depths.start * number
        wanted = range(1) if term.shared else range(tile.first + outs.start, tile.first + outs.stop)
        slot, there = self.wgt.take((tiles, wanted, depths))
        base = slot * self.at.wgt_room(self.tiling.weights)
        if not there:
            start = (wanted.start * term.depth + depths.start) * number
            self.move(Memory.WGT, tiles, start, base, len(wanted), len(depths) * number, term.steps)
        return base

    @staticmethod
    def pitch(term: Term, depths: range) -> int:
        """Weight tiles from one block of outputs to the next, in SRAM."""
        if term.shared:
            return 0
        return term.steps if tilings.is_fixed(term) else len(depths) * math.prod(term.kernel)

    def frame(self, term: Term, seen: Rect, origin: tuple[int, int]) -> Rect:
        """Rows and columns that a tile's inputs have room for: the same in all tiles, wherever the map ends, so that
        these share lists of micro-operations.
        """
        rows, columns = tilings.frame(self.spec, self.tiling, term)
        top, left = (start * step - pad for start, step, pad in zip(origin, term.stride, term.pad, strict=True))
        if self.tiling.rows >= self.spec.height:
            top, rows = seen.top, seen.rows
        if columns == term.width or max(seen.left - left, left + columns - seen.right) > PAD:
            left, columns = seen.left, seen.columns
        return Rect(top, top + rows, left, left + columns)

    def inputs(self, term: Term, given: int, offset: int, src: int, blocks: range, seen: Rect, frame: Rect) -> None:
        """Load what a tile sees of some blocks of an input."""
        first = src + (seen.top - frame.top) * frame.columns
        if frame.columns == term.width or (frame.columns == seen.columns and frame.rows == seen.rows):
            self.blocks(Memory.INP, given, offset, (term.height, term.width), first, blocks, seen)
            return
        start = offset + seen.top * term.width + seen.left
        pads = (seen.left - frame.left, frame.right - seen.right)
        for number, block in enumerate(blocks):
            sram = first + number * frame.rows * frame.columns
            place = start + block * term.height * term.width
            self.ops.append(Move(Memory.INP, given, place, sram, seen.rows, seen.columns, term.width, pads=pads))

    def hold(self, operand: int, tile: Tile, first: int, count: int) -> int:
        """Where weight tiles lie that are no chunk's, in the last chunk's context; they are loaded once."""
        slot = self.wgt.last
        places = tilings.fixed(self.spec, self.tiling.blocks)
        base = (slot + 1) * self.at.wgt_room(self.tiling.weights) - places[operand]
        if self.fixed[slot].get(operand) != (first, count):
            self.fixed[slot][operand] = first, count
            self.move(Memory.WGT, operand, first, base, 1, count)
        return base

    def gemm(self, it: _Sum) -> None:
        """One tap of a chunk: the loops are nested so that one sum's steps are far from each other."""
        rows, columns = it.part.rows, it.part.columns
        if columns == it.pitch and it.step == (columns, 1):  # pixels follow each other on both sides
            pixels = rows * columns
            columns = divisor(pixels, max(1, SEQUENCE // it.outs)) if it.outs < SEQUENCE else 1
            rows = pixels // columns
            row_dst, row_src = columns, columns
        else:
            row_dst, row_src = it.pitch, it.step[0]
        if tilings.along_rows(rows, columns, it.outs, self.tiling.uops):
            many = range(it.outs)
            listed = _list(
                self.config,
                tuple(it.dst + o * it.plane + x for o in many for x in range(columns)),
                tuple(it.src + o * it.src_out + x * it.step[1] for o in many for x in range(columns)),
                tuple(it.wgt + o * it.wgt_out for o in many for _ in range(columns)),
            )
            nest = {"iter_in": rows, "dst_in": row_dst, "src_in": row_src}
            apart = rows * len(listed)
            deep = {"iter_out": it.depth, "src_out": it.src_deep, "wgt_out": it.wgt_deep}
        else:
            pixels_of = [(y, x) for y in range(rows) for x in range(columns)]
            listed = _list(
                self.config,
                tuple(it.dst + y * row_dst + x for y, x in pixels_of),
                tuple(it.src + y * row_src + x * it.step[1] for y, x in pixels_of),
                it.wgt,
            )
            nest = {"iter_out": it.outs, "dst_out": it.plane, "src_out": it.src_out, "wgt_out": it.wgt_out}
            apart = len(listed)
            deep = {"iter_in": it.depth, "src_in": it.src_deep, "wgt_in": it.wgt_deep}
        if apart >= self.at.distance or it.depth == 1:
            self.loop(GEMM, listed, **nest, **deep)
            return
        for number in range(it.depth):  # so few sums that each depth is an instruction of its own
            src, wgt = it.src + number * it.src_deep, it.wgt + number * it.wgt_deep
            self.gemm(it._replace(src=src, wgt=wgt, depth=1))

    def bias(self, tile: Tile, stage: Stage, where: Where, area: Area, half: int) -> None:
        """Add the bias."""
        if stage.bias == "tiles":
            self.ops.append(Move(Memory.INP, where.ones, 0, 0, 1, 1, 1, keep=True))
            base = self.hold(where.bias, tile, tile.first * stage.bias_tiles, tile.blocks * stage.bias_tiles)
            columns = divisor(area.plane, SEQUENCE)
            dst = tuple(range(area.base, area.base + columns))
            for number in range(stage.bias_tiles):
                listed = _list(self.config, dst, (0,) * columns, base + number)
                self.loop(GEMM, listed, iter_out=area.blocks, iter_in=area.plane // columns, dst_out=area.plane,
                          dst_in=columns, wgt_out=stage.bias_tiles)  # fmt: skip
        elif stage.bias == "words":
            self.register(AluOp.ADD, area, self.table(tile, where.bias, half))

    def table(self, tile: Tile, operand: int, half: int) -> int:
        """Where the accumulators lie that hold a number for each channel of a tile; loaded where they are not there."""
        place, whole = tilings.tables(self.spec, self.tiling)[operand]
        half = self.tiling.sums - 1 if whole else half
        base = (half + 1) * self.at.acc_room(self.tiling.sums) - place
        first, count = (0, self.spec.out_blocks) if whole else (tile.first, tile.blocks)
        held = self.words[half]
        if held.get(operand) != (first, count):
            held[operand] = first, count
            # in front of the last GEMM, while the bus rests: behind it the bus belongs to the next tile's weights
            own = range(len(self.ops) - 1, self.began, -1)
            at = next((n for n in own if isinstance(op := self.ops[n], Loop) and op.what == GEMM), self.began)
            self.ops.insert(at, Move(Memory.ACC, operand, first, base, 1, count, count))
        return base + tile.first - first

    def register(self, op: AluOp, area: Area, words: int) -> None:
        """An operation with one accumulator for all pixels of a block."""
        columns = divisor(area.plane, SEQUENCE)
        listed = _list(self.config, tuple(range(area.base, area.base + columns)), (words,) * columns, 0)
        self.loop(op, listed, iter_out=area.blocks, iter_in=area.plane // columns, dst_out=area.plane, dst_in=columns,
                  src_out=1)  # fmt: skip

    # -- what becomes of them -----------------------------------------------------------------------------------------
    def kept(self, image: int, tile: Tile) -> int:
        """How many rows of accumulators the tile before has computed, which pooling left as they were."""
        rows = tilings.overlap(self.spec, self.tiling)
        if not rows or self.before is None:
            return 0
        other, above, _ = self.before
        same = (above.left, above.columns, above.first, above.blocks) == (
            tile.left, tile.columns, tile.first, tile.blocks)  # fmt: skip
        return rows if other == image and same and above.top + above.rows == tile.top else 0

    def keep(self, inner: Area, rows: int) -> None:
        """Take the last rows of the tile before as the first ones of this."""
        assert self.before is not None
        above = self.before[2]
        dst = tuple(range(inner.base, inner.base + inner.columns))
        first = above.base + (above.rows - rows) * above.columns
        src = tuple(range(first, first + inner.columns))
        self.loop(AluOp.ADD, _list(self.config, dst, src, 0), iter_out=inner.blocks, iter_in=rows,
                  dst_out=inner.plane, dst_in=inner.columns, src_out=above.plane, src_in=above.columns)  # fmt: skip

    def pool(self, window: Pooling, inner: Area, real: Rect, goal: Area, kept: int) -> None:
        """Windows of rows in place, then of columns into `goal`; the first `kept` rows have their margins."""
        op = AluOp.MAX if window.reduce is Reduce.MAX else AluOp.ADD
        margins = (
            Rect(0, 0 if kept else real.top, 0, inner.columns), Rect(real.bottom, inner.rows, 0, inner.columns),
            Rect(real.top, real.bottom, 0, real.left), Rect(real.top, real.bottom, real.right, inner.columns),
        )  # fmt: skip
        for margin in margins:
            if margin.empty or (op is AluOp.ADD and len(self.spec.stages) == 1):
                continue
            self.rect(RESET, inner, margin)
            if op is AluOp.MAX:
                self.rect(AluOp.MIN, inner, margin, LOW)
                self.rect(AluOp.SHR, inner, margin, -16)
        step = window.stride[0] * inner.columns
        wide, blocks = range(inner.columns), range(inner.blocks)
        if window.kernel[0] > 1:
            dst = tuple(inner.base + o * inner.plane + x for o in blocks for x in wide)
            whole = len(dst) >= self.at.distance
            for y in range(1 if whole else goal.rows):
                for r in range(1, 2 if whole else window.kernel[0]):
                    to = tuple(d + y * step for d in dst)
                    listed = _list(self.config, to, tuple(d + r * inner.columns for d in to), 0)
                    nest = {"iter_out": goal.rows, "dst_out": step, "src_out": step,
                            "iter_in": window.kernel[0] - 1, "src_in": inner.columns}  # fmt: skip
                    self.loop(op, listed, **nest if whole else {})
        dst = tuple(range(goal.base, goal.base + goal.columns))
        for s in range(window.kernel[1]):
            src = tuple(inner.base + x * window.stride[1] + s for x in range(goal.columns))
            self.loop(op if s else AluOp.ADD, _list(self.config, dst, src, 0), iter_out=inner.blocks,
                      iter_in=goal.rows, dst_out=goal.plane, dst_in=goal.columns, src_out=inner.plane,
                      src_in=step)  # fmt: skip

    def clamp(self, tile: Tile, stage: Stage, where: Where, area: Area, half: int) -> bool:
        """Shift and clamp; whether that took an instruction."""
        before = len(self.ops)
        self.shift(area.base, area.size, stage.shift)
        if stage.shifts:
            words = self.table(tile, where.shifts, half)
            self.register(AluOp.SHR, area, words)
        for op, end in ((AluOp.MIN, stage.high), (AluOp.MAX, stage.low)):
            if end is not None:
                self.walk(op, area.base, area.size, end)
        return len(self.ops) > before


class _Sum(NamedTuple):
    """A GEMM: where its operands start and how far their neighbours are."""

    dst: int
    src: int
    wgt: int
    part: Rect
    pitch: int
    plane: int
    step: tuple[int, int]
    outs: int
    src_out: int
    wgt_out: int
    depth: int
    src_deep: int
    wgt_deep: int


@lru_cache(maxsize=4096)
def emit(spec: Vta, tiling: Tiling, accelerator: Accelerator, start: Contexts = Contexts()) -> Program:  # noqa: B008
    """The instructions of a step.

    Args:
        start: the contexts of SRAM to begin with.
    """
    emitter = _Emitter(spec, tiling, accelerator, start)
    alone = tiling.sums == 1  # the steps before and behind may have their last, or first, sums in the same place
    if alone:
        emitter.spacer()
    for image in range(spec.batch // accelerator.config.batch):
        for tile in tilings.tiles(spec, tiling):
            emitter.tile(image, tile)
            emitter.backwards ^= tiling.snake
    if alone:
        emitter.spacer()
    lists = dict.fromkeys(op.uops for op in emitter.ops if isinstance(op, Loop))
    after = Contexts(emitter.inp.next, emitter.wgt.next, emitter.acc)
    return Program(tuple(emitter.ops), tuple(lists), after)
