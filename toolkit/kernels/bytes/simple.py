"""The integer kernels of CPUs that are no convolution: pools, depthwise convolution, and one value at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ..cut import runs, split
from ..elements import BLOCK, SIXTEEN, element_of, ends
from ..emit import NEON, Emitter, Expr, clamp, const, load, splat
from ..family import Family, of_bytes
from ..isa import Isa
from ..spec import NONE, Map, Pixels, Window, WindowOp
from ..vector.simple import SimpleSchedule, whole_vectors
from .math import averaged, mapped, narrow, nearest, real, rounded, scaled, scaling_at, to_bytes, whole, widen

_PIXELS = 8
"""Widest tile of a window along a row."""

_NEON_PIXELS = {32: 5, 16: 1}
"""The same by ARM's registers (docs/perf/arm.md)."""


# -- windows ---------------------------------------------------------------------------------------------------------
def window_units(spec: Window, _schedule: SimpleSchedule) -> int:
    """One work unit a row of a block of channels."""
    return spec.batch * spec.blocks * spec.out_height


@dataclass(frozen=True)
class WindowSchedule(SimpleSchedule):
    """How a row is cut.

    Attributes:
        pixels: widest tile.
        narrow: what makes bytes of floats at once (`Isa.narrow`).
    """

    pixels: int = _PIXELS
    narrow: str = ""


def choose_window(spec: Window, isa: Isa) -> WindowSchedule:
    """On NEON a pixel's sums are four vectors, beside which bytes and the weights of a row need registers."""
    if isa.lanes != NEON or spec.op is WindowOp.MAX:
        return WindowSchedule(isa.lanes)
    return WindowSchedule(isa.lanes, _NEON_PIXELS[isa.registers], isa.narrow)


def emit_window(spec: Window, schedule: WindowSchedule, name: str) -> list[tirx.PrimFunc]:
    """Max pool, average pool, depthwise convolution."""
    return [_Window(spec, schedule, name).emit()]


class _Window:
    """The parts of one kernel's code. Taps outside of the image are left out."""

    def __init__(self, spec: Window, schedule: WindowSchedule, name: str) -> None:
        self.spec, self.schedule = spec, schedule
        self.em = Emitter(name, spec.pointers)

    def inside(self, x: int | Expr, p: int, s: int) -> bool:
        """Column `s` of the window of pixel `x + p` lies inside the image."""
        spec = self.spec
        return not isinstance(x, int) or 0 <= (x + p) * spec.stride[1] - spec.pad[1] + s * spec.dilation[1] < spec.width

    def tile(self, src0: Expr, dst0: Expr, block: Expr, y: Expr, x: int | Expr, width: int) -> None:
        """`width` pixels of a row from column `x`."""
        em, spec = self.em, self.spec
        (rows, columns), (step_y, step_x), (top, left) = spec.kernel, spec.stride, spec.pad[:2]
        spread_y, spread_x = spec.dilation
        maximum, depthwise = spec.op is WindowOp.MAX, spec.op is WindowOp.DEPTHWISE
        stored = element_of(spec.in_element).stored
        acc = em.local(width * BLOCK, stored if maximum else "int32")
        least = ends(spec.in_element)[0]
        start: Expr = splat(tirx.const(least, stored), BLOCK) if maximum else whole(0, BLOCK)
        if depthwise:
            start = em.let(load(em.buffers["bias"], block * BLOCK, BLOCK), "start")
        for p in range(width):
            em.store(acc, p * BLOCK, start)
        first = y * step_y - top
        begin = em.let(tirx.max(0, tirx.floordiv(spread_y - 1 - first, spread_y)), "begin") if top else 0
        end = em.let(tirx.min(rows, tirx.floordiv(spec.height - 1 - first, spread_y) + 1), "end")
        with em.loop(end - begin, "r", begin) as r:
            base = em.let(src0 + ((first + r * spread_y) * spec.width + x * step_x - left) * BLOCK, "base")
            for s in range(columns):
                w: Expr = None
                if depthwise:
                    tap = ((block * rows + r) * columns + s) * BLOCK
                    w = em.let(widen(load(em.buffers["weight"], tap, BLOCK)), "w")
                for p in (p for p in range(width) if self.inside(x, p, s)):
                    value = load(em.buffers["src"], base + (p * step_x + s * spread_x) * BLOCK, BLOCK)
                    old = load(acc, p * BLOCK, BLOCK)
                    if maximum:
                        em.store(acc, p * BLOCK, tirx.max(old, value))
                        continue
                    value = widen(value) - whole(spec.zero, BLOCK) if spec.zero else widen(value)
                    em.store(acc, p * BLOCK, old + (value * w if depthwise else value))
        for p in range(width):
            pixel = y * spec.out_width + x + p
            em.store(em.buffers["dst"], dst0 + pixel * BLOCK, self.finish(load(acc, p * BLOCK, BLOCK), block, pixel))

    def finish(self, acc: Expr, block: Expr, pixel: Expr) -> Expr:
        """The result of one pixel from what its window gave."""
        em, spec = self.em, self.spec
        if spec.op is WindowOp.MAX:
            return acc
        if spec.op is WindowOp.DEPTHWISE:
            factor = load(em.buffers["factor"], block * BLOCK, BLOCK)
        elif spec.rounding is not None and spec.rounding.shift:
            shift = em.let(load(em.buffers["factor"], 2 * pixel + 1), "shift")
            return narrow(averaged(acc, load(em.buffers["factor"], 2 * pixel), shift, spec.rounding), spec.out_element)
        else:
            factor = splat(load(em.buffers["factor"], pixel), BLOCK)
        if spec.rounding is None:
            return clamp(real(acc) * factor, spec.activation)
        to = to_bytes(em, self.schedule.narrow, spec.out_element)
        if spec.scaling is None:
            return narrow(rounded(acc, factor, spec.rounding, to), spec.out_element)
        numbers = scaling_at(em, block * BLOCK, spec.channels, BLOCK)
        q = em.let(rounded(acc, factor, spec.rounding), "q")
        return narrow(scaled(q, numbers, spec.scaling, to), spec.out_element)

    def emit(self) -> tirx.PrimFunc:
        """The whole kernel."""
        em, spec = self.em, self.spec
        columns = range(spec.kernel[1])

        def safe(x: int, width: int) -> bool:
            return all(self.inside(x, p, s) for p in range(width) for s in columns)

        with em.units() as unit:
            y = em.let(tirx.floormod(unit, spec.out_height), "y")
            index = em.let(tirx.floordiv(unit, spec.out_height), "index")
            n, block = tirx.floordiv(index, spec.blocks), em.let(tirx.floormod(index, spec.blocks), "block")
            src0 = em.let(n * spec.in_stride + block * (spec.height * spec.width * BLOCK), "src0")
            dst0 = em.let(n * spec.out_stride + block * (spec.out_height * spec.out_width * BLOCK), "dst0")
            for first, width, count in runs(split(spec.out_width, self.schedule.pixels), safe):
                if count == 1:
                    self.tile(src0, dst0, block, y, first, width)
                else:
                    with em.loop(count, "t") as t:
                        self.tile(src0, dst0, block, y, em.let(first + t * width, "x"), width)
        return em.finish()


