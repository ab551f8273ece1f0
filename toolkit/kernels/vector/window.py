"""Pooling and depthwise convolution for CPUs: a block's channels of a tile of pixels at a time, all taps of a tile in
registers.

As in the convolution, nothing is padded in memory: a tile knows its columns, and the loop over kernel rows is cut to
the image. Every input pixel of a kernel row is read once. Where a pool's windows overlap, columns are reduced before
the taps of a row are: 10 columns of 3 rows and 8 outputs of 3 columns instead of 8 outputs of 9 pixels.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass

from tvm import tirx

from ..cut import runs, split
from ..elements import element_of
from ..emit import NEON, Emitter, Expr, clamp, const, fma, load, together
from ..family import Family, of_vectors
from ..isa import Isa
from ..matrix.layout import zero_frame
from ..spec import Window, WindowOp

FEW_REGISTERS = 16
"""Of ARMv7 and AVX2: too few for two vectors of each pixel."""


@dataclass(frozen=True)
class WindowSchedule:
    """How a window is cut.

    Attributes:
        lanes: floats in a vector register.
        pixels: widest tile along a row.
        columns: sums (or maxima) are kept for columns of the input, not for outputs.
        vectors: of a pixel that are done at once, where its element leaves the choice.
    """

    lanes: int
    pixels: int
    columns: bool = False
    vectors: int = 1


def units(spec: Window, schedule: WindowSchedule) -> int:
    """Work units: one row of one block of channels each."""
    return spec.batch * spec.blocks * spec.out_height


def choose(spec: Window, isa: Isa) -> WindowSchedule:
    """As many pixels as leave registers for the inputs."""
    lanes, registers = isa.lanes, isa.registers
    most = max(1, min(8, registers // 2 - 2))
    if _overlaps(spec):
        fitting = [width for width in range(2, most + 1) if _fits(spec, lanes, registers, width)]
        if fitting:
            return WindowSchedule(lanes, fitting[-1], True)
    if spec.op is WindowOp.DEPTHWISE and spec.group == 1 and lanes == NEON and registers > FEW_REGISTERS:
        return WindowSchedule(lanes, most, vectors=2)  # 16 sums, 6 weights, 2 inputs, both of them loads of pairs
    return WindowSchedule(lanes, most)


def space(spec: Window, isa: Isa) -> Iterator[tuple[WindowSchedule, dict[str, tuple[int, ...]]]]:
    """The schedules worth a measurement; there are no knobs but the tile, and what is kept of it."""
    lanes, registers = isa.lanes, isa.registers
    most = min(spec.out_width, (registers - 4) // together(spec.in_element, lanes))
    for pixels in sorted({max(split(spec.out_width, width)) for width in range(1, most + 1)}):
        yield WindowSchedule(lanes, pixels), {}
        if _overlaps(spec) and _fits(spec, lanes, registers, pixels):
            yield WindowSchedule(lanes, pixels, True), {}


def _overlaps(spec: Window) -> bool:
    """Neighbouring windows of a pool have columns in common."""
    return spec.op is not WindowOp.DEPTHWISE and spec.kernel[1] > spec.stride[1] and spec.dilation[1] == 1


def _fits(spec: Window, lanes: int, registers: int, pixels: int) -> bool:
    """All columns under a tile of `pixels` have a register."""
    columns = (pixels - 1) * spec.stride[1] + spec.kernel[1]
    return columns * together(spec.in_element, lanes) <= registers - 4


def _exchanged(value: Expr, member: int) -> Expr:
    """Lane `c ^ member` in lane `c`."""
    return tirx.Shuffle([value], [lane ^ member for lane in range(value.ty.dtype.lanes)])


def emit(spec: Window, schedule: WindowSchedule, name: str) -> list[tirx.PrimFunc]:
    """The window operator as a TIR function of the emitter's C signature."""
    depthwise = spec.op is WindowOp.DEPTHWISE
    near, there = element_of(spec.in_element), element_of(spec.out_element)
    em = Emitter(name, spec.pointers)
    lanes, wide = schedule.lanes, near.block
    number = max(schedule.vectors, together(spec.in_element, lanes))
    (rows, taps), (step_y, step_x) = spec.kernel, spec.stride
    (top, left, bottom, right), (spread_y, spread_x) = spec.pad, spec.dilation
    above, before, below, behind = spec.frame
    line = before + spec.out_width + behind
    nothing = const(-3.402823466e38 if spec.op is WindowOp.MAX else 0.0, lanes)

    def reduce(old: Expr, value: Expr) -> Expr:
        return tirx.max(old, value) if spec.op is WindowOp.MAX else old + value

    def tile(src0: Expr, dst0: Expr, block: Expr, y: Expr, x: int | Expr, width: int, part: int) -> None:
        """`width` pixels from column `x`, the vectors of a block's channels from lane `part` on."""
        parts = [part + i * lanes for i in range(number)]

        def inside(p: int, s: int) -> bool:
            return not isinstance(x, int) or 0 <= (x + p) * step_x - left + s * spread_x < spec.width

        under: dict[int, list[tuple[int, int]]] = {}  # by column of the input, from the tile's first: outputs and taps
        for p in range(width):
            for s in range(taps):
                if inside(p, s):
                    under.setdefault(p * step_x + s * spread_x, []).append((p, s))
        columns = sorted(under)
        sums = {c: i for i, c in enumerate(columns)} if schedule.columns else {p: p for p in range(width)}
        acc = em.local(len(sums) * number * lanes)

        def at(held: int, i: int) -> int:
            return (sums[held] * number + i) * lanes

        start = [nothing] * number
        if depthwise:
            start = [em.let(load(em.buffers["bias"], block * wide + first, lanes)) for first in parts]
        for held in sums:
            for i in range(number):
                em.store(acc, at(held, i), start[i])
        first = y * step_y - top
        begin = em.let(tirx.max(0, tirx.floordiv(spread_y - 1 - first, spread_y)), "begin") if top else 0
        end = em.let(tirx.min(rows, tirx.floordiv(spec.height - 1 - first, spread_y) + 1), "end")

        if not depthwise and step_y > 1:  # too little work to hide the way of the next rows from a cache far away
            ahead = em.let(src0 + ((first + rows + 1) * spec.width + x * step_x) * near.cell + part, "ahead")
            for row, column, i in itertools.product(range(step_y), range(width * step_x), range(number)):
                em.prefetch(em.buffers["src"], ahead + (row * spec.width + column) * near.cell + i * lanes)

        def gather(vectors: range) -> None:
            """All taps of some vectors of the pixels into their sums."""
            with em.loop(end - begin, "r", begin) as r:
                line = (first + r * spread_y) * spec.width + x * step_x - left
                base = em.let(em.hidden(src0 + line * near.cell + part, lanes), "base")
                weights = {}
                if depthwise:
                    row = em.let((block * rows + r) * (taps * spec.group * wide), "row")
                    for i, member, s in itertools.product(vectors, range(spec.group), range(taps)):
                        place = row + (s * spec.group + member) * wide + parts[i]
                        weights[i, member, s] = em.let(load(em.buffers["weight"], place, lanes), "w")
                for column in columns:
                    for i in vectors:
                        at_column = base + column * near.cell + i * lanes
                        value = em.let(em.read("src", at_column, lanes), "value")
                        if schedule.columns:
                            em.store(acc, at(column, i), reduce(load(acc, at(column, i), lanes), value))
                            continue
                        for member in range(spec.group):
                            moved = em.let(_exchanged(value, member), "moved") if member else value
                            for p, s in under[column]:
                                old = load(acc, at(p, i), lanes)
                                new = fma(moved, weights[i, member, s], old) if depthwise else reduce(old, moved)
                                em.store(acc, at(p, i), new)

        # the weights of a group have registers for one vector at a time
        for vectors in [range(number)] if spec.group == 1 else [range(i, i + 1) for i in range(number)]:
            gather(vectors)

        scale: Expr = None
        if spec.op is WindowOp.AVERAGE:
            # padding counts up to the padded image's end, never beyond it (ceil mode)
            covered = tirx.min(first + rows, spec.height + bottom) - first if spec.include_pad else end - begin
            scale = em.let(const(1.0) / tirx.Cast("float32", covered), "scale")
        for p in range(width):
            factor = None
            if scale is not None:
                if not isinstance(x, int):
                    count = taps
                elif spec.include_pad:
                    start_x = (x + p) * step_x - left
                    count = min(start_x + taps, spec.width + right) - start_x
                else:
                    count = sum(inside(p, s) for s in range(taps))
                factor = tirx.Broadcast(scale * const(1.0 / count), lanes)
            outputs = []
            for i in range(number):
                names = [p * step_x + s * spread_x for s in range(taps) if inside(p, s)] if schedule.columns else [p]
                value = load(acc, at(names[0], i), lanes) if names else nothing
                for held in names[1:]:
                    value = reduce(value, load(acc, at(held, i), lanes))
                outputs.append(clamp(value if factor is None else value * factor, spec.activation))
            em.write("dst", dst0 + ((y + above) * line + before + x + p) * there.cell + part, *outputs)

    def safe(x: int, width: int) -> bool:
        begin, end = x * step_x - left, (x + width - 1) * step_x - left + (taps - 1) * spread_x
        return begin >= 0 and end < spec.width

    with em.units() as unit:
        y = em.let(tirx.floormod(unit, spec.out_height), "y")
        index = em.let(tirx.floordiv(unit, spec.out_height), "index")
        block = em.let(tirx.floormod(index, spec.blocks), "block") if spec.batch > 1 else index
        n = em.let(tirx.floordiv(index, spec.blocks), "n") if spec.batch > 1 else 0
        src0 = em.let(n * spec.in_stride + block * (spec.height * spec.width * near.cell), "src0")
        plane = (above + spec.out_height + below) * line * there.cell
        dst0 = em.let(n * spec.out_stride + block * plane, "dst0")
        if any(spec.frame):
            with em.when(y == 0):
                zero_frame(em, dst0, spec.out_height, spec.out_width, spec.frame)
        for first, width, count in runs(split(spec.out_width, schedule.pixels), safe):
            for part in range(0, wide, lanes * number):
                if count == 1:
                    tile(src0, dst0, block, y, first, width, part)
                else:
                    with em.loop(count, "t") as t:
                        tile(src0, dst0, block, y, em.let(first + t * width, "x"), width, part)
    return [em.finish()]


def features(spec: Window, schedule: WindowSchedule, _threads: int) -> list[float]:
    """What the machine will notice of a schedule."""
    parts = split(spec.out_width, schedule.pixels)
    return [float(len(parts)), math.log2(schedule.pixels), (max(parts) - min(parts)) / max(parts)]


WINDOW: Family[Window, WindowSchedule] = Family(
    "vector.window", Window, of_vectors, choose, units, emit, space=space, features=features
)
