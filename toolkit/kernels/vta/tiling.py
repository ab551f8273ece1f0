"""How a step is cut into tiles that fit a VTA's SRAM, and which cut a model of the time takes to be fastest."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from inception_deploy.errors import DeployError

from ..spec.vta import Reads, Term, Vta
from .accelerator import Accelerator


@dataclass(frozen=True)
class Tiling:
    """How a step is cut.

    Attributes:
        rows, columns, blocks: of the output, in a tile. The last ones are smaller where they do not divide.
        deep: the tiles of one group of blocks follow each other, over all pixels; otherwise those of a group of pixels.
        uops: a list of micro-operations walks along rows where these have so many pixels and blocks, or over all
            pixels of a tile.
    """

    rows: int
    columns: int
    blocks: int
    deep: bool = False
    uops: int = 32


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


def tiles(spec: Vta, tiling: Tiling) -> Iterator[Tile]:
    """All tiles in order."""
    groups = _cut(spec.out_blocks, tiling.blocks)
    pixels = [(y, x) for y in _cut(spec.height, tiling.rows) for x in _cut(spec.width, tiling.columns)]
    pairs = ((p, g) for g in groups for p in pixels) if tiling.deep else ((p, g) for p in pixels for g in groups)
    for ((top, rows), (left, columns)), (first, blocks) in pairs:
        yield Tile(top, rows, left, columns, first, blocks)


def bias_room(spec: Vta, blocks: int) -> int:
    """Weight tiles that biases take of a half."""
    return max((stage.bias_tiles * blocks for stage in spec.stages if stage.bias == "tiles"), default=0)


def chunks(accelerator: Accelerator, term: Term, tile: Tile, plane: int, bias: int) -> Iterator[tuple[range, range]]:
    """The chunks of a term in a tile: which of its output blocks (from 0), which of their input blocks.

    Args:
        plane: input tiles that a block of inputs takes.
        bias: weight tiles of a half that are taken already.
    """
    outs = range(tile.blocks)
    inputs, weights = accelerator.inp_half // plane, accelerator.wgt_half - bias
    taps = math.prod(term.kernel)
    if term.reads is Reads.OWN and term.group > 1:
        for _, group in itertools.groupby(outs, key=lambda out: (tile.first + out) // term.group):
            same = list(group)
            most = min(inputs, weights // (taps * (1 if term.shared else len(same))))
            for first, count in _cut(term.span, most):
                yield range(same[0], same[-1] + 1), range(first, first + count)
        return
    if term.reads is Reads.OWN:
        most = min(inputs // term.span, weights // (term.span * taps) if not term.shared else tile.blocks)
        if most:
            for first, count in _cut(tile.blocks, most):
                yield range(first, first + count), range(term.span)
            return
        for out in outs:
            for first, count in _cut(term.span, min(inputs, weights // taps)):
                yield range(out, out + 1), range(first, first + count)
        return
    most = min(inputs, weights // (taps * (1 if term.shared else tile.blocks)))
    for first, count in _cut(term.depth, most):
        yield outs, range(first, first + count)


def inner(spec: Vta, rows: int, columns: int) -> tuple[int, int]:
    """Rows and columns of accumulators that so many of the output take."""
    if spec.pooling is None:
        return rows, columns
    window = spec.pooling
    return (rows - 1) * window.stride[0] + window.kernel[0], (columns - 1) * window.stride[1] + window.kernel[1]


def fits(spec: Vta, accelerator: Accelerator, rows: int, columns: int, blocks: int) -> bool:
    """Whether a tile of the output can be computed in half of each memory."""
    high, wide = inner(spec, rows, columns)
    words = 2 * blocks * any(stage.shifts or stage.bias == "words" for stage in spec.stages)
    needed = blocks * high * wide + (blocks * rows * columns if spec.pooling else 0)
    if max(needed, accelerator.distance) + words > accelerator.acc_half:
        return False
    for term in spec.terms:
        seen = [
            min(size, (n - 1) * stride + (k - 1) * dilation + 1)
            for n, size, stride, k, dilation in zip(
                (high, wide), (term.height, term.width), term.stride, term.kernel, term.dilation, strict=True
            )
        ]
        if math.prod(seen) > accelerator.inp_half:
            return False
        outs = 1 if term.shared else min(blocks, term.group) if term.reads is Reads.OWN else blocks
        if outs * math.prod(term.kernel) + bias_room(spec, blocks) > accelerator.wgt_half:
            return False
    return True


def refused(spec: Vta, accelerator: Accelerator) -> str | None:
    """Why not even the smallest tile of a step fits; None where it does."""
    if fits(spec, accelerator, 1, 1, 1):
        return None
    return f"one output of it does not fit half of the SRAM of {accelerator.name}"


def choose(spec: Vta, accelerator: Accelerator) -> Tiling:
    """The tiling that the model takes to be fastest.

    Raises:
        DeployError: (kind ``vta``) none fits.
    """
    found = best(spec, accelerator, 1)
    if not found:
        message = f"{accelerator.name} cannot compute a {spec.describe()}: {refused(spec, accelerator)}"
        raise DeployError(message, kind="vta", got=spec.describe())
    return found[0]


def best(spec: Vta, accelerator: Accelerator, count: int = 16) -> list[Tiling]:
    """The tilings that the model takes to be fastest, the best first."""
    return list(itertools.islice(candidates(spec, accelerator), count))


def candidates(spec: Vta, accelerator: Accelerator) -> Iterator[Tiling]:
    """Tilings that fit."""
    for columns in _counts(spec.width):
        for rows in _counts(spec.height):
            for blocks in _counts(spec.out_blocks):
                if fits(spec, accelerator, rows, columns, blocks):
                    yield Tiling(rows, columns, blocks)


def _counts(size: int) -> list[int]:
    """The sizes of pieces that differ in how many there are, the largest first."""
    return sorted({-(-size // count) for count in range(1, size + 1)}, reverse=True)
