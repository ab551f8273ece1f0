"""What stands before a convolution by matrix tiles: zeros around its input, and the network's own input in bfloat16."""

from __future__ import annotations

from tvm import tirx

from .cpu_simple import SimpleSchedule
from .emit import HALF, Emitter, Expr, const, load, splat
from .spec import PAIR, element_of
from .spec_amx import LANES, Frame, PackPixels


def zero_frame(
    em: Emitter, at: Expr, height: int, width: int, frame: tuple[int, int, int, int], pointer: str = "dst"
) -> None:
    """Write zeros around a plane of `height x width` pixels that begins, with its frame, at `at` of a pointer."""
    top, left, bottom, right = frame
    wide = left + width + right
    cell = element_of(em.elements[pointer]).cell
    for first, count in ((0, top * wide), ((top + height) * wide, bottom * wide)):
        if count:
            with em.loop(count, "pixel", first) as pixel:
                _zero(em, pointer, at + pixel * cell, cell)
    if left or right:
        with em.loop(height, "y", top) as y:
            line = em.let(at + y * (wide * cell), "line")
            for column in (*range(left), *range(left + width, wide)):
                _zero(em, pointer, line + column * cell, cell)


def _zero(em: Emitter, pointer: str, at: Expr, count: int) -> None:
    """Zeros in `count` halves, whole rows of a tile."""
    for row in range(0, count, LANES):
        em.store(em.buffers[pointer], at + row, splat(tirx.const(0, HALF), LANES))


def frame_units(spec: Frame) -> int:
    """One work unit a block of an image."""
    return spec.batch * spec.blocks


def emit_frame(spec: Frame, _schedule: SimpleSchedule, name: str) -> tirx.PrimFunc:
    """A copy of every plane, and zeros around it."""
    em = Emitter(name, [("src", spec.in_element), ("dst", spec.in_element)])
    cell = element_of(spec.in_element).cell
    top, left, bottom, right = spec.frame
    wide = left + spec.width + right
    with em.units() as unit:
        n, block = em.let(tirx.floordiv(unit, spec.blocks), "n"), em.let(tirx.floormod(unit, spec.blocks), "block")
        src = em.let(n * spec.in_stride + block * (spec.height * spec.width * cell), "src0")
        dst = em.let(n * spec.out_stride + block * ((top + spec.height + bottom) * wide * cell), "dst0")
        zero_frame(em, dst, spec.height, spec.width, spec.frame)
        with em.loop(spec.height, "y") as y:
            start = em.let(dst + ((y + top) * wide + left) * cell, "start")
            with em.loop(spec.width, "x") as x:
                for row in range(0, cell, LANES):
                    pixel = load(em.buffers["src"], src + (y * spec.width + x) * cell + row, LANES)
                    em.store(em.buffers["dst"], start + x * cell + row, pixel)
    return em.finish()


def pixel_units(spec: PackPixels) -> int:
    """One work unit a row of an image."""
    return spec.batch * spec.lines


def emit_pixels(spec: PackPixels, _schedule: SimpleSchedule, name: str) -> tirx.PrimFunc:
    """Planes of fp32 to pixels of a few bfloat16."""
    em = Emitter(name, [("src", "float32"), ("dst", "bfloat16")])
    top, left, _, _ = spec.frame
    plane = spec.height * spec.width
    with em.units() as unit:
        n, y = em.let(tirx.floordiv(unit, spec.lines), "n"), em.let(tirx.floormod(unit, spec.lines), "y")
        low = spec.lines * spec.line
        line = em.let(n * spec.size + y * spec.line, "line")
        with em.loop(spec.line // LANES, "part") as part:
            for start in range(0, spec.size, low):
                _zero(em, "dst", line + start + part * LANES, LANES)
        with em.when(tirx.all(y >= top, y < top + spec.height)):
            src = em.let(n * (spec.channels * plane) + (y - top) * spec.width, "src0")
            with em.loop(spec.width, "x") as x:
                for channel in range(spec.channels):
                    value = em.let(load(em.buffers["src"], src + channel * plane + x) * const(1.0), "value")
                    at = em.let(line + (x + left) * spec.slots + channel, "at")
                    parts = em.halves(value) if spec.out_element == PAIR else [em.narrow(value)]
                    for i, part in enumerate(parts):
                        em.store(em.buffers["dst"], at + i * low, part)
    return em.finish()
