"""The integer kernels of GPUs that multiply no matrices: pools, depthwise convolution, one value at a time, bytes in
other places, and convolutions whose weights are no bytes. The arithmetic is `bytes.math`'s, a number at a time.

A thread computes four neighbouring channels of a pixel, which are one word in memory.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from tvm import tirx

from ..bytes.math import averaged, mapped, nearest, real, rounded, scaled, scaling_at
from ..elements import BLOCK, BYTE
from ..emit import Expr, clamp, const, load
from ..family import Family, Program, of_gpu
from ..isa import Isa
from ..spec import NONE, Conv, Map, Pick, Pixels, Spec, Window, WindowOp
from .emit import QUAD, GpuEmitter, both, div, inside, mod
from .epilogue import finish
from .simple import QUADS, SimpleSchedule, each, guarded, item_of, split

WORD = 4
"""Bytes of a pixel of the network's own input."""


class _Words(GpuEmitter):
    """A kernel whose maps of bytes are read and written as words."""

    def __init__(self, spec: Spec, schedule: SimpleSchedule, symbol: str, count: int) -> None:
        words = {operand.name for operand in spec.operands if operand.element == BYTE and operand.role != "constant"}
        pointers = [(name, "int32" if name in words else element) for name, element in spec.pointers]
        super().__init__(symbol, pointers, each(count, schedule, len(pointers)).launches[0])
        self.item, self.exists = item_of(self, count, schedule)

    def bytes_of(self, word: Expr) -> list[Expr]:
        """The four numbers of a word, int32."""
        word = self.let(word, "word")
        return [tirx.bitwise_and(tirx.shift_right(word, _int(8 * q)), _int(255)) for q in range(QUAD)]

    def give(self, index: Expr, values: list[Expr]) -> None:
        """Store four results: int32 of bytes as a word, float32 as they are; `index` counts quads."""
        dst = self.buffers["dst"]
        if dst.dtype == "float32":
            result = self.local(QUAD, name="result")
            for q, value in enumerate(values):
                self.store(result, q, value)
            self.copy_quad(dst, index, result, 0)
            return
        word = values[0]
        for q in range(1, QUAD):
            word = tirx.bitwise_or(word, tirx.shift_left(values[q], _int(8 * q)))
        self.store(dst, index, word)


def _int(value: int) -> Expr:
    return tirx.const(value, "int32")


# -- windows ----------------------------------------------------------------------------------------------------------
def _window_count(spec: Window) -> int:
    return spec.batch * spec.blocks * spec.out_height * spec.out_width * QUADS