# -- tables -----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class TableSchedule(SimpleSchedule):
    """How 256 bytes are looked up.

    Attributes:
        shuffle: LLVM's name of an instruction that takes bytes out of 16 by their low four bits, in each part of 16 of
            a vector; "" to look them up one at a time.
        wide: bytes of such a vector.
    """

    shuffle: str = ""
    wide: int = 1


def _shuffle(isa: Isa) -> tuple[str, int]:
    """That instruction of a machine, and its bytes."""
    if isa.machine == "aarch64":
        return "llvm.aarch64.neon.tbl1.v16i8", 16
    if isa.kind == "cpu" and isa.lanes == 16:
        return "llvm.x86.avx512.pshuf.b.512", 64
    return ("llvm.x86.avx2.pshuf.b", 32) if isa.kind == "cpu" else ("", 1)


def choose_map(spec: Map, isa: Isa) -> SimpleSchedule:
    """A table of bytes is shuffled where a block has a vector of pixels to look up."""
    if spec.op != "table":
        return whole_vectors(spec, isa)
    shuffle, wide = _shuffle(isa)
    able = spec.pixels * BLOCK >= wide > 1 and SIXTEEN not in (spec.in_element, spec.out_element)
    return TableSchedule(isa.lanes, shuffle, wide) if able else TableSchedule(isa.lanes)


