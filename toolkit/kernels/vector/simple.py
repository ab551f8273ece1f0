"""The kernels that only move or map data on CPUs: global average, elementwise operators, changes of layout."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ..elements import element_of
from ..emit import Emitter, Expr, clamp, const, load, splat, together
from ..family import Family, of_vectors
from ..isa import Isa
from ..spec import ChannelNorm, GlobalAverage, Map, Normalise, Pack, Softmax, Spec, Unpack
from . import math


@dataclass(frozen=True)
class SimpleSchedule:
    """How a kernel that moves or maps data is cut.

    Attributes:
        lanes: floats in a vector register.
    """

    lanes: int


def whole_vectors(_spec: Spec, isa: Isa) -> SimpleSchedule:
    """There is nothing to choose."""
    return SimpleSchedule(isa.lanes)


def _per_lane(function: Callable[[Expr], Expr]) -> Callable[[Expr, tuple[float, ...]], Expr]:
    return lambda value, _constants: function(value)


def _zero(value: Expr) -> Expr:
    return const(0.0, value.ty.dtype.lanes)


def _magnitude(value: Expr) -> Expr:
    return tirx.max(value, _zero(value) - value)


def _leaky(value: Expr, constants: tuple[float, ...]) -> Expr:
    lanes = value.ty.dtype.lanes
    return tirx.max(_zero(value), value) + const(constants[0], lanes) * tirx.min(_zero(value), value)


def _affine(value: Expr, constants: tuple[float, ...]) -> Expr:
    lanes = value.ty.dtype.lanes
    return value * const(constants[0], lanes) + const(constants[1], lanes)


def _hard_sigmoid(value: Expr, constants: tuple[float, ...]) -> Expr:
    return clamp(_affine(value, constants), (0.0, 1.0))


def _requantized(value: Expr, constants: tuple[float, ...]) -> Expr:
    """`clamp(round(x / scale), low, high) * scale`, ties to even: the real number that an 8-bit one stands for."""
    scale = const(constants[0], value.ty.dtype.lanes)
    return clamp(tirx.nearbyint(value / scale), (constants[1], constants[2])) * scale


UNARY: dict[str, Callable[[Expr, tuple[float, ...]], Expr]] = {
    "identity": lambda value, _constants: value,
    "clip": lambda value, constants: clamp(value, (constants[0], constants[1])),
    "leaky_relu": _leaky,
    "affine": _affine,
    "abs": _per_lane(_magnitude),
    "square": _per_lane(lambda value: value * value),
    "exp": _per_lane(math.exp),
    "erf": _per_lane(math.erf),
    "gelu": _per_lane(math.gelu),
    "gelu_tanh": _per_lane(math.gelu_tanh),
    "elu": lambda value, constants: math.elu(value, constants[0]),
    "selu": lambda value, constants: const(constants[1], value.ty.dtype.lanes) * math.elu(value, constants[0]),
    "mish": _per_lane(math.mish),
    "silu": _per_lane(lambda value: value * math.sigmoid(value)),
    "sigmoid": _per_lane(math.sigmoid),
    "softplus": _per_lane(math.softplus),
    "softsign": _per_lane(lambda value: value / (const(1.0, value.ty.dtype.lanes) + _magnitude(value))),
    "tanh": _per_lane(math.tanh),
    "hard_sigmoid": _hard_sigmoid,
    "hard_swish": lambda value, _constants: value * _hard_sigmoid(value, (1 / 6, 0.5)),
    "sqrt": _per_lane(tirx.sqrt),
    "reciprocal": _per_lane(lambda value: const(1.0, value.ty.dtype.lanes) / value),
    "log": _per_lane(tirx.log),
    "requantized": _requantized,
}
"""Operators of one operand; all but the `PARTIAL` map finite values to finite ones."""


def _prelu(value: Expr, slope: Expr) -> Expr:
    return tirx.max(_zero(value), value) + slope * tirx.min(_zero(value), value)


BINARY: dict[str, Callable[[Expr, Expr], Expr]] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "max": tirx.max,
    "min": tirx.min,
    "prelu": _prelu,
}
"""Operators of two operands, likewise."""


def map_units(spec: Map, _schedule: SimpleSchedule) -> int:
    """One work unit a block of an image."""
    return spec.batch * spec.blocks


def emit_map(spec: Map, schedule: SimpleSchedule, name: str) -> list[tirx.PrimFunc]:
    """An elementwise operator."""
    lanes = schedule.lanes
    em = Emitter(name, spec.pointers)
    wide = element_of(spec.in_element).block
    near, there = element_of(spec.in_element).cell, element_of(spec.out_element).cell
    far = element_of(spec.second_element).cell if spec.second_element else wide
    assert spec.op in (UNARY if spec.second == "none" else BINARY), spec.op
    clamp_after = (spec.constants[0], spec.constants[1]) if spec.op in BINARY and len(spec.constants) == 2 else None
    with em.units() as unit:
        n, block = em.let(tirx.floordiv(unit, spec.blocks), "n"), em.let(tirx.floormod(unit, spec.blocks), "block")
        src = em.let(n * spec.in_stride + block * (spec.pixels * near), "src0")
        dst = em.let(n * spec.out_stride + block * (spec.pixels * there), "dst0")
        each = 1 if spec.second == "channel" else spec.pixels
        second = em.let(n * spec.second_stride + block * (each * far), "second0")
        number = together(spec.in_element, lanes)
        with em.loop(spec.pixels, "pixel") as pixel:
            for first in range(0, wide, lanes * number):
                values = []
                for part in range(first, first + lanes * number, lanes):
                    value = em.read("src", src + pixel * near + part, lanes)
                    if spec.second == "none":
                        value = UNARY[spec.op](value, spec.constants)
                    else:
                        at = part if spec.second == "channel" else pixel * far + part
                        other = em.read("second", second + at, lanes)
                        value = clamp(BINARY[spec.op](value, other), clamp_after)
                    values.append(value)
                em.write("dst", dst + pixel * there + first, *values)
    return [em.finish()]


def average_units(spec: GlobalAverage, _schedule: SimpleSchedule) -> int:
    """One work unit a block of an image."""
    return spec.batch * spec.blocks


def emit_average(spec: GlobalAverage, schedule: SimpleSchedule, name: str) -> list[tirx.PrimFunc]:
    """Mean, sum or norm over the pixels; four sums run side by side to hide the latency of the addition."""
    lanes = schedule.lanes
    chains = next(c for c in (4, 2, 1) if spec.pixels % c == 0)
    em = Emitter(name, spec.pointers)
    near, there = element_of(spec.in_element), element_of(spec.out_element)
    with em.units() as unit:
        n, block = em.let(tirx.floordiv(unit, spec.blocks), "n"), em.let(tirx.floormod(unit, spec.blocks), "block")
        src = em.let(n * spec.in_stride + block * (spec.pixels * near.cell), "src0")
        for part in range(0, near.block, lanes):
            acc = em.local(chains * lanes)
            for c in range(chains):
                em.store(acc, c * lanes, const(0.0, lanes))
            with em.loop(spec.pixels // chains, "i") as i:
                for c in range(chains):
                    value = em.read("src", src + (i * chains + c) * near.cell + part, lanes)
                    if spec.of == "l2":
                        value = em.let(value, "value")
                        value = value * value
                    em.store(acc, c * lanes, load(acc, c * lanes, lanes) + value)
            total = load(acc, 0, lanes)
            for c in range(1, chains):
                total = total + load(acc, c * lanes, lanes)
            at = n * spec.out_stride + block * there.cell + part
            last = {"mean": lambda x: x * const(1.0 / spec.pixels, lanes), "sum": lambda x: x, "l2": tirx.sqrt}
            em.write("dst", at, last[spec.of](total))
    return [em.finish()]


_ROW_PIXELS = 16
"""Pixels of a work unit, at the most, where their channels lie side by side."""


def _some_pixels(em: Emitter, unit: Expr, pixels: int, most: int = _ROW_PIXELS) -> tuple[Expr, Expr, Expr]:
    """Image, first pixel and number of pixels of a work unit of at most so many."""
    chunks = -(-pixels // most)
    n, chunk = em.let(tirx.floordiv(unit, chunks), "n"), em.let(tirx.floormod(unit, chunks), "chunk")
    first = em.let(chunk * most, "first")
    return n, first, em.let(tirx.min(most, pixels - first), "count")


_NORMALISE_PIXELS = 2048
"""Pixels of a work unit."""


def normalise_units(spec: Normalise, _schedule: SimpleSchedule) -> int:
    """One work unit so many pixels of an image."""
    return spec.batch * -(-spec.pixels // _NORMALISE_PIXELS)


def emit_normalise(spec: Normalise, _schedule: SimpleSchedule, name: str) -> list[tirx.PrimFunc]:
    """Bytes to planes. All channels of a pixel in one round, so that LLVM loads whole vectors and takes them apart."""
    em = Emitter(name, spec.pointers)
    step, plane = (spec.channels, 1) if spec.together else (1, spec.pixels)
    with em.units() as unit:
        n, first, count = _some_pixels(em, unit, spec.pixels, _NORMALISE_PIXELS)
        image = em.let(n * (spec.channels * spec.pixels), "image")
        numbers = [
            tuple(em.let(load(em.buffers[what], c), what) for what in ("factor", "summand"))
            for c in range(spec.channels)
        ]
        with em.loop(count, "i") as i:
            for c, (factor, summand) in enumerate(numbers):
                byte = load(em.buffers["src"], image + (first + i) * step + c * plane)
                value = tirx.Cast("float32", byte) * factor + summand
                em.store(em.buffers["dst"], image + c * spec.pixels + first + i, value)
    return [em.finish()]


def pack_units(spec: Pack, _schedule: SimpleSchedule) -> int:
    """One work unit a block of an image; some pixels of one, where their channels lie side by side."""
    return spec.batch * (-(-spec.pixels // _ROW_PIXELS) if spec.last else spec.blocks)


def _emit_pack_last(spec: Pack, schedule: SimpleSchedule, name: str) -> list[tirx.PrimFunc]:
    """NHWC to NCHW16c: whole vectors, but for the block that is partly padding."""
    em, lanes = Emitter(name, spec.pointers), schedule.lanes
    wide, cell = element_of(spec.out_element).block, element_of(spec.out_element).cell
    number = together(spec.out_element, lanes)
    with em.units() as unit:
        n, first, count = _some_pixels(em, unit, spec.pixels)
        with em.loop(count, "p") as p:
            src = em.let((n * spec.pixels + first + p) * spec.channels, "src0")
            dst = em.let(n * spec.out_stride + (first + p) * cell, "dst0")
            with em.loop(spec.channels // wide, "block") as block:
                at = em.let(dst + block * (spec.pixels * cell), "at")
                for part in range(0, wide, lanes * number):
                    places = (src + block * wide + part + v * lanes for v in range(number))
                    em.write("dst", at + part, *(load(em.buffers["src"], place, lanes) for place in places))
            if rest := spec.channels % wide:
                whole = spec.channels - rest
                with em.loop(wide, "lane") as lane:
                    value = em.let(load(em.buffers["src"], src + whole + tirx.min(lane, rest - 1)), "value")
                    value = em.let(tirx.Select(lane < rest, value, const(0.0)), "value")
                    em.write("dst", dst + whole // wide * (spec.pixels * cell) + lane, value)
    return [em.finish()]


def emit_pack(spec: Pack, schedule: SimpleSchedule, name: str) -> list[tirx.PrimFunc]:
    """NCHW (or NHWC) to NCHW16c."""
    if spec.last:
        return _emit_pack_last(spec, schedule, name)
    em = Emitter(name, spec.pointers)
    wide, cell = element_of(spec.out_element).block, element_of(spec.out_element).cell
    with em.units() as unit:
        n, block = em.let(tirx.floordiv(unit, spec.blocks), "n"), em.let(tirx.floormod(unit, spec.blocks), "block")
        src = em.let(n * (spec.channels * spec.pixels), "src0")
        dst = em.let(n * spec.out_stride + block * (spec.pixels * cell), "dst0")
        with em.loop(wide, "lane") as lane:
            channel = em.let(load(em.buffers["table"], block * wide + lane), "channel")
            with em.loop(spec.pixels, "pixel") as pixel:
                # read outside of the Select: inside of it TVM takes max(channel, 0) for channel, and reads at -1
                value = em.let(load(em.buffers["src"], src + tirx.max(channel, 0) * spec.pixels + pixel), "value")
                value = em.let(tirx.Select(channel >= 0, value, const(0.0)), "value")
                em.write("dst", dst + pixel * cell + lane, value)
    return [em.finish()]


def unpack_units(spec: Unpack, _schedule: SimpleSchedule) -> int:
    """One work unit a channel of an image; some pixels of one, where their channels lie side by side."""
    return spec.batch * (-(-spec.pixels // _ROW_PIXELS) if spec.last else spec.channels)


def _emit_unpack_last(spec: Unpack, schedule: SimpleSchedule, name: str) -> list[tirx.PrimFunc]:
    """NCHW16c to NHWC: whole vectors, but for the block that is partly padding."""
    em, lanes = Emitter(name, spec.pointers), schedule.lanes
    wide, cell = element_of(spec.in_element).block, element_of(spec.in_element).cell
    with em.units() as unit:
        n, first, count = _some_pixels(em, unit, spec.pixels)
        with em.loop(count, "p") as p:
            src = em.let(n * spec.in_stride + (first + p) * cell, "src0")
            dst = em.let((n * spec.pixels + first + p) * spec.channels, "dst0")
            with em.loop(spec.channels // wide, "block") as block:
                at = em.let(src + block * (spec.pixels * cell), "at")
                for part in range(0, wide, lanes):
                    em.write("dst", dst + block * wide + part, em.read("src", at + part, lanes))
            if rest := spec.channels % wide:
                whole = spec.channels - rest
                with em.loop(rest, "lane") as lane:
                    at = src + whole // wide * (spec.pixels * cell) + lane
                    em.write("dst", dst + whole + lane, em.read("src", at))
    return [em.finish()]


def emit_unpack(spec: Unpack, schedule: SimpleSchedule, name: str) -> list[tirx.PrimFunc]:
    """NCHW16c to NCHW (or NHWC)."""
    if spec.last:
        return _emit_unpack_last(spec, schedule, name)
    em = Emitter(name, spec.pointers)
    block, cell = element_of(spec.in_element).block, element_of(spec.in_element).cell
    with em.units() as unit:
        n, channel = (
            em.let(tirx.floordiv(unit, spec.channels), "n"),
            em.let(tirx.floormod(unit, spec.channels), "channel"),
        )
        slot = em.let(load(em.buffers["table"], channel), "slot")
        src = em.let(
            n * spec.in_stride + tirx.floordiv(slot, block) * (spec.pixels * cell) + tirx.floormod(slot, block),
            "src0",
        )
        with em.loop(spec.pixels, "pixel") as pixel:
            em.write("dst", unit * spec.pixels + pixel, em.read("src", src + pixel * cell))
    return [em.finish()]


def softmax_units(spec: Softmax, _schedule: SimpleSchedule) -> int:
    """One work unit a row."""
    return spec.rows


def emit_softmax(spec: Softmax, schedule: SimpleSchedule, name: str) -> list[tirx.PrimFunc]:
    """Softmax of every row: its maximum, exponentials and their sum, then the scaling. The last few elements go one
    at a time.
    """
    lanes = schedule.lanes
    whole = spec.length // lanes
    em = Emitter(name, spec.pointers)
    src, dst = em.buffers["src"], em.buffers["dst"]
    with em.units() as row:
        base = em.let(row * spec.length, "base")
        wide, single = em.local(lanes, name="wide"), em.local(1, name="single")

        def each(function: Callable[[Expr, int, Any], None]) -> None:
            """Call `function(offset, lanes, accumulator)` for the row's vectors, and for the elements that remain."""
            if whole:
                with em.loop(whole, "i") as i:
                    function(base + i * lanes, lanes, wide)
            if spec.length % lanes:
                with em.loop(spec.length % lanes, "j") as j:
                    function(base + whole * lanes + j, 1, single)

        def reduced(combine: Callable[[Expr, Expr], Expr]) -> Expr:
            total = load(single, 0)
            for lane in range(lanes):
                total = combine(total, load(wide, lane))
            return em.let(total, "total")

        def reset(value: float) -> None:
            em.store(wide, 0, const(value, lanes))
            em.store(single, 0, const(value))

        def largest(at: Expr, width: int, acc: Any) -> None:
            em.store(acc, 0, tirx.max(load(acc, 0, width), load(src, at, width)))

        reset(-3.402823466e38)
        each(largest)
        peak = reduced(tirx.max)

        def exponential(at: Expr, width: int, acc: Any) -> None:
            value = em.let(math.exp(load(src, at, width) - splat(peak, width)), "e")
            em.store(dst, at, value)
            em.store(acc, 0, load(acc, 0, width) + value)

        reset(0.0)
        each(exponential)
        scale = em.let(const(1.0) / reduced(lambda a, b: a + b), "scale")
        each(lambda at, width, _acc: em.store(dst, at, load(dst, at, width) * splat(scale, width)))
    return [em.finish()]