def emit_window(spec: Window, schedule: SimpleSchedule, symbol: str) -> list[Any]:
    """Max pool, average pool, depthwise convolution; taps off the image are skipped."""
    em = _Words(spec, schedule, symbol, _window_count(spec))
    (rows, columns), (step_y, step_x), (spread_y, spread_x) = spec.kernel, spec.stride, spec.dilation
    maximum, depthwise = spec.op is WindowOp.MAX, spec.op is WindowOp.DEPTHWISE

    def body() -> None:
        axes = (("n", spec.batch), ("block", spec.blocks), ("y", spec.out_height), ("x", spec.out_width), ("q", QUADS))
        n, block, y, x, quad = split(em, em.item, axes)
        first_y, first_x = em.let(y * step_y - spec.pad[0], "first_y"), em.let(x * step_x - spec.pad[1], "first_x")
        source = em.let(n * (spec.in_stride // QUAD) + block * (spec.height * spec.width * QUADS) + quad, "source")
        sums = em.local(QUAD, "int32", "sums")
        for q in range(QUAD):
            em.store(sums, q, load(em.buffers["bias"], block * BLOCK + quad * QUAD + q) if depthwise else _int(0))
        with em.loop(rows, "r") as r, em.loop(columns, "s") as s:
            iy, ix = em.let(first_y + r * spread_y, "iy"), em.let(first_x + s * spread_x, "ix")
            condition = both(inside(iy, spec.height), inside(ix, spec.width))
            assert condition is not None
            with em.when(condition):
                found = em.bytes_of(load(em.buffers["src"], source + (iy * spec.width + ix) * QUADS))
                for q, value in enumerate(found):
                    old = load(sums, q)
                    if maximum:
                        em.store(sums, q, tirx.max(old, value))
                        continue
                    value = value - _int(spec.zero) if spec.zero else value
                    if depthwise:
                        tap = ((block * rows + r) * columns + s) * BLOCK + quad * QUAD + q
                        value = value * tirx.Cast("int32", load(em.buffers["weight"], tap))
                    em.store(sums, q, old + value)
        pixel = em.let(y * spec.out_width + x, "pixel")
        place = (block * (spec.out_height * spec.out_width) + pixel) * QUADS + quad
        results = [_window_result(em, spec, load(sums, q), block * BLOCK + quad * QUAD + q, pixel) for q in range(QUAD)]
        em.give(n * (spec.out_stride // QUAD) + place, results)

    guarded(em, em.exists, body)
    return [em.finish()]


def _window_result(em: GpuEmitter, spec: Window, acc: Expr, channel: Expr, pixel: Expr) -> Expr:
    """What a window's number comes to."""
    if spec.op is WindowOp.MAX:
        return acc
    if spec.op is WindowOp.DEPTHWISE:
        factor = load(em.buffers["factor"], channel)
    elif spec.rounding is not None and spec.rounding.shift:
        shift = em.let(load(em.buffers["factor"], 2 * pixel + 1), "shift")
        return averaged(acc, load(em.buffers["factor"], 2 * pixel), shift, spec.rounding)
    else:
        factor = load(em.buffers["factor"], pixel)
    if spec.rounding is None:
        return clamp(real(acc) * factor, spec.activation)
    q = rounded(acc, factor, spec.rounding)
    if spec.scaling is None:
        return q
    return scaled(em.let(q, "q"), scaling_at(em, channel, spec.channels, 1), spec.scaling)


# -- one value at a time ----------------------------------------------------------------------------------------------
def _map_count(spec: Map) -> int:
    return spec.batch * spec.blocks * spec.pixels * QUADS


def emit_map(spec: Map, schedule: SimpleSchedule, symbol: str) -> list[Any]:
    """`bytes.math.mapped`, or a table's byte."""
    em = _Words(spec, schedule, symbol, _map_count(spec))

    def body() -> None:
        axes = (("n", spec.batch), ("block", spec.blocks), ("pixel", spec.pixels), ("quad", QUADS))
        n, block, pixel, quad = split(em, em.item, axes)
        place = em.let((block * spec.pixels + pixel) * QUADS + quad, "place")
        at = n * (spec.in_stride // QUAD) + place
        values: list[Expr]
        if spec.in_element == BYTE:
            values = em.bytes_of(load(em.buffers["src"], at))
        else:
            reals = em.local(QUAD, name="reals")
            em.copy(reals, 0, em.buffers["src"], at)
            values = [load(reals, q) for q in range(QUAD)]
        seconds: list[Any] = [None] * QUAD
        if spec.second == "scaling":
            slot = block * BLOCK + quad * QUAD
            seconds = [scaling_at(em, slot + q, spec.blocks * BLOCK, 1) for q in range(QUAD)]
        if spec.second in ("tensor", "channel"):
            other = block * QUADS + quad if spec.second == "channel" else place
            seconds = em.bytes_of(load(em.buffers["second"], n * (spec.second_stride // QUAD) + other))
        if spec.op == "table":
            results = [tirx.Cast("int32", load(em.buffers["table"], value)) for value in values]
        else:
            results = [mapped(spec, value, second) for value, second in zip(values, seconds, strict=True)]
        em.give(n * (spec.out_stride // QUAD) + place, [em.let(result, "result") for result in results])

    guarded(em, em.exists, body)
    return [em.finish()]


# -- the network's own input ------------------------------------------------------------------------------------------
def _pixel_count(spec: Pixels) -> int:
    return spec.batch * spec.height * spec.width


def emit_pixels(spec: Pixels, schedule: SimpleSchedule, symbol: str) -> list[Any]:
    """Planes of float32 to pixels of four bytes."""
    em = _Words(spec, schedule, symbol, _pixel_count(spec))
    plane, how = spec.height * spec.width, spec.rounding
    assert how is not None

    def body() -> None:
        n, pixel = split(em, em.item, (("n", spec.batch), ("pixel", plane)))
        values: list[Expr] = [_int(0)] * WORD
        for channel in range(spec.channels):
            value = load(em.buffers["src"], (n * spec.channels + channel) * plane + pixel)
            values[channel] = em.let(nearest(value / const(spec.scale), how), "value")
        em.give(em.item, values)

    guarded(em, em.exists, body)
    return [em.finish()]


# -- bytes in other places --------------------------------------------------------------------------------------------
def _pick_count(spec: Pick) -> int:
    return spec.batch * spec.blocks * spec.out_height * spec.out_width * QUADS


def emit_pick(spec: Pick, schedule: SimpleSchedule, symbol: str) -> list[Any]:
    """A word of the output; a byte at a time where channels change their slots."""
    em = _Words(spec, schedule, symbol, _pick_count(spec))
    plane = spec.height * spec.width * QUADS
    filling = sum(spec.fill << 8 * q for q in range(QUAD)) if spec.fill >= 0 else 0
    filling -= filling >> 31 << 32  # as an int32

    def body() -> None:
        axes = (("n", spec.batch), ("block", spec.blocks), ("y", spec.out_height), ("x", spec.out_width), ("q", QUADS))
        n, block, y, x, quad = split(em, em.item, axes)
        row = em.let(load(em.buffers["rows"], y), "row")
        column = em.let(load(em.buffers["columns"], x), "column")
        image = em.let(n * (spec.in_stride // QUAD) + (row * spec.width + column) * QUADS, "image")
        word = em.local(1, "int32", "word")
        em.store(word, 0, _int(filling))
        with em.when(tirx.all(row >= 0, column >= 0)):
            if not spec.shuffled:
                em.store(word, 0, load(em.buffers["src"], image + block * plane + quad))
            for q in range(QUAD if spec.shuffled else 0):
                slot = em.let(load(em.buffers["channels"], block * BLOCK + quad * QUAD + q), "slot")
                with em.when(slot >= 0):
                    at = image + div(slot, BLOCK) * plane + div(mod(slot, BLOCK), QUAD)
                    shift = mod(slot, QUAD) * 8
                    byte = tirx.bitwise_and(tirx.shift_right(load(em.buffers["src"], at), shift), _int(255))
                    mask = (255 << 8 * q) - (1 << 32 if q == QUAD - 1 else 0)  # as an int32
                    kept = tirx.bitwise_and(load(word, 0), _int(~mask))
                    em.store(word, 0, tirx.bitwise_or(kept, tirx.shift_left(byte, _int(8 * q))))
        place = ((block * spec.out_height + y) * spec.out_width + x) * QUADS + quad
        em.store(em.buffers["dst"], n * (spec.out_stride // QUAD) + place, load(word, 0))

    guarded(em, em.exists, body)
    return [em.finish()]


# -- convolutions that tensor cores cannot do -------------------------------------------------------------------------
def _conv_count(spec: Conv) -> int:
    return spec.batch * spec.out_channels // QUAD * spec.out_height * spec.out_width


def pack_weight(weight: np.ndarray, spec: Conv, _schedule: SimpleSchedule) -> np.ndarray:
    """`[O, I, r, s]` to `[O/4][block][r][s][lane][4]`."""
    out, channels, rows, columns = weight.shape
    block = min(channels, BLOCK)
    parts = weight.reshape(out // QUAD, QUAD, channels // block, block, rows, columns)
    return np.ascontiguousarray(parts.transpose(0, 2, 4, 5, 3, 1), dtype=spec.weight_element)


def emit_conv(spec: Conv, schedule: SimpleSchedule, symbol: str) -> list[Any]:
    """A product at a time: what files of others have weights of more than a byte for."""
    em = GpuEmitter(symbol, spec.pointers, each(_conv_count(spec), schedule, len(spec.operands)).launches[0])
    item, exists = item_of(em, _conv_count(spec), schedule)
    (rows, columns), block = spec.kernel, spec.channels if spec.planar else BLOCK
    blocks, plane, out_plane = spec.channels // block, spec.height * spec.width, spec.out_height * spec.out_width

    def body() -> None:
        axes = (("n", spec.batch), ("four", spec.out_channels // QUAD), ("pixel", out_plane))
        n, four, pixel = split(em, item, axes)
        group = div(four, spec.out_channels // spec.groups // QUAD) * (blocks * plane) if spec.groups > 1 else 0
        first_y = em.let(div(pixel, spec.out_width) * spec.stride[0] - spec.pad[0], "first_y")
        first_x = em.let(mod(pixel, spec.out_width) * spec.stride[1] - spec.pad[1], "first_x")
        sums = em.local(QUAD, "int32", "sums")
        for q in range(QUAD):
            em.store(sums, q, _int(0))
        with em.loop(blocks, "b") as b, em.loop(rows, "r") as r, em.loop(columns, "s") as s:
            iy, ix = em.let(first_y + r * spec.dilation[0], "iy"), em.let(first_x + s * spec.dilation[1], "ix")
            condition = both(inside(iy, spec.height), inside(ix, spec.width))
            assert condition is not None
            with em.when(condition), em.loop(block, "lane") as lane:
                at = n * spec.in_stride + (group + b * plane + iy * spec.width + ix) * block + lane
                value = em.let(tirx.Cast("int32", load(em.buffers["src"], at)), "value")
                panel = ((((four * blocks + b) * rows + r) * columns + s) * block + lane) * QUAD
                for q in range(QUAD):
                    weight = tirx.Cast("int32", load(em.buffers["weight"], panel + q))
                    em.store(sums, q, load(sums, q) + value * weight)
        found = (n, pixel, [load(sums, q) for q in range(QUAD)])
        finish(em, spec, em.let(four * QUAD, "channel"), QUAD, lambda: iter([found]))

    guarded(em, exists, body)
    return [em.finish()]


# -- families ---------------------------------------------------------------------------------------------------------
def _serves(spec: Spec, isa: Isa) -> str | None:
    """Bytes, in blocks or in pixels of four without a frame."""
    if reason := of_gpu(isa):
        return reason
    if isinstance(spec, Conv) and (spec.weighed or spec.split):
        return "its windows count differently, or it has several outputs, for which there is no code"
    if isinstance(spec, Pixels) and (spec.frame != NONE or spec.out_element != BYTE or spec.slots != WORD):
        return "there are zeros around its pixels, or they are no words"
    return None if spec.quantized else "its numbers are real"


def _family(name: str, kind: type[Spec], count: Callable[[Any], int], emit: Any, **more: Any) -> Family[Any, Any]:
    def program(spec: Any, schedule: SimpleSchedule) -> Program:
        """A thread for each four channels of a pixel."""
        return each(count(spec), schedule, len(spec.operands))

    def units(spec: Any, schedule: SimpleSchedule) -> int:
        """Blocks of threads."""
        return math.prod(program(spec, schedule).launches[0].grid)

    return Family(name, kind, _serves, lambda _spec, _isa: SimpleSchedule(), units, emit, program=program, **more)


FAMILIES = (
    _family("gpu.bytes_conv", Conv, _conv_count, emit_conv, pack=pack_weight),
    _family("gpu.bytes_window", Window, _window_count, emit_window),
    _family("gpu.bytes_map", Map, _map_count, emit_map),
    _family("gpu.bytes_pixels", Pixels, _pixel_count, emit_pixels),
    _family("gpu.bytes_pick", Pick, _pick_count, emit_pick),
)
