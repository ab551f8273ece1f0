"""The kernels that only move or map data on a GPU: pooling and depthwise windows, averages, elementwise operators,
layouts.

All are bound by memory. A thread computes four neighbouring channels (a quad) of one pixel, so a warp reads and
writes whole lines.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tvm import tirx

from ..elements import BLOCK
from ..emit import Expr, clamp, const, load
from ..family import Family, Launch, Program, of_gpu
from ..isa import Isa
from ..spec import (
    ChannelNorm,
    GlobalAverage,
    Map,
    MatrixProduct,
    Normalise,
    Pack,
    Softmax,
    Spec,
    Unpack,
    Window,
    WindowOp,
)
from ..vector import simple as vector
from ..vector.simple import BINARY
from .emit import QUAD, REALS, GpuEmitter, both, call, div, fma, inside, mod

QUADS = BLOCK // QUAD
"""Quads of a channel block."""

LOWEST = -3.402823466e38


@dataclass(frozen=True)
class SimpleSchedule:
    """How a kernel that moves or maps data is cut.

    Attributes:
        threads: of a block.
    """

    threads: int = 128


def each(count: int, schedule: SimpleSchedule, pointers: int) -> Program:
    """A launch with a thread for each of `count` items."""
    return Program((Launch((-(-count // schedule.threads), 1, 1), (schedule.threads, 1, 1), tuple(range(pointers))),))


def item_of(em: GpuEmitter, count: int, schedule: SimpleSchedule) -> tuple[Expr, Expr | None]:
    """This thread's item, and the condition under which there is one."""
    item = em.let(em.blocks[0] * schedule.threads + em.thread, "item")
    return item, item < count if count % schedule.threads else None


def split(em: GpuEmitter, item: Expr, extents: tuple[tuple[str, int], ...]) -> list[Expr]:
    """The indices that `item` counts through, innermost extent last; the outermost needs no extent."""
    found: list[Expr] = []
    rest = item
    for name, extent in reversed(extents[1:]):
        found.append(em.let(mod(rest, extent), name) if extent > 1 else 0)
        rest = em.let(div(rest, extent), "rest") if extent > 1 else rest
    return [rest, *reversed(found)]


# -- windows ---------------------------------------------------------------------------------------------------------
def _window_count(spec: Window) -> int:
    return spec.batch * spec.blocks * spec.out_height * spec.out_width * QUADS


def window_program(spec: Window, schedule: SimpleSchedule) -> Program:
    """A thread a quad of the output."""
    return each(_window_count(spec), schedule, 4 if spec.op is WindowOp.DEPTHWISE else 2)