def _look_up(em: Emitter, spec: Map, schedule: TableSchedule, src: Expr, dst: Expr) -> None:
    """A table's bytes for a plane of them: a shuffle for each 16 of its entries, of which the high four bits choose, a
    bit at a time. The last vector may overlap the one before it.
    """
    wide, vector, size = schedule.wide, f"uint8x{schedule.wide}", spec.pixels * BLOCK
    parts = em.local(16 * wide, "uint8", "parts")
    for part in range(16):
        sixteen = load(em.buffers["table"], 16 * part, 16)
        for copy in range(0, wide, 16):
            em.store(parts, part * wide + copy, sixteen)

    def byte(value: int) -> Expr:
        return splat(tirx.const(value, "uint8"), wide)

    with em.loop(-(-size // wide), "vector") as i:
        at = em.let(tirx.min(i * wide, size - wide), "at")
        index = em.let(tirx.reinterpret(vector, load(em.buffers["src"], src + at, wide)), "index")
        low = em.let(index & byte(15), "low")
        found = [
            em.let(tirx.call_llvm_pure_intrin(vector, schedule.shuffle, load(parts, part * wide, wide), low), "found")
            for part in range(16)
        ]
        for bit in (16, 32, 64, 128):
            high = (index & byte(bit)) > byte(0)
            pairs = zip(found[1::2], found[::2], strict=True)
            found = [em.let(tirx.Select(high, one, zero), "found") for one, zero in pairs]
        em.store(em.buffers["dst"], dst + at, tirx.reinterpret(f"{spec.out_element}x{wide}", found[0]))


# -- one value at a time ---------------------------------------------------------------------------------------------
def map_units(spec: Map, _schedule: SimpleSchedule) -> int:
    """One work unit a block of an image."""
    return spec.batch * spec.blocks


def emit_map(spec: Map, schedule: SimpleSchedule, name: str) -> list[tirx.PrimFunc]:
    """One value at a time, 16 of them at once."""
    em = Emitter(name, spec.pointers)
    with em.units() as unit:
        n, block = em.let(tirx.floordiv(unit, spec.blocks), "n"), em.let(tirx.floormod(unit, spec.blocks), "block")
        plane = spec.pixels * BLOCK
        src = em.let(n * spec.in_stride + block * plane, "src0")
        each = plane if spec.second == "tensor" else BLOCK
        other = em.let(n * spec.second_stride + block * each, "second0")
        dst = em.let(n * spec.out_stride + block * plane, "dst0")
        if isinstance(schedule, TableSchedule) and schedule.shuffle:
            _look_up(em, spec, schedule, src, dst)
        else:
            with em.loop(spec.pixels, "pixel") as pixel:
                at = pixel * BLOCK
                if spec.op == "table":
                    with em.loop(BLOCK, "lane") as lane:
                        index = tirx.Cast("int32", load(em.buffers["src"], src + at + lane))
                        index = index - ends(SIXTEEN)[0] if spec.in_element == SIXTEEN else index & 255
                        value = tirx.Cast(element_of(spec.out_element).stored, load(em.buffers["table"], index))
                        em.store(em.buffers["dst"], dst + at + lane, value)
                else:
                    second = other + at if spec.second == "tensor" else other
                    em.store(em.buffers["dst"], dst + at, _mapped(spec, em, src + at, second))
    return [em.finish()]


def _mapped(spec: Map, em: Emitter, at: Expr, second: Expr) -> Expr:
    """The result of 16 values."""
    value = load(em.buffers["src"], at, BLOCK)
    if spec.op == "clip":  # of numbers as they are
        assert spec.rounding is not None
        stored = element_of(spec.in_element).stored
        low, high = (splat(tirx.const(end, stored), BLOCK) for end in (spec.rounding.low, spec.rounding.high))
        return tirx.min(tirx.max(value, low), high)
    other: Any = None
    if spec.second == "scaling":
        other = scaling_at(em, second, spec.blocks * BLOCK, BLOCK)
    elif spec.second != "none":
        other = widen(load(em.buffers["second"], second, BLOCK))
    found = mapped(spec, value if spec.op == "quantize" else widen(value), other)
    return found if spec.op == "dequantize" else narrow(found, spec.out_element)


def input_units(spec: Pixels, _schedule: SimpleSchedule) -> int:
    """One work unit a few thousand pixels."""
    return spec.batch * -(-spec.lines * _line(spec) // _CHUNK)


_CHUNK = 4096


def _line(spec: Pixels) -> int:
    """Pixels of a line, with its frame."""
    return spec.line // spec.slots


def emit_input(spec: Pixels, _schedule: SimpleSchedule, name: str) -> list[tirx.PrimFunc]:
    """Planes of float32 to pixels of bytes; around them lies the zero point of signed bytes."""
    em = Emitter(name, spec.pointers)
    plane, line = spec.height * spec.width, _line(spec)
    pixels = spec.lines * line
    chunks = -(-pixels // _CHUNK)
    dtype = element_of(spec.out_element).stored
    assert spec.rounding is not None
    how = spec.rounding
    nothing = tirx.const(0, dtype)

    def pixel(src: Expr, dst: Expr, inside: Expr) -> None:
        for channel in range(spec.slots):
            value: Any = nothing
            if channel < spec.channels:
                value = load(em.buffers["src"], src + channel * plane)
                value = tirx.Cast(dtype, nearest(value / const(spec.scale), how))
                value = value if inside is None else tirx.if_then_else(inside, value, nothing)
            em.store(em.buffers["dst"], dst + channel, value)

    with em.units() as unit:
        n, chunk = em.let(tirx.floordiv(unit, chunks), "n"), em.let(tirx.floormod(unit, chunks), "chunk")
        first = em.let(chunk * _CHUNK, "first")
        end = em.let(tirx.min(first + _CHUNK, pixels), "end")
        with em.loop(end - first, "pixel", first) as i:
            dst = (n * pixels + i) * spec.slots
            if spec.frame == NONE:
                pixel(n * (spec.channels * plane) + i, dst, None)
            else:
                y = em.let(tirx.floordiv(i, line) - spec.frame[0], "y")
                x = em.let(tirx.floormod(i, line) - spec.frame[1], "x")
                inside = tirx.all(y >= 0, y < spec.height, x >= 0, x < spec.width)
                pixel(n * (spec.channels * plane) + y * spec.width + x, dst, inside)
    return [em.finish()]


FAMILIES: tuple[Family[Any, Any], ...] = (
    Family("bytes.window", Window, of_bytes, choose_window, window_units, emit_window),
    Family("bytes.map", Map, of_bytes, choose_map, map_units, emit_map),
    Family("bytes.pixels", Pixels, of_bytes, whole_vectors, input_units, emit_input),
)
