"""What stands before a convolution by matrix tiles: zeros around its input, and the network's own input in bfloat16."""

from __future__ import annotations

from tvm import tirx

from .cpu_simple import SimpleSchedule
from .emit import Emitter, Expr, const, load, splat, stored
from .spec_amx import LANES, Frame, PackPixels


def zero_frame(em: Emitter, at: Expr, height: int, width: int, frame: tuple[int, int, int, int]) -> None:
    """Write zeros around a plane of `height x width` pixels that begins, with its frame, at `at` of "dst"."""
    top, left, bottom, right = frame
    wide = left + width + right
    zeros = splat(tirx.const(0, stored("bfloat16")), LANES)
    dst = em.buffers["dst"]
    for first, count in ((0, top * wide), ((top + height) * wide, bottom * wide)):
        if count:
            with em.loop(count, "pixel", first) as pixel:
                em.store(dst, at + pixel * LANES, zeros)
    if left or right:
        with em.loop(height, "y", top) as y:
            line = em.let(at + y * (wide * LANES), "line")
            for column in (*range(left), *range(left + width, wide)):
                em.store(dst, line + column * LANES, zeros)


def frame_units(spec: Frame) -> int:
    """One work unit a block of an image."""
    return spec.batch * spec.blocks


def emit_frame(spec: Frame, _schedule: SimpleSchedule, name: str) -> tirx.PrimFunc:
    """A copy of every plane, and zeros around it."""
    em = Emitter(name, [("src", stored("bfloat16")), ("dst", stored("bfloat16"))])
    top, left, bottom, right = spec.frame
    wide = left + spec.width + right
    with em.units() as unit:
        n, block = em.let(tirx.floordiv(unit, spec.blocks), "n"), em.let(tirx.floormod(unit, spec.blocks), "block")
        src = em.let(n * spec.in_stride + block * (spec.height * spec.width * LANES), "src0")
        dst = em.let(n * spec.out_stride + block * ((top + spec.height + bottom) * wide * LANES), "dst0")
        zero_frame(em, dst, spec.height, spec.width, spec.frame)
        with em.loop(spec.height, "y") as y:
            start = em.let(dst + ((y + top) * wide + left) * LANES, "start")
            with em.loop(spec.width, "x") as x:
                pixel = load(em.buffers["src"], src + (y * spec.width + x) * LANES, LANES)
                em.store(em.buffers["dst"], start + x * LANES, pixel)
    return em.finish()


def pixel_units(spec: PackPixels) -> int:
    """One work unit a row of an image."""
    return spec.batch * spec.lines


def emit_pixels(spec: PackPixels, _schedule: SimpleSchedule, name: str) -> tirx.PrimFunc:
    """Planes of fp32 to pixels of a few bfloat16."""
    em = Emitter(name, [("src", "float32"), ("dst", stored("bfloat16"))])
    top, left, _, _ = spec.frame
    plane = spec.height * spec.width
    with em.units() as unit:
        n, y = em.let(tirx.floordiv(unit, spec.lines), "n"), em.let(tirx.floormod(unit, spec.lines), "y")
        line = em.let(unit * spec.line, "line")
        zeros = splat(tirx.const(0, stored("bfloat16")), LANES)
        with em.loop(spec.line // LANES, "part") as part:
            em.store(em.buffers["dst"], line + part * LANES, zeros)
        with em.when(tirx.all(y >= top, y < top + spec.height)):
            src = em.let(n * (spec.channels * plane) + (y - top) * spec.width, "src0")
            with em.loop(spec.width, "x") as x:
                for channel in range(spec.channels):
                    value = em.let(load(em.buffers["src"], src + channel * plane + x) * const(1.0), "value")
                    em.store_real(em.buffers["dst"], line + (x + left) * spec.slots + channel, value)
    return em.finish()