_NORM_PIXELS = 8
"""Pixels of a work unit, at the most: their sums are kept while every block of channels is read."""


def norm_units(spec: ChannelNorm, _schedule: SimpleSchedule) -> int:
    """Some neighbouring pixels of an image."""
    return spec.batch * -(-spec.pixels // _NORM_PIXELS)


def emit_norm(spec: ChannelNorm, schedule: SimpleSchedule, name: str) -> list[tirx.PrimFunc]:
    """Layer normalization over channels: a pass for the mean, one for the variance, one for the result. A pixel's
    sums are vectors of lanes until all channels are read.
    """
    lanes = schedule.lanes
    em = Emitter(name, spec.pointers)
    wide = element_of(spec.in_element).block
    near, there = element_of(spec.in_element).cell, element_of(spec.out_element).cell
    chunks, number = -(-spec.pixels // _NORM_PIXELS), together(spec.in_element, lanes)
    share = const(1.0 / spec.averaged)
    with em.units() as unit:
        n, chunk = em.let(tirx.floordiv(unit, chunks), "n"), em.let(tirx.floormod(unit, chunks), "chunk")
        first = em.let(chunk * _NORM_PIXELS, "first")
        count = em.let(tirx.min(_NORM_PIXELS, spec.pixels - first), "count")
        src = em.let(n * spec.in_stride + first * near, "src0")
        dst = em.let(n * spec.out_stride + first * there, "dst0")
        sums, means = em.local(_NORM_PIXELS * lanes, name="sums"), em.local(_NORM_PIXELS, name="means")
        scales = em.local(_NORM_PIXELS, name="scales")

        def masked(value: Expr, at: Expr) -> Expr:
            """`value` where its lane holds a channel, zero elsewhere."""
            return value * em.read("mask", at, lanes) if spec.channels else value

        def summed(term: Callable[[Expr, Expr, Expr], Expr], into: Any, last: Callable[[Expr], Expr]) -> None:
            """The mean over a pixel's channels of `term(value, pixel, lane)`, through `last`, for every pixel."""
            with em.loop(count, "p") as p:
                em.store(sums, p * lanes, const(0.0, lanes))
            with em.loop(spec.blocks, "block") as block, em.loop(count, "p") as p:
                total = load(sums, p * lanes, lanes)
                for part in range(0, wide, lanes):
                    value = em.read("src", src + (block * spec.pixels + p) * near + part, lanes)
                    total = total + term(value, p, block * wide + part)
                em.store(sums, p * lanes, total)
            with em.loop(count, "p") as p:
                total = load(sums, p * lanes)
                for lane in range(1, lanes):
                    total = total + load(sums, p * lanes + lane)
                em.store(into, p, last(em.let(total, "total") * share))

        def squared(value: Expr, p: Expr, at: Expr) -> Expr:
            off = em.let(masked(value - splat(load(means, p), lanes), at), "off")
            return off * off

        summed(lambda value, _p, at: masked(value, at), means, lambda mean: mean)
        summed(squared, scales, lambda variance: const(1.0) / tirx.sqrt(variance + const(spec.epsilon)))
        with em.loop(spec.blocks, "block") as block, em.loop(count, "p") as p:
            for start in range(0, wide, lanes * number):
                values = []
                for part in range(start, start + lanes * number, lanes):
                    value = em.read("src", src + (block * spec.pixels + p) * near + part, lanes)
                    value = (value - splat(load(means, p), lanes)) * splat(load(scales, p), lanes)
                    scale = em.read("scale", block * wide + part, lanes)
                    values.append(value * scale + em.read("bias", block * wide + part, lanes))
                em.write("dst", dst + (block * spec.pixels + p) * there + start, *values)
    return [em.finish()]


FAMILIES: tuple[Family[Any, SimpleSchedule], ...] = (
    Family("vector.map", Map, of_vectors, whole_vectors, map_units, emit_map),
    Family("vector.average", GlobalAverage, of_vectors, whole_vectors, average_units, emit_average),
    Family("vector.normalise", Normalise, of_vectors, whole_vectors, normalise_units, emit_normalise),
    Family("vector.pack", Pack, of_vectors, whole_vectors, pack_units, emit_pack),
    Family("vector.unpack", Unpack, of_vectors, whole_vectors, unpack_units, emit_unpack),
    Family("vector.norm", ChannelNorm, of_vectors, whole_vectors, norm_units, emit_norm),
    Family("vector.softmax", Softmax, of_vectors, whole_vectors, softmax_units, emit_softmax),
)