def emit_window(spec: Window, schedule: SimpleSchedule, symbol: str) -> list[Any]:
    """Pooling and depthwise convolution; taps off the image are skipped."""
    depthwise = spec.op is WindowOp.DEPTHWISE
    em = GpuEmitter(symbol, spec.pointers, window_program(spec, schedule).launches[0])
    (rows, columns), (step_y, step_x), (spread_y, spread_x) = spec.kernel, spec.stride, spec.dilation
    top, left, bottom, right = spec.pad
    item, exists = item_of(em, _window_count(spec), schedule)

    def body() -> None:
        axes = (
            ("n", spec.batch),
            ("block", spec.blocks),
            ("y", spec.out_height),
            ("x", spec.out_width),
            ("quad", QUADS),
        )
        n, block, y, x, quad = split(em, item, axes)
        first_y, first_x = em.let(y * step_y - top, "first_y"), em.let(x * step_x - left, "first_x")
        source = em.let(n * (spec.in_stride // QUAD) + block * (spec.height * spec.width * QUADS) + quad, "source")
        sums, value = em.local(QUAD, name="sums"), em.local(QUAD, name="value")
        w = em.local(QUAD, name="w") if depthwise else None
        if depthwise:
            em.copy(sums, 0, em.buffers["bias"], block * QUADS + quad)
        else:
            em.put(sums, 0, const(LOWEST if spec.op is WindowOp.MAX else 0.0, QUAD))
        with em.loop(rows, "r") as r, em.loop(columns, "s") as s:
            iy, ix = em.let(first_y + r * spread_y, "iy"), em.let(first_x + s * spread_x, "ix")
            condition = both(inside(iy, spec.height), inside(ix, spec.width))
            assert condition is not None
            with em.when(condition):
                em.copy(value, 0, em.buffers["src"], source + (iy * spec.width + ix) * QUADS)
                if w is not None:
                    em.copy(w, 0, em.buffers["weight"], ((block * rows + r) * columns + s) * QUADS + quad)
                for q in range(QUAD):
                    old, new = load(sums, q), load(value, q)
                    if w is not None:
                        em.store(sums, q, fma(new, load(w, q), old))
                    else:
                        em.store(sums, q, tirx.max(old, new) if spec.op is WindowOp.MAX else old + new)
        scale: Expr = None
        if spec.op is WindowOp.AVERAGE:
            # padding counts up to the padded image's end, never beyond it (ceil mode)
            if spec.include_pad:
                high = tirx.min(first_y + rows, spec.height + bottom) - first_y
                wide = tirx.min(first_x + columns, spec.width + right) - first_x
            else:
                high = tirx.min(first_y + rows, spec.height) - tirx.max(first_y, 0)
                wide = tirx.min(first_x + columns, spec.width) - tirx.max(first_x, 0)
            scale = em.let(const(1.0) / tirx.Cast("float32", high * wide), "scale")
        for q in range(QUAD):
            result = load(sums, q) if scale is None else load(sums, q) * scale
            em.store(sums, q, clamp(result, spec.activation))
        place = n * (spec.out_stride // QUAD) + ((block * spec.out_height + y) * spec.out_width + x) * QUADS + quad
        em.copy(em.buffers["dst"], place, sums, 0)

    guarded(em, exists, body)
    return [em.finish()]


def guarded(em: GpuEmitter, condition: Expr | None, body: Callable[[], None]) -> None:
    """What `body` says, where the condition holds."""
    if condition is None:
        body()
        return
    with em.when(condition):
        body()


# -- global average --------------------------------------------------------------------------------------------------
_PARTS = 16


def average_program(spec: GlobalAverage, schedule: SimpleSchedule) -> Program:
    """A block of threads a channel block of an image."""
    return Program((Launch((spec.batch * spec.blocks, 1, 1), (BLOCK * _PARTS, 1, 1), (0, 1)),))


def emit_average(spec: GlobalAverage, schedule: SimpleSchedule, symbol: str) -> list[Any]:
    """Mean, sum or norm over the pixels: 16 threads a channel, whose sums are added up in order."""
    em = GpuEmitter(symbol, spec.pointers, average_program(spec, schedule).launches[0])
    shared = em.shared(BLOCK * _PARTS, "partial")
    n, block = split(em, em.blocks[0], (("n", spec.batch), ("block", spec.blocks)))
    lane, part = em.let(mod(em.thread, BLOCK), "lane"), em.let(div(em.thread, BLOCK), "part")
    source = em.let(n * spec.in_stride + block * (spec.pixels * BLOCK) + lane, "source")
    total = em.local(1, name="total")
    em.store(total, 0, const(0.0))
    with em.loop(div(spec.pixels - part + (_PARTS - 1), _PARTS), "step") as step:
        value = em.let(em.read("src", source + (step * _PARTS + part) * BLOCK), "value")
        em.store(total, 0, load(total, 0) + (value * value if spec.of == "l2" else value))
    em.store(shared, em.thread, load(total, 0))
    em.barrier()
    with em.when(em.thread < BLOCK):
        em.store(total, 0, load(shared, em.thread))
        with em.loop(_PARTS - 1, "i", 1) as i:
            em.store(total, 0, load(total, 0) + load(shared, i * BLOCK + em.thread))
        place = n * spec.out_stride + block * BLOCK + em.thread
        result = load(total, 0)
        last = {"mean": result * const(1.0 / spec.pixels), "sum": result, "l2": call("sqrtf", result)}
        em.write("dst", place, last[spec.of])
    return [em.finish()]


# -- elementwise -----------------------------------------------------------------------------------------------------
_ZERO, _ONE = const(0.0), const(1.0)


def _sigmoid(value: Expr) -> Expr:
    return _ONE / (_ONE + call("expf", _ZERO - value))


def _softplus(value: Expr) -> Expr:
    return tirx.max(value, _ZERO) + call("log1pf", call("expf", _ZERO - call("fabsf", value)))


def _elu(value: Expr, alpha: float) -> Expr:
    return tirx.max(value, _ZERO) + const(alpha) * call("expm1f", tirx.min(value, _ZERO))


def _gelu_tanh(value: Expr) -> Expr:
    return (
        const(0.5)
        * value
        * (_ONE + call("tanhf", const(0.7978845608028654) * (value + const(0.044715) * value * value * value)))
    )


# CUDA's mathematics library, not its fast approximations, whose errors are not bounded relative to the result.
UNARY: dict[str, Callable[[Expr, tuple[float, ...]], Expr]] = vector.UNARY | {
    "abs": lambda value, _constants: call("fabsf", value),
    "exp": lambda value, _constants: call("expf", tirx.min(value, const(88.376))),  # finite, as on CPUs
    "erf": lambda value, _constants: call("erff", value),
    "gelu": lambda value, _constants: const(0.5) * value * (_ONE + call("erff", value * const(0.7071067811865476))),
    "gelu_tanh": lambda value, _constants: _gelu_tanh(value),
    "elu": lambda value, constants: _elu(value, constants[0]),
    "selu": lambda value, constants: const(constants[1]) * _elu(value, constants[0]),
    "mish": lambda value, _constants: value * call("tanhf", _softplus(value)),
    "silu": lambda value, _constants: value * _sigmoid(value),
    "sigmoid": lambda value, _constants: _sigmoid(value),
    "softplus": lambda value, _constants: _softplus(value),
    "tanh": lambda value, _constants: call("tanhf", value),
    "sqrt": lambda value, _constants: call("sqrtf", value),
    "log": lambda value, _constants: call("logf", value),
    "requantized": lambda value, constants: (
        clamp(call("rintf", value / const(constants[0])), (constants[1], constants[2])) * const(constants[0])
    ),
}
"""Operators of one operand: those of CPUs, with the same meaning; arithmetic alone is the same code."""


def _map_count(spec: Map) -> int:
    return spec.batch * spec.blocks * spec.pixels * QUADS


def map_program(spec: Map, schedule: SimpleSchedule) -> Program:
    """A thread a quad."""
    return each(_map_count(spec), schedule, 2 if spec.second == "none" else 3)


def emit_map(spec: Map, schedule: SimpleSchedule, symbol: str) -> list[Any]:
    """An elementwise operator."""
    em = GpuEmitter(symbol, spec.pointers, map_program(spec, schedule).launches[0])
    clamp_after = (spec.constants[0], spec.constants[1]) if spec.op in BINARY and len(spec.constants) == 2 else None
    item, exists = item_of(em, _map_count(spec), schedule)

    def body() -> None:
        axes = (("n", spec.batch), ("block", spec.blocks), ("pixel", spec.pixels), ("quad", QUADS))
        n, block, pixel, quad = split(em, item, axes)
        place = em.let((block * spec.pixels + pixel) * QUADS + quad, "place")
        a, b = em.local(QUAD, name="a"), em.local(QUAD, name="b")
        em.copy(a, 0, em.buffers["src"], n * (spec.in_stride // QUAD) + place)
        if spec.second != "none":
            at = block * QUADS + quad if spec.second == "channel" else place
            em.copy(b, 0, em.buffers["second"], n * (spec.second_stride // QUAD) + at)
        for q in range(QUAD):
            if spec.second == "none":
                result = UNARY[spec.op](load(a, q), spec.constants)
            else:
                result = clamp(BINARY[spec.op](load(a, q), load(b, q)), clamp_after)
            em.store(a, q, result)
        em.copy(em.buffers["dst"], n * (spec.out_stride // QUAD) + place, a, 0)

    guarded(em, exists, body)
    return [em.finish()]


# -- layer normalization ---------------------------------------------------------------------------------------------
def norm_program(spec: ChannelNorm, schedule: SimpleSchedule) -> Program:
    """A thread a pixel."""
    return each(spec.batch * spec.pixels, schedule, len(spec.operands))


def emit_norm(spec: ChannelNorm, schedule: SimpleSchedule, symbol: str) -> list[Any]:
    """Layer normalization over channels: the mean, then the variance, then the result."""
    em = GpuEmitter(symbol, spec.pointers, norm_program(spec, schedule).launches[0])
    item, exists = item_of(em, spec.batch * spec.pixels, schedule)
    share = const(1.0 / spec.averaged)

    def body() -> None:
        n, pixel = split(em, item, (("n", spec.batch), ("pixel", spec.pixels)))
        value, scale, bias, mask = (em.local(QUAD, name=name) for name in ("value", "scale", "bias", "mask"))
        sums = em.local(3, name="sums")  # the sum, the mean, one over the deviation

        def each(function: Callable[[Expr, Expr], None]) -> None:
            """Call `function` with the number of a quad and its place, its values loaded."""
            with em.loop(spec.blocks * QUADS, "quad") as quad:
                place = em.let((div(quad, QUADS) * spec.pixels + pixel) * QUADS + mod(quad, QUADS), "place")
                em.copy(value, 0, em.buffers["src"], n * (spec.in_stride // QUAD) + place)
                function(quad, place)

        def masked(number: Expr, q: int) -> Expr:
            """The value `q` of a quad where its lane holds a channel, zero elsewhere."""
            return number * load(mask, q) if spec.channels else number

        def add(quad: Expr, _place: Expr) -> None:
            if spec.channels:
                em.copy(mask, 0, em.buffers["mask"], quad)
            for q in range(QUAD):
                em.store(sums, 0, load(sums, 0) + masked(load(value, q), q))

        def square(quad: Expr, _place: Expr) -> None:
            if spec.channels:
                em.copy(mask, 0, em.buffers["mask"], quad)
            for q in range(QUAD):
                off = em.let(masked(load(value, q) - load(sums, 1), q), "off")
                em.store(sums, 0, load(sums, 0) + off * off)

        def write(quad: Expr, place: Expr) -> None:
            em.copy(scale, 0, em.buffers["scale"], quad)
            em.copy(bias, 0, em.buffers["bias"], quad)
            for q in range(QUAD):
                scaled = (load(value, q) - load(sums, 1)) * load(sums, 2)
                em.store(value, q, scaled * load(scale, q) + load(bias, q))
            em.copy(em.buffers["dst"], n * (spec.out_stride // QUAD) + place, value, 0)

        em.store(sums, 0, const(0.0))
        each(add)
        em.store(sums, 1, load(sums, 0) * share)
        em.store(sums, 0, const(0.0))
        each(square)
        em.store(sums, 2, const(1.0) / call("sqrtf", load(sums, 0) * share + const(spec.epsilon)))
        each(write)

    guarded(em, exists, body)
    return [em.finish()]


# -- pictures --------------------------------------------------------------------------------------------------------
def normalise_program(spec: Normalise, schedule: SimpleSchedule) -> Program:
    """A thread a float of the output."""
    return each(spec.batch * spec.channels * spec.pixels, schedule, 4)


def emit_normalise(spec: Normalise, schedule: SimpleSchedule, symbol: str) -> list[Any]:
    """Bytes to planes."""
    em = GpuEmitter(symbol, spec.pointers, normalise_program(spec, schedule).launches[0])
    item, exists = item_of(em, spec.batch * spec.channels * spec.pixels, schedule)
    step, plane = (spec.channels, 1) if spec.together else (1, spec.pixels)

    def body() -> None:
        n, c, pixel = split(em, item, (("n", spec.batch), ("c", spec.channels), ("pixel", spec.pixels)))
        byte = load(em.buffers["src"], n * (spec.channels * spec.pixels) + pixel * step + c * plane)
        value = tirx.Cast("float32", byte) * load(em.buffers["factor"], c) + load(em.buffers["summand"], c)
        em.write("dst", item, value)

    guarded(em, exists, body)
    return [em.finish()]


# -- layouts ---------------------------------------------------------------------------------------------------------
def pack_program(spec: Pack, schedule: SimpleSchedule) -> Program:
    """A thread a float of the output."""
    return each(spec.batch * spec.blocks * spec.pixels * BLOCK, schedule, len(spec.operands))


def emit_pack(spec: Pack, schedule: SimpleSchedule, symbol: str) -> list[Any]:
    """NCHW (or NHWC) to NCHW16c."""
    em = GpuEmitter(symbol, spec.pointers, pack_program(spec, schedule).launches[0])
    item, exists = item_of(em, spec.batch * spec.blocks * spec.pixels * BLOCK, schedule)

    def body() -> None:
        axes = (("n", spec.batch), ("block", spec.blocks), ("pixel", spec.pixels), ("lane", BLOCK))
        n, block, pixel, lane = split(em, item, axes)
        value = em.local(1, name="value")
        if spec.last:
            channel = em.let(block * BLOCK + lane, "channel")
            source, there = (n * spec.pixels + pixel) * spec.channels + channel, channel < spec.channels
        else:
            channel = em.let(load(em.buffers["table"], block * BLOCK + lane), "channel")
            source, there = (n * spec.channels + channel) * spec.pixels + pixel, channel >= 0
        em.load_if(there, value, 0, em.buffers["src"], source)
        em.write("dst", n * spec.out_stride + (block * spec.pixels + pixel) * BLOCK + lane, load(value, 0))

    guarded(em, exists, body)
    return [em.finish()]


def unpack_program(spec: Unpack, schedule: SimpleSchedule) -> Program:
    """A thread a float of the output."""
    return each(spec.batch * spec.channels * spec.pixels, schedule, len(spec.operands))


def emit_unpack(spec: Unpack, schedule: SimpleSchedule, symbol: str) -> list[Any]:
    """NCHW16c to NCHW (or NHWC)."""
    em = GpuEmitter(symbol, spec.pointers, unpack_program(spec, schedule).launches[0])
    item, exists = item_of(em, spec.batch * spec.channels * spec.pixels, schedule)

    def body() -> None:
        channels, pixels = ("channel", spec.channels), ("pixel", spec.pixels)
        if spec.last:
            n, pixel, slot = split(em, item, (("n", spec.batch), pixels, channels))
        else:
            n, channel, pixel = split(em, item, (("n", spec.batch), channels, pixels))
            slot = em.let(load(em.buffers["table"], channel), "slot")
        source = n * spec.in_stride + (div(slot, BLOCK) * spec.pixels + pixel) * BLOCK + mod(slot, BLOCK)
        em.write("dst", item, em.read("src", source))

    guarded(em, exists, body)
    return [em.finish()]


# -- softmax ---------------------------------------------------------------------------------------------------------
_ROW_THREADS = 256


def softmax_program(spec: Softmax, schedule: SimpleSchedule) -> Program:
    """A block of threads a row."""
    return Program((Launch((spec.rows, 1, 1), (_ROW_THREADS, 1, 1), (0, 1)),))


def emit_softmax(spec: Softmax, schedule: SimpleSchedule, symbol: str) -> list[Any]:
    """Softmax of every row: its maximum, exponentials and their sum, then the scaling. Sums are added up in a fixed
    order.
    """
    em = GpuEmitter(symbol, spec.pointers, softmax_program(spec, schedule).launches[0])
    src, dst = em.buffers["src"], em.buffers["dst"]
    shared = em.shared(_ROW_THREADS, "partial")
    mine = em.local(1, name="mine")
    base = em.let(em.blocks[0] * spec.length, "base")
    count = em.let(div(spec.length - em.thread + (_ROW_THREADS - 1), _ROW_THREADS), "count")

    def each(body: Callable[[Expr], None]) -> None:
        with em.loop(count, "step") as step:
            body(em.let(base + step * _ROW_THREADS + em.thread, "at"))

    def reduce(combine: Callable[[Expr, Expr], Expr]) -> Expr:
        """All threads' values combined, half by half; the same to every thread."""
        em.store(shared, em.thread, load(mine, 0))
        em.barrier()
        width = _ROW_THREADS // 2
        while width:
            with em.when(em.thread < width):
                em.store(shared, em.thread, combine(load(shared, em.thread), load(shared, em.thread + width)))
            em.barrier()
            width //= 2
        total = em.let(load(shared, 0), "total")
        em.barrier()
        return total

    em.store(mine, 0, const(LOWEST))
    each(lambda at: em.store(mine, 0, tirx.max(load(mine, 0), load(src, at))))
    peak = reduce(tirx.max)
    em.store(mine, 0, const(0.0))

    def exponential(at: Expr) -> None:
        value = em.let(call("expf", load(src, at) - peak), "e")
        em.store(dst, at, value)
        em.store(mine, 0, load(mine, 0) + value)

    each(exponential)
    total = reduce(lambda a, b: a + b)
    scale = em.let(const(1.0) / total, "scale")
    each(lambda at: em.store(dst, at, load(dst, at) * scale))
    return [em.finish()]


# -- products ---------------------------------------------------------------------------------------------------------
def product_program(spec: MatrixProduct, schedule: SimpleSchedule) -> Program:
    """A thread for each sum."""
    return each(spec.count * spec.rows * spec.columns, schedule, 3)


def emit_product(spec: MatrixProduct, schedule: SimpleSchedule, symbol: str) -> list[Any]:
    """Matrices that lie in no blocks: neighbouring threads read neighbours of the right one."""
    em = GpuEmitter(symbol, spec.pointers, product_program(spec, schedule).launches[0])
    item, exists = item_of(em, spec.count * spec.rows * spec.columns, schedule)

    def body() -> None:
        line, column = em.let(div(item, spec.columns), "line"), em.let(mod(item, spec.columns), "column")
        which, row = em.let(div(line, spec.rows), "which"), em.let(mod(line, spec.rows), "row")
        down, along = (1, spec.rows) if spec.turned else (spec.depth, 1)
        left = em.let(which * (spec.rows * spec.depth) + row * down, "left0")
        right = em.let(which * (spec.depth * spec.columns) + column, "right0")
        total = em.local(1, name="total")
        em.store(total, 0, const(0.0))
        with em.loop(spec.depth, "k") as k:
            a = load(em.buffers["left"], left + k * along)
            b = load(em.buffers["right"], right + k * spec.columns)
            em.store(total, 0, fma(a, b, load(total, 0)))
        em.store(em.buffers["dst"], item, load(total, 0))

    guarded(em, exists, body)
    return [em.finish()]


def _serves(spec: Spec, isa: Isa) -> str | None:
    """fp32, and what is converted to it."""
    other = sorted({o.element for o in spec.operands if o.role != "constant"} - set(REALS))
    return of_gpu(isa) or (f"it has {', '.join(other)}, and its kernels {', '.join(REALS)}" if other else None)


def _family(name: str, kind: type[Spec], program: Any, emit: Any) -> Family[Any, SimpleSchedule]:
    def units(spec: Any, schedule: SimpleSchedule) -> int:
        """Blocks of threads."""
        return math.prod(program(spec, schedule).launches[0].grid)

    return Family(name, kind, _serves, lambda _spec, _isa: SimpleSchedule(), units, emit, program=program)


FAMILIES = (
    _family("gpu.window", Window, window_program, emit_window),
    _family("gpu.average", GlobalAverage, average_program, emit_average),
    _family("gpu.map", Map, map_program, emit_map),
    _family("gpu.norm", ChannelNorm, norm_program, emit_norm),
    Family(
        "gpu.normalise",
        Normalise,
        lambda _spec, isa: of_gpu(isa),
        lambda _spec, _isa: SimpleSchedule(),
        lambda spec, schedule: math.prod(normalise_program(spec, schedule).launches[0].grid),
        emit_normalise,
        program=normalise_program,
    ),
    _family("gpu.pack", Pack, pack_program, emit_pack),
    _family("gpu.unpack", Unpack, unpack_program, emit_unpack),
    _family("gpu.product", MatrixProduct, product_program, emit_product),
    _family("gpu.softmax", Softmax, softmax_program, emit_softmax),
)
