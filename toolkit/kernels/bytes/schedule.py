"""How convolutions of bytes are cut into tiles and units, and how their weights lie: the schedules of `direct` and of
`squares`.

Weights are packed as `[group of vectors][input block][r][s][word][vectors * lanes][depth]`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace

import numpy as np

from ..cut import split
from ..dots import DOTS, Dot
from ..elements import BLOCK, BYTE, element_of
from ..emit import NEON
from ..isa import Isa
from ..spec import Conv
from ..vector import conv
from ..vector.conv import ConvSchedule

PIXEL = 4
"""Bytes of a pixel of the network's own input."""

POINTWISE_PIXELS = 10
"""Pixels of a pointwise tile of two vectors of 16: a wider one reads its weights less often, and more accumulators
spill (docs/perf/cpu-int8.md).
"""

WIDE_KERNEL, WIDE_PIXELS = 5, 6
"""Kernels from so many columns on do best with tiles of so many pixels: their edge tiles are code of their own
(docs/perf/cpu-int8.md).
"""

FEW_VECTORS, FEW_PIXELS = 2, 6
"""A tile for 16 registers and widened bytes: 12 sums, the weights of 2 vectors, a word of inputs and a product
(docs/perf/cpu-int8.md).
"""

PAIR_PIXELS = 4
"""The pixels of such a tile for bytes as they lie, whose products are added to in two steps: 8 sums, 2 weights, a word,
ones and a product (docs/perf/cpu-int8.md).
"""

MOST_OF_PAIRS = 16
"""Accumulators of a tile beside 4 weights, 4 pixels, 4 patterns that spread a word, one of those and 2 products: all
registers of AArch64.
"""

MOST_OF_SQUARES = 24
"""The same beside 3 pairs of pixels and 2 weights, which each of them takes."""

PANEL_BYTES, PANEL_UNITS = 24 * 1024, 8
"""Widened pixels that a unit of a pointwise kernel keeps for all of its outputs: most of a first-level cache of 32 KiB.
And the units that there are to be at least (docs/perf/cpu-int8.md).
"""

MOST_PANEL_BYTES = 96 * 1024
"""The same at most, on a thread's stack."""

LANE_WORDS = 8
"""Words that an instruction takes out of a register lane by lane, where there are registers for a pixel's words."""


@dataclass(frozen=True)
class DotSchedule(ConvSchedule):
    """How a convolution of bytes is cut.

    Attributes:
        dot: the instruction, a name of `dots.DOTS`; `lanes` are its. Of widened bytes `unroll` counts words.
        parts: 0, or of a pointwise kernel of widened bytes: a unit widens the pixels of its `rows` tiles once, and does
            one of so many parts of the outputs with them.
        narrow: what makes bytes of floats at once (`Isa.narrow`).
    """

    dot: str = ""
    parts: int = 0
    narrow: str = ""

    @property
    def row(self) -> Dot:
        """The instruction."""
        return DOTS[self.dot]


def choose(spec: Conv, isa: Isa) -> DotSchedule:
    """`vector.conv.tiled` for less depth (a word is what a float is there), where measuring found no better.

    docs/perf/cpu-int8.md holds it against measurements.
    """
    dot = dot_for(spec, isa)
    assert dot is not None
    words = _in_words(spec, dot)
    row = conv.image(spec)[3]
    many = isa.registers >= conv.MANY_REGISTERS
    even = spec.out_channels // spec.groups // dot.lanes % 2 == 0
    if spec.pointwise and row > 1 and even and dot.lanes == BLOCK:
        found = conv.balanced(words, ConvSchedule(dot.lanes, 2, max(split(row, POINTWISE_PIXELS))))
        return _with_dot(found, dot, isa)
    if (dot.pairs or dot.depth == 2) and not many and row > 1 and even:
        tile = ConvSchedule(dot.lanes, FEW_VECTORS, max(split(row, PAIR_PIXELS if dot.pairs else FEW_PIXELS)))
        return _shared(spec, _with_dot(conv.balanced(words, tile), dot, isa))
    # A tile's accumulators never leave the registers half done: bytes could not hold them.
    most = conv.MOST_OF_MANY if many else conv.MOST_OF_FEW
    if many and dot.lanes == NEON and dot.depth > 1:
        most = MOST_OF_PAIRS if dot.code else MOST_OF_SQUARES if dot.rows > 1 else conv.MOST_BY_LANE
    chosen = replace(conv.tiled(words, isa, ConvSchedule(isa.lanes, 1, 1), most), k_block=0)
    if spec.kernel[1] >= WIDE_KERNEL and chosen.pixels > WIDE_PIXELS:
        chosen = conv.balanced(words, replace(chosen, pixels=max(split(row, WIDE_PIXELS))))
    return _with_dot(chosen, dot, isa)


