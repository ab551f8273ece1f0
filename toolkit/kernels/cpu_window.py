"""Pooling and depthwise convolution for CPUs: 16 channels of a tile of pixels at a time, all taps of a tile in
registers.

As in the convolution, nothing is padded in memory: a tile knows its columns, and the loop over kernel rows is cut to
the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from tvm import tirx

from .emit import Emitter, Expr, clamp, const, fma, load
from .spec import Window, WindowOp, element_of
from .tiles import runs, split


@dataclass(frozen=True)
class WindowSchedule:
    """lanes: floats in a vector register. pixels: widest tile along a row."""

    lanes: int
    pixels: int


def units(spec: Window, schedule: WindowSchedule) -> int:
    """Work units: one row of one block of channels each."""
    return spec.batch * spec.blocks * spec.out_height


def choose(spec: Window, *, lanes: int, registers: int) -> WindowSchedule:
    """As many pixels as leave registers for the inputs."""
    return WindowSchedule(lanes, max(1, min(8, registers // 2 - 2)))


def space(spec: Window, *, lanes: int, registers: int) -> Iterator[tuple[WindowSchedule, dict[str, tuple[int, ...]]]]:
    """The schedules worth a measurement; there are no knobs but the tile."""
    most = min(spec.out_width, registers - 4)
    for pixels in sorted({max(split(spec.out_width, width)) for width in range(1, most + 1)}):
        yield WindowSchedule(lanes, pixels), {}


def emit(spec: Window, schedule: WindowSchedule, name: str) -> tirx.PrimFunc:
    """The window operator as a TIR function of the emitter's C signature."""
    depthwise = spec.op is WindowOp.DEPTHWISE
    pointers = ["src", *(["weight", "bias"] if depthwise else []), "dst"]
    kept = {"src": spec.in_element, "dst": spec.out_element}
    near, there = element_of(spec.in_element), element_of(spec.out_element)
    em = Emitter(name, [(p, kept.get(p, "float32")) for p in pointers])
    lanes, wide = schedule.lanes, near.block
    (rows, columns), (step_y, step_x) = spec.kernel, spec.stride
    (top, left, bottom, right), (spread_y, spread_x) = spec.pad, spec.dilation

    def tile(src0: Expr, dst0: Expr, block: Expr, y: Expr, x: int | Expr, width: int, part: int) -> None:
        """`width` pixels from column `x`, lanes `part .. part + lanes` of the block's."""
        acc = em.local(width * lanes)
        if depthwise:
            start = em.let(load(em.buffers["bias"], block * wide + part, lanes))
        else:
            start = const(-3.402823466e38 if spec.op is WindowOp.MAX else 0.0, lanes)
        for p in range(width):
            em.store(acc, p * lanes, start)
        first = y * step_y - top
        begin = em.let(tirx.max(0, tirx.floordiv(spread_y - 1 - first, spread_y)), "begin") if top else 0
        end = em.let(tirx.min(rows, tirx.floordiv(spec.height - 1 - first, spread_y) + 1), "end")

        def inside(p: int, s: int) -> bool:
            return not isinstance(x, int) or 0 <= (x + p) * step_x - left + s * spread_x < spec.width

        with em.loop(end - begin, "r", begin) as r:
            base = em.let(src0 + ((first + r * spread_y) * spec.width + x * step_x - left) * near.cell + part, "base")
            for s in range(columns):
                w = None
                if depthwise:
                    w = em.let(load(em.buffers["weight"], ((block * rows + r) * columns + s) * wide + part, lanes), "w")
                for p in range(width):
                    if not inside(p, s):
                        continue
                    value = em.read("src", base + (p * step_x + s * spread_x) * near.cell, lanes)
                    old = load(acc, p * lanes, lanes)
                    if w is not None:
                        em.store(acc, p * lanes, fma(value, w, old))
                    else:
                        em.store(acc, p * lanes, tirx.max(old, value) if spec.op is WindowOp.MAX else old + value)

        scale: Expr = None
        if spec.op is WindowOp.AVERAGE:
            # padding counts up to the padded image's end, never beyond it (ceil mode)
            covered = tirx.min(first + rows, spec.height + bottom) - first if spec.include_pad else end - begin
            scale = em.let(const(1.0) / tirx.Cast("float32", covered), "scale")
        for p in range(width):
            value = load(acc, p * lanes, lanes)
            if scale is not None:
                if not isinstance(x, int):
                    count = columns
                elif spec.include_pad:
                    at = (x + p) * step_x - left
                    count = min(at + columns, spec.width + right) - at
                else:
                    count = sum(inside(p, s) for s in range(columns))
                value = value * tirx.Broadcast(scale * const(1.0 / count), lanes)
            em.write("dst", dst0 + (y * spec.out_width + x + p) * there.cell + part, clamp(value, spec.activation))

    def safe(x: int, width: int) -> bool:
        begin, end = x * step_x - left, (x + width - 1) * step_x - left + (columns - 1) * spread_x
        return begin >= 0 and end < spec.width

    with em.units() as unit:
        y = em.let(tirx.floormod(unit, spec.out_height), "y")
        index = em.let(tirx.floordiv(unit, spec.out_height), "index")
        block = em.let(tirx.floormod(index, spec.blocks), "block") if spec.batch > 1 else index
        n = em.let(tirx.floordiv(index, spec.blocks), "n") if spec.batch > 1 else 0
        src0 = em.let(n * spec.in_stride + block * (spec.height * spec.width * near.cell), "src0")
        dst0 = em.let(n * spec.out_stride + block * (spec.out_height * spec.out_width * there.cell), "dst0")
        for first, width, count in runs(split(spec.out_width, schedule.pixels), safe):
            for part in range(0, wide, lanes):
                if count == 1:
                    tile(src0, dst0, block, y, first, width, part)
                else:
                    with em.loop(count, "t") as t:
                        tile(src0, dst0, block, y, em.let(first + t * width, "x"), width, part)
    return em.finish()
