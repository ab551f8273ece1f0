"""What a VTA's host does for it: bytes of the other sign, patches of the input, floats of accumulators."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ..elements import BLOCK
from ..emit import Emitter, clamp, load
from ..family import Family, of_bytes
from ..spec import SIGNED, Flip, Patches, Planes
from ..vector.simple import SimpleSchedule, whole_vectors
from .math import real, whole, widen

_SIGN = 128


def flip_units(spec: Flip, _schedule: SimpleSchedule) -> int:
    """One work unit a block of an image."""
    return spec.batch * spec.blocks


def emit_flip(spec: Flip, _schedule: SimpleSchedule, name: str) -> list[tirx.PrimFunc]:
    """128 more, or less."""
    em = Emitter(name, spec.pointers)
    change, dtype = (-_SIGN, "int8x16") if spec.out_element == SIGNED else (_SIGN, "uint8x16")
    plane = spec.pixels * BLOCK
    with em.units() as unit:
        n, block = em.let(tirx.floordiv(unit, spec.blocks), "n"), em.let(tirx.floormod(unit, spec.blocks), "block")
        src = em.let(n * spec.in_stride + block * plane, "src0")
        dst = em.let(n * spec.out_stride + block * plane, "dst0")
        with em.loop(spec.pixels, "pixel") as pixel:
            value = widen(load(em.buffers["src"], src + pixel * BLOCK, BLOCK)) + whole(change, BLOCK)
            em.store(em.buffers["dst"], dst + pixel * BLOCK, tirx.Cast(dtype, value))
    return [em.finish()]


def patch_units(spec: Patches, _schedule: SimpleSchedule) -> int:
    """One work unit a row of an image."""
    return spec.batch * spec.out_height


def emit_patches(spec: Patches, _schedule: SimpleSchedule, name: str) -> list[tirx.PrimFunc]:
    """Byte by byte: where each channel's pixel lies is known, and nothing is outside."""
    em = Emitter(name, spec.pointers)
    line = spec.width * spec.channels
    offsets = [
        r * spec.dilation[0] * line + s * spec.dilation[1] * spec.channels + c
        for r in range(spec.kernel[0]) for s in range(spec.kernel[1]) for c in range(spec.channels)
    ]  # fmt: skip
    with em.units() as unit:
        n, y = em.let(tirx.floordiv(unit, spec.out_height), "n"), em.let(tirx.floormod(unit, spec.out_height), "y")
        src0 = em.let(n * (spec.height * line) + y * (spec.stride[0] * line), "src0")
        dst0 = em.let(n * spec.out_stride + y * (spec.out_width * BLOCK), "dst0")
        with em.loop(spec.out_width, "x") as x:
            src = em.let(src0 + x * (spec.stride[1] * spec.channels), "src")
            dst = em.let(dst0 + x * BLOCK, "dst")
            for channel in range(spec.blocks * BLOCK):
                at = dst + channel // BLOCK * (spec.out_height * spec.out_width * BLOCK) + channel % BLOCK
                inside = channel < len(offsets)
                value: Any = load(em.buffers["src"], src + offsets[channel]) if inside else tirx.const(0, "int8")
                em.store(em.buffers["dst"], at, value)
    return [em.finish()]


def plane_units(spec: Planes, _schedule: SimpleSchedule) -> int:
    """One work unit a block of an image."""
    return spec.batch * spec.blocks


def emit_planes(spec: Planes, _schedule: SimpleSchedule, name: str) -> list[tirx.PrimFunc]:
    """Four bytes together, as a float, times the factor."""
    em = Emitter(name, spec.pointers)
    plane = spec.pixels * BLOCK
    with em.units() as unit:
        n, block = em.let(tirx.floordiv(unit, spec.blocks), "n"), em.let(tirx.floormod(unit, spec.blocks), "block")
        src = em.let(n * spec.in_stride + block * plane, "src0")
        dst = em.let(n * spec.out_stride + block * plane, "dst0")
        factor = em.let(load(em.buffers["factor"], block * BLOCK, BLOCK), "factor")
        with em.loop(spec.pixels, "pixel") as pixel:
            acc: Any = whole(0, BLOCK)
            for number in range(4):
                part = widen(load(em.buffers["src"], src + number * (spec.blocks * plane) + pixel * BLOCK, BLOCK))
                if number < 3:
                    part = tirx.bitwise_and(part, whole(255, BLOCK))
                acc = acc + tirx.shift_left(part, whole(8 * number, BLOCK))
            em.store(em.buffers["dst"], dst + pixel * BLOCK, clamp(real(acc) * factor, spec.activation))
    return [em.finish()]


FAMILIES: tuple[Family[Any, SimpleSchedule], ...] = (
    Family("bytes.flip", Flip, of_bytes, whole_vectors, flip_units, emit_flip),
    Family("bytes.patches", Patches, of_bytes, whole_vectors, patch_units, emit_patches),
    Family("bytes.planes", Planes, of_bytes, whole_vectors, plane_units, emit_planes),
)