def _with_dot(schedule: ConvSchedule, dot: Dot, isa: Isa) -> DotSchedule:
    found = _of_dot(schedule, dot, isa)
    many = isa.registers >= conv.MANY_REGISTERS
    return replace(found, unroll=LANE_WORDS) if dot.depth == 1 and many else found


def _of_dot(schedule: ConvSchedule, dot: Dot, isa: Isa) -> DotSchedule:
    """What every convolution's schedule says, without what a family of floats adds to it."""
    every = {field.name: getattr(schedule, field.name) for field in fields(ConvSchedule)}
    return DotSchedule(**every, dot=dot.name, narrow=isa.narrow)


def _shared(spec: Conv, schedule: DotSchedule) -> DotSchedule:
    """With pixels that are widened once for many outputs, where that is possible."""
    if not sharing(spec, replace(schedule, parts=1)) or 2 * schedule.pixels * spec.channels > MOST_PANEL_BYTES:
        return schedule
    tiles = len(conv.tile_widths(spec, schedule))
    groups = spec.out_channels // (schedule.lanes * schedule.vectors)
    rows = max(1, min(tiles, PANEL_BYTES // (2 * schedule.pixels * spec.channels)))
    blocks = -(-tiles // rows)
    parts = next((n for n in range(1, groups) if groups % n == 0 and blocks * n >= PANEL_UNITS), groups)
    return replace(schedule, rows=rows, parts=parts, rows_outer=False, fetch=0)


def sharing(spec: Conv, schedule: DotSchedule) -> int:
    """`DotSchedule.parts`; 0 where it has no meaning."""
    widened = schedule.unroll == 1 and schedule.row.bits > 8 and schedule.row.depth > 1 and spec.in_element == BYTE
    return schedule.parts if widened and spec.pointwise and spec.groups == 1 else 0


def dot_for(spec: Conv, isa: Isa) -> Dot | None:
    """The first instruction that takes the weights and the inputs."""
    stored = spec.weight_element, element_of(spec.in_element).stored
    bits = max(8 * np.dtype(dtype).itemsize for dtype in stored)
    able = (dot for dot in isa.dots if dot.bits >= bits and (spec.pairs_fit or not dot.pairs))
    return next((dot for dot in able if not (spec.planar and dot.rows > 1)), None)


def space(spec: Conv, isa: Isa) -> Iterator[tuple[DotSchedule, dict[str, tuple[int, ...]]]]:
    """`vector.conv.space` in words. Only where bytes are widened does it matter how many words are unrolled."""
    dot = dot_for(spec, isa)
    assert dot is not None
    words = (PIXEL if spec.planar else BLOCK) // dot.depth
    unrolled = tuple(count for count in (1, 2, 4, LANE_WORDS) if count <= words)
    for schedule, knobs in conv.space(_in_words(spec, dot), isa):
        wide = dot.bits > 8 and (spec.in_element == BYTE or dot.depth == 1)
        own = {"unroll": unrolled if wide else (1,), "k_block": (0,), "parts": (0,)}
        made = _of_dot(schedule, dot, isa)
        room = 2 * made.rows * made.pixels * spec.channels <= MOST_PANEL_BYTES
        if room and not made.rows_outer and sharing(spec, replace(made, parts=1)):
            groups = spec.out_channels // (made.lanes * made.vectors)
            own["parts"] = (0, *(n for n in (1, 2, 4, 8) if groups % n == 0))
        yield made, {**knobs, **own}


def features(spec: Conv, schedule: DotSchedule, threads: int) -> list[float]:
    """`vector.conv.features` in words."""
    return conv.features(_in_words(spec, schedule.row), schedule, threads)


def _in_words(spec: Conv, dot: Dot) -> Conv:
    """With as many channels as there are words of them: what a float is there."""
    return replace(spec, channels=max(1, spec.channels // dot.depth))


def units(spec: Conv, schedule: DotSchedule) -> int:
    """Work units of the kernel."""
    if parts := sharing(spec, schedule):
        return spec.batch * conv.row_blocks(spec, schedule) * parts
    return conv.units(spec, schedule)


def pack_weight(weight: np.ndarray, spec: Conv, schedule: DotSchedule) -> np.ndarray:
    """Integers `[O, I, r, s]` (physical channels) to the order the kernel reads. I is one group's input channels."""
    out, channels, rows, columns = weight.shape
    wide = schedule.lanes * schedule.vectors
    depth = schedule.row.depth
    words = (PIXEL if spec.planar else BLOCK) // depth
    run = schedule.row.run or depth
    outer = (out // wide, wide // schedule.lanes, schedule.lanes)
    inner = (channels // (words * depth), words, depth // run, run)
    parts = weight.reshape((*outer, *inner, rows, columns))
    return np.ascontiguousarray(parts.transpose(0, 3, 7, 8, 4, 1, 5, 2, 6), dtype=spec.weight_element)
