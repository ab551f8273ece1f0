"""How a step is cut into tiles that fit a VTA's SRAM, and which cut a model of the time takes to be fastest."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from inception_deploy.errors import DeployError

from ..spec.vta import Reads, Stage, Term, Vta
from .accelerator import Accelerator
from .bound import behind, pairs, shifts

PIECE = 64
"""`Tiling.piece` where nobody has searched."""

CONTEXTS = ("inputs", "weights", "sums")
"""The fields of a `Tiling` that say how memories are split."""

FEW = 64
"""Tiles that are kept for all of a step, of one term."""

USUAL = 400
"""Micro-operations of resets, biases and the ALU."""


@dataclass(frozen=True)
class Tiling:
    """How a step is cut.

    Attributes:
        rows, columns, blocks: of the output, in a tile. The last ones are smaller where they do not divide.
        deep: the tiles of one group of blocks follow each other, over all pixels; otherwise those of a group of pixels.
        uops: the shortest list of micro-operations, where there is a choice.
        snake: every second round over tiles, and every second tile's over chunks, goes backwards: it begins with what
            the one before has ended with, and finds that in SRAM.
        piece: weight tiles that are loaded at once, about: the bus belongs to one transfer until it ends.
        inputs, weights, sums: contexts of INP, WGT and ACC: 2 where a half is filled while the other one is used, 1
            where one use has all of the memory.
    """

    rows: int
    columns: int
    blocks: int
    deep: bool = False
    uops: int = 24
    snake: bool = False
    piece: int = PIECE
    inputs: int = 2
    weights: int = 2
    sums: int = 2


@dataclass(frozen=True)
class Tile:
    """A tile of the output."""

    top: int
    rows: int
    left: int
    columns: int
    first: int
    blocks: int


def _cut(size: int, most: int) -> list[tuple[int, int]]:
    """As few pieces as `most` allows, as alike as can be: the first of each, and how many."""
    count = -(-size // most)
    ends = [size * number // count for number in range(count + 1)]
    return [(a, b - a) for a, b in itertools.pairwise(ends)]


def _even(size: int, most: int) -> list[tuple[int, int]]:
    """Pieces as `_cut` makes them, or up to half as many more where these are all alike: they share lists of
    micro-operations.
    """
    count = -(-size // most)
    alike = next((more for more in range(count, count + count // 2 + 2) if size % more == 0), count)
    return _cut(size, -(-size // alike))


def tiles(spec: Vta, tiling: Tiling) -> Iterator[Tile]:
    """All tiles in order."""
    groups = _cut(spec.out_blocks, tiling.blocks)
    pixels = [(y, x) for y in _cut(spec.height, tiling.rows) for x in _cut(spec.width, tiling.columns)]
    overlapping = overlap(spec, tiling) > 0
    if overlapping:
        pixels.sort(key=lambda pixel: (pixel[1], pixel[0]))  # the next tile goes on where this one ends
    deep = tiling.deep
    snake = tiling.snake and not (deep and overlapping)
    for number in range(len(groups) if deep else len(pixels)):
        back = -1 if snake and number % 2 else 1
        of_pixels, of_groups = (pixels[::back], groups[number : number + 1]) if deep else (
            pixels[number : number + 1], groups[::back])  # fmt: skip
        for (top, rows), (left, columns) in of_pixels:
            for first, blocks in of_groups:
                yield Tile(top, rows, left, columns, first, blocks)


def overlap(spec: Vta, tiling: Tiling) -> int:
    """Rows of accumulators that windows of two tiles, one below the other, share, and that the second one can take
    from the first: what is done to all accumulators of a tile must be done when they are taken.
    """
    if spec.pooling is None or len(spec.stages) > 1 or any(term.shift for term in spec.terms) or tiling.sums == 1:
        return 0
    return max(0, spec.pooling.kernel[0] - spec.pooling.stride[0])


def along_rows(rows: int, columns: int, outs: int, least: int) -> bool:
    """Whether a GEMM's list of micro-operations walks along a row in each of `outs` blocks, and not over all rows of
    one block: the shorter of the two that is long enough, or the longer one.
    """
    one, other = columns * outs, rows * columns
    return one <= other if min(one, other) >= least else one >= other


class Where:
    """The operands of a stage by their numbers."""

    def __init__(self, stage: Stage, first: int) -> None:
        numbers = itertools.count(first)
        self.terms = [(next(numbers), next(numbers)) for _ in stage.terms]
        self.ones = next(numbers) if stage.bias == "tiles" else -1
        self.bias = next(numbers) if stage.bias else -1
        self.shifts = next(numbers) if stage.shifts else -1
        self.output = next(numbers)  # the first of them


def pointers(spec: Vta) -> list[Where]:
    """Of each stage."""
    found: list[Where] = []
    for stage in spec.stages:
        found.append(Where(stage, found[-1].output if found else 0))
    return found


def is_fixed(term: Term) -> bool:
    """Whether a term's tiles, few as they are, lie behind the chunks of weights: those of shortcuts and windows."""
    own = term.reads is Reads.OWN and term.group == 1 and term.steps <= 2
    return (term.shared and term.steps <= FEW) or own


