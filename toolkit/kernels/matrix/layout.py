"""What stands before a convolution by matrix tiles: zeros around its input, and the network's own input in bfloat16."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from .. import x86
from ..elements import BF16, element_of
from ..emit import BITS16, Emitter, Expr, load, nearest, splat
from ..family import Family
from ..isa import Isa
from ..spec import Frame, Frame4, Pixels
from ..vector.simple import SimpleSchedule, whole_vectors

LANES = element_of(BF16).block
"""bfloat16 in a row of a tile: 64 bytes, which is a cache line and the 16 floats of a block of fp32."""


_FLOATS = 16
"""fp32 in a cache line."""


def lines(em: Emitter, size: int, name: str) -> tuple[Any, Expr]:
    """fp32 scratch that stays in memory: the buffer, and the index in it at which a cache line begins.

    TVM aligns what is on the stack to 16 bytes at most, and every other access would touch two lines.
    """
    buffer = em.local(size + _FLOATS, "float32", name)
    skip = em.inline(x86.TO_LINE, "to_line", "int32", tirx.address_of(load(buffer, 0)))
    return buffer, em.let(tirx.floordiv(skip, 4), "line")


def zero_frame(em: Emitter, at: Expr, height: int, width: int, frame: Frame4, pointer: str = "dst") -> None:
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
        em.store(em.buffers[pointer], at + row, splat(tirx.const(0, BITS16), LANES))


def frame_units(spec: Frame, _schedule: SimpleSchedule) -> int:
    """One work unit a line of a block, the frame's among them."""
    return spec.batch * spec.blocks * (spec.frame[0] + spec.height + spec.frame[2])


def emit_frame(spec: Frame, _schedule: SimpleSchedule, name: str) -> list[tirx.PrimFunc]:
    """A copy of every plane, and zeros around it."""
    em = Emitter(name, spec.pointers)
    cell = element_of(spec.in_element).cell
    top, left, bottom, right = spec.frame
    lines, wide = top + spec.height + bottom, left + spec.width + right
    with em.units() as unit:
        index, y = em.let(tirx.floordiv(unit, lines), "index"), em.let(tirx.floormod(unit, lines) - top, "y")
        n, block = em.let(tirx.floordiv(index, spec.blocks), "n"), em.let(tirx.floormod(index, spec.blocks), "block")
        src = em.let(n * spec.in_stride + (block * spec.height + y) * (spec.width * cell), "src0")
        dst = em.let(n * spec.out_stride + (block * lines + y + top) * (wide * cell), "dst0")
        if top or bottom:
            with em.when(tirx.any(y < 0, y >= spec.height)), em.loop(wide, "x") as x:
                _zero(em, "dst", dst + x * cell, cell)
        with em.when(tirx.all(y >= 0, y < spec.height)):
            for column in (*range(left), *range(left + spec.width, wide)):
                _zero(em, "dst", dst + column * cell, cell)
            start = em.let(dst + left * cell, "start")
            with em.loop(spec.width, "x") as x:
                for row in range(0, cell, LANES):
                    em.store(
                        em.buffers["dst"], start + x * cell + row, load(em.buffers["src"], src + x * cell + row, LANES)
                    )
    return [em.finish()]


def pixel_units(spec: Pixels, _schedule: SimpleSchedule) -> int:
    """One work unit a row of an image."""
    return spec.batch * spec.lines


def emit_pixels(spec: Pixels, schedule: SimpleSchedule, name: str) -> list[tirx.PrimFunc]:
    """Planes of fp32 to pixels of a few bfloat16: a vector of pixels at a time, the last one of a row moved back until
    it ends with it.
    """
    em = Emitter(name, [("src", "float32"), ("dst", BF16)])
    top, left, _, _ = spec.frame
    plane = spec.height * spec.width
    lanes = schedule.lanes if spec.width >= schedule.lanes else 1
    with em.units() as unit:
        n, y = em.let(tirx.floordiv(unit, spec.lines), "n"), em.let(tirx.floormod(unit, spec.lines), "y")
        low = spec.lines * spec.line
        line = em.let(n * spec.size + y * spec.line, "line")
        with em.loop(spec.line // LANES, "part") as part:
            for start in range(0, spec.size, low):
                _zero(em, "dst", line + start + part * LANES, LANES)
        with em.when(tirx.all(y >= top, y < top + spec.height)):
            src = em.let(n * (spec.channels * plane) + (y - top) * spec.width, "src0")
            with em.loop(-(-spec.width // lanes), "turn") as turn:
                x = em.let(tirx.min(turn * lanes, spec.width - lanes), "x")
                given = [load(em.buffers["src"], src + channel * plane + x, lanes) for channel in range(spec.channels)]
                at = em.let(line + (x + left) * spec.slots, "at")
                for i, part in enumerate(_side_by_side(em, given, spec)):
                    em.store(em.buffers["dst"], at + i * low, part)
    return [em.finish()]


def _side_by_side(em: Emitter, given: list[Expr], spec: Pixels) -> list[Expr]:
    """The channels' vectors as bfloat16, all channels of a pixel together: the high halves, and the low ones."""
    lanes = given[0].ty.dtype.lanes
    words = "uint32" if lanes == 1 else f"uint32x{lanes}"
    none, half = (splat(tirx.const(value, "uint32"), lanes) for value in (0, 16))
    parts = [em.split(value) for value in given]
    found = []
    for kept in range(element_of(spec.out_element).halves):
        # what bfloat16 does not hold is zero: two channels fit into 32 bits
        bits = [tirx.reinterpret(words, part[0] if kept == 0 else nearest(part[1])) for part in parts]
        bits += [none] * (spec.slots - len(bits))
        pairs = [em.let((bits[i] >> half) | bits[i + 1], "pair") for i in range(0, spec.slots, 2)]
        order = [i * lanes + lane for lane in range(lanes) for i in range(len(pairs))]
        found.append(tirx.reinterpret(f"{BITS16}x{lanes * spec.slots}", tirx.Shuffle(pairs, order)))
    return found


def _serves(spec: Frame | Pixels, isa: Isa) -> str | None:
    """What tiles are loaded from."""
    element = spec.in_element if isinstance(spec, Frame) else spec.out_element
    return None if element in isa.tiled else f"{isa.name} has no tiles of {element}"


FAMILIES: tuple[Family[Any, SimpleSchedule], ...] = (
    Family("matrix.frame", Frame, _serves, whole_vectors, frame_units, emit_frame),
    Family("matrix.pixels", Pixels, _serves, whole_vectors, pixel_units, emit_pixels),
)