@lru_cache(maxsize=4096)
def tables(spec: Vta, tiling: Tiling) -> Mapping[int, tuple[int, bool]]:
    """The numbers that each channel has one of: how far before the end of a context's accumulators they lie, and
    whether those of all channels lie there, in the last context.
    """
    whole = spec.out_blocks <= FEW
    found: dict[int, tuple[int, bool]] = {}
    for stage, where in zip(spec.stages, pointers(spec), strict=True):
        for operand in (where.bias if stage.bias == "words" else -1, where.shifts):
            if operand >= 0:
                found[operand] = (len(found) + 1) * (spec.out_blocks if whole else tiling.blocks), whole
    return found


@lru_cache(maxsize=4096)
def fixed(spec: Vta, blocks: int) -> Mapping[int, int]:
    """The weight tiles that are no chunk's: how far before a context's end each operand begins."""
    found, end = {}, 0
    for stage, where in zip(spec.stages, pointers(spec), strict=True):
        for term, (_, tiles_) in zip(stage.terms, where.terms, strict=True):
            if is_fixed(term):
                found[tiles_] = end = end + term.steps * (1 if term.shared else blocks)
        if stage.bias == "tiles":
            found[where.bias] = end = end + stage.bias_tiles * blocks
    return found


def fixed_room(spec: Vta, blocks: int) -> int:
    """Weight tiles of a context that no chunk has."""
    return max(fixed(spec, blocks).values(), default=0)


def frame(spec: Vta, tiling: Tiling, term: Term) -> tuple[int, int]:
    """Rows and columns of a term's input that a tile has room for: those of a window, where the map is cut."""
    found = []
    cut = (tiling.rows < spec.height, tiling.columns < spec.width)
    for axis, (count, size) in enumerate(
        zip(_inner(spec, tiling.rows, tiling.columns), (term.height, term.width), strict=True)
    ):
        whole = (int(count) - 1) * term.stride[axis] + (term.kernel[axis] - 1) * term.dilation[axis] + 1
        found.append(whole if cut[axis] else min(size, whole))
    return found[0], found[1]


def chunks(
    accelerator: Accelerator, spec: Vta, tiling: Tiling, term: Term, tile: Tile
) -> Iterator[tuple[range, range]]:
    """The chunks of a term in a tile: which of its output blocks (from 0), which of their input blocks."""
    outs = range(tile.blocks)
    inputs = accelerator.inp_room(tiling.inputs) // math.prod(frame(spec, tiling, term))
    room = accelerator.wgt_room(tiling.weights) - fixed_room(spec, tiling.blocks)
    taps = math.prod(term.kernel)

    def deep(outs: int) -> int:
        """How many input blocks' tiles there is room for."""
        return term.depth if is_fixed(term) else room // (taps * (1 if term.shared else outs))

    if term.reads is Reads.ALL:
        for first, count in _even(term.depth, min(inputs, deep(tiling.blocks))):
            yield outs, range(first, first + count)
    elif term.group > 1:
        for _, group in itertools.groupby(outs, key=lambda out: (tile.first + out) // term.group):
            same = list(group)
            for first, count in _even(term.span, min(inputs, deep(min(term.group, tiling.blocks)))):
                yield range(same[0], same[-1] + 1), range(first, first + count)
    elif most := min(inputs // term.span, tile.blocks if is_fixed(term) or term.shared else deep(1) // term.span,
                     tile.blocks if deep(1) >= term.span else 0):  # fmt: skip
        for first, count in _even(tile.blocks, most):
            yield range(first, first + count), range(term.span)
    else:
        for out in outs:
            for first, count in _even(term.span, min(inputs, deep(1))):
                yield range(out, out + 1), range(first, first + count)


def fits(spec: Vta, accelerator: Accelerator, tiling: Tiling) -> bool:
    """Whether a tile of the output can be computed in one context of each memory."""
    rows, columns, blocks = tiling.rows, tiling.columns, tiling.blocks
    high, wide = (int(n) for n in _inner(spec, rows, columns))
    words = max((place for place, _ in tables(spec, tiling).values()), default=0)
    needed = blocks * high * wide + (blocks * rows * columns if spec.pooling else 0)
    if max(needed, accelerator.distance) + words > accelerator.acc_room(tiling.sums):
        return False
    room = accelerator.wgt_room(tiling.weights) - fixed_room(spec, blocks)
    for term in spec.terms:
        if math.prod(frame(spec, tiling, term)) > accelerator.inp_room(tiling.inputs):
            return False
        if is_fixed(term):
            continue
        outs = 1 if term.shared else min(blocks, term.group) if term.reads is Reads.OWN else blocks
        if outs * math.prod(term.kernel) > room:
            return False
    return room > 0


def refused(spec: Vta, accelerator: Accelerator) -> str | None:
    """Why not even the smallest tile of a step fits; None where it does."""
    if fits(spec, accelerator, Tiling(1, 1, 1)):
        return None
    return f"one output of it does not fit half of the SRAM of {accelerator.name}"


def choose(spec: Vta, accelerator: Accelerator) -> Tiling:
    """The tiling that the model takes to be fastest.

    Raises:
        DeployError: (kind ``vta``) none fits.
    """
    return _chosen(_timed(spec), accelerator)


def _timed(spec: Vta) -> Vta:
    """What the time depends on: how many instructions there are, and not the numbers in them."""
    stages = tuple(
        replace(
            stage,
            shift=15 * shifts(stage.shift),
            low=None if stage.low is None else 0,
            high=None if stage.high is None else 0,
        )
        for stage in spec.stages
    )
    return replace(spec, stages=stages).canonical()


@lru_cache(maxsize=4096)
def _chosen(spec: Vta, accelerator: Accelerator) -> Tiling:
    """Blocks of a network repeat their layers."""
    found = best(spec, accelerator, 1)
    if not found:
        message = f"{accelerator.name} cannot compute a {spec.describe()}: {refused(spec, accelerator)}"
        raise DeployError(message, kind="vta", got=spec.describe())
    return found[0]


def best(spec: Vta, accelerator: Accelerator, count: int = 16, **contexts: int) -> list[Tiling]:
    """The tilings that the model takes to be fastest, the best first. `contexts`: as for `candidates`."""
    found = sorted((cost(spec, accelerator, tiling), number, tiling)
                   for number, tiling in enumerate(candidates(spec, accelerator, **contexts)))  # fmt: skip
    return [tiling for _, _, tiling in found[:count]]


def candidates(spec: Vta, accelerator: Accelerator, **contexts: int) -> Iterator[Tiling]:
    """Tilings that fit, with so many contexts (two, where not said)."""
    for columns in _counts(spec.width):
        for rows in _counts(spec.height):
            for blocks in _counts(spec.out_blocks):
                if fits(spec, accelerator, Tiling(rows, columns, blocks, **contexts)):  # type: ignore[arg-type]
                    for deep in (False, True):
                        yield Tiling(rows, columns, blocks, deep, **contexts)  # type: ignore[arg-type]


def _counts(size: int) -> list[int]:
    """The sizes of pieces that differ in how many there are, the largest first."""
    return sorted({-(-size // count) for count in range(1, size + 1)}, reverse=True)


# -- the time that a tiling takes ------------------------------------------------------------------------------------
def cost(spec: Vta, accelerator: Accelerator, tiling: Tiling) -> int:
    """Cycles of a step, about: tiles times the time of a mean one, and the lists of micro-operations once.

    While a chunk is multiplied the next one is loaded, so each takes the longer of both; the first chunk of the next
    tile is loaded during the last one of this and all that comes behind it. What goes into a memory of one context is
    loaded between two chunks instead, and stored between two tiles. A tile takes no less than the bus needs for its
    bytes, or the store engine for its results.
    """
    model = _Model(spec, accelerator, tiling)
    both = list(zip(model.computes, model.loads[1:] + model.loads[:1], strict=True))
    chunked = sum(max(one, other) for one, other in both[:-1])
    last = max(both[-1][0] + model.epilogue, both[-1][1]) if both else model.epilogue
    tile = chunked + last + model.waits
    tile = tile + model.store if tiling.sums == 1 else max(tile, model.store)
    return round(model.number * max(tile, model.bus) + model.once)


class _Model:
    """The mean tile of a tiling.

    Attributes:
        number: of tiles. computes, loads: cycles of each chunk. waits: of loads during which nothing is multiplied.
        epilogue: of what compute does beside chunks.
        bus, store: of the bus, of the store engine. once: of micro-operations, for all tiles.
    """

    def __init__(self, spec: Vta, accelerator: Accelerator, tiling: Tiling) -> None:
        board, config = accelerator.board, accelerator.config
        self.spec, self.at, self.tiling = spec, accelerator, tiling
        self.transfer = board.overhead + board.latency
        counts = [
            -(-size // most)
            for size, most in (
                (spec.height, tiling.rows), (spec.width, tiling.columns), (spec.out_blocks, tiling.blocks))
        ]  # fmt: skip
        whole = Tile(0, spec.height // counts[0], 0, spec.width // counts[1], 0, spec.out_blocks // counts[2])
        self.counts, self.parts, self.groups = counts, counts[0] * counts[1], counts[2]
        self.number = self.parts * self.groups * (spec.batch // config.batch)
        # pieces are as alike as can be
        rows, columns = spec.height / counts[0], spec.width / counts[1]
        self.blocks = spec.out_blocks / self.groups
        self.uneven = [
            1 + (size % count > 0)
            for size, count in zip((spec.height, spec.width, spec.out_blocks), counts, strict=True)
        ]
        self.high, self.wide = _inner(spec, rows, columns)
        self.size, stored = self.blocks * self.high * self.wide, self.blocks * rows * columns
        self.fresh = self.high  # rows that are computed
        kept = overlap(spec, tiling) if tiling.deep or self.groups == 1 else 0
        if kept:
            self.fresh -= kept * (1 - 1 / counts[0])
        self.computes: list[float] = []
        self.loads: list[float] = []
        self.aside = self.beside = self.waits = 0.0  # of shortcuts: computed, loaded
        self.lists: list[float] = []  # cycles that loading the lists of a tile takes
        self.bus = stored * config.inp_bytes / board.bus_bytes
        stores = 1 + (len(spec.outputs) - 1) / self.groups
        self.store = self.bus + stores * self.transfer + board.row_latency * (
            self.blocks if columns == spec.width else self.blocks * rows)  # fmt: skip
        gemm, alu, instructions = self.size + (stored if spec.pooling else 0), 0.0, 1.0
        uops = 0.0
        for number, stage in enumerate(spec.stages):
            for term in stage.terms:
                uops += self.term(term, whole)
                alu += self.size * shifts(term.shift)
                instructions += shifts(term.shift)
            before, last = shifts(stage.lead) if number else 0, number + 1 == len(spec.stages)
            alu += before * self.size + behind(stage) * (stored if last else self.size)
            instructions += before + behind(stage)
            if stage.bias == "tiles":
                gemm += stage.bias_tiles * (stored if last else self.size)
                instructions += stage.bias_tiles
                cycles = self.blocks * stage.bias_tiles * config.wgt_bytes / board.bus_bytes
                if self.groups > 1 and not (tiling.deep and self.parts > 2) and self.loads:
                    self.bus += cycles
                    self.loads[-1] += cycles + self.transfer + board.row_latency
        if spec.pooling:
            window = spec.pooling
            alu += (window.kernel[0] - 1) * rows * self.wide * self.blocks + window.kernel[1] * stored
            instructions += 1 + window.kernel[1]
            alu += (self.high - self.fresh) * self.wide * self.blocks
        self.epilogue = instructions * board.overhead + gemm * board.gemm_interval + alu * board.alu_interval
        self.epilogue += self.aside
        if self.loads:
            self.loads[0] += self.beside
        self.once = uops * config.uop_bytes / board.bus_bytes + 2 * self.transfer
        if uops + USUAL > accelerator.uop_depth:  # a list is loaded each time that it is run
            self.once += self.number * sum(self.lists)

    def term(self, term: Term, whole: Tile) -> float:
        """The chunks of a term; how many micro-operations they take."""
        spec, board, config, tiling = self.spec, self.at.board, self.at.config, self.tiling
        taps = math.prod(term.kernel)
        inner = spec.inner
        halo = self.fresh * self.wide * self.parts / math.prod(inner)
        inside = math.prod(pairs(term, inner, axis) for axis in (0, 1)) * halo / self.parts
        seen = [
            min(n, (m - 1) * stride + (k - 1) * dilation + 1)
            for n, m, stride, k, dilation in zip(
                (term.height, term.width), (self.fresh, self.wide), term.stride, term.kernel, term.dilation, strict=True
            )
        ]
        cut = list(chunks(self.at, spec, tiling, term, whole))
        count = len(cut)
        own, full = term.reads is Reads.OWN, seen[1] >= term.width
        inputs = term.span * (max(1.0, self.blocks / term.group) if own else 1) if own else term.depth
        outs = 1 if term.shared else self.blocks
        single = count == 1 and len(spec.terms) == 1
        # what lies in a half already is not loaded again
        given = 1 / self.groups if single and not tiling.deep and not own else 1.0
        kept = single and self.parts > 2 and (tiling.deep or self.groups == 1)
        weights = 0.0 if is_fixed(term) else min(1.0, tiling.weights / self.parts) if kept else 1.0
        rows = 1 if full and seen[0] >= term.height else inputs if full else inputs * seen[0]
        pieces = count if full else max(count, inputs)
        many = 1 if count == 1 or term.shared else outs * count
        bits = max(count, outs * term.depth * taps / tiling.piece)
        bus = [inputs * seen[0] * seen[1] * config.inp_bytes, outs * term.depth * taps * config.wgt_bytes]
        both = (
            (tiling.inputs, given, pieces * self.transfer + max(rows, count) * board.row_latency, bus[0]),
            (tiling.weights, weights, bits * self.transfer + max(many, bits) * board.row_latency, bus[1]),
        )
        load = 0.0
        for contexts, share, latency, moved in both:
            self.bus += share * moved / board.bus_bytes
            taken = share * (latency + moved / board.bus_bytes)
            if contexts == 1:
                self.waits += taken
            else:
                load += taken
        compute = self.blocks * term.depth * inside * board.gemm_interval
        compute += count * taps * board.overhead
        flat = full and term.kernel[1] == 1 and term.stride == (1, 1)
        along = along_rows(math.ceil(self.high), math.ceil(self.wide), whole.blocks, tiling.uops)
        line = self.wide * (self.blocks if along else self.high)
        line = min(line, 64.0) if flat else line
        compute += board.drain * self.blocks * term.depth * inside / line
        if is_fixed(term) and count == 1:  # takes no half of the weights, and is loaded out of turn
            self.aside += compute
            self.beside += load
        else:
            self.computes += [compute / count] * count
            self.loads += [load / count] * count
        row_latency = self.transfer + board.row_latency
        self.lists.append(count * taps * (row_latency + line * config.uop_bytes / board.bus_bytes))
        # the lists of all contexts; of other chunks, and of tiles of other sizes; of taps that leave the map
        many = max(tiling.inputs, tiling.weights) * (tiling.sums if self.number > 1 and count > 1 else 1.0)
        many *= len({len(depths) for _, depths in cut}) if along else self.uneven[0]
        many *= self.uneven[1] * (self.uneven[2] if along else 1)
        for axis, parts in enumerate(self.counts[:2]):
            ends = 0.5 if along and axis == 0 else 1.0  # along rows, fewer of them are the same list
            many *= 1 + (parts > 1) * ends * (1 - 1 / term.kernel[axis])
        return taps * line * many


def _inner(spec: Vta, rows: float, columns: float) -> tuple[float, float]:
    """Rows and columns of accumulators that so many of the output take."""
    if spec.pooling is None:
        return rows, columns
    window = spec.pooling
    return (rows - 1) * window.stride[0] + window.kernel[0], (columns - 1) * window.stride[1] + window.kernel[1]
