"""What a convolution does with its sums: bias, addend, clamp; of bytes their rounding; and the store.

A thread has the sums of several neighbouring channels of each of its pixels, and moves them 16 bytes at a time where
they are so many.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import groupby

from tvm import tirx

from ..bytes.math import added, joined, real, rounded, scaled, scaling_at
from ..elements import BLOCK
from ..emit import Expr, clamp, load
from ..spec import Conv, Output, pointer_of, tap_sets
from .emit import GpuEmitter, div, mod

Pixels = Callable[[], Iterator[tuple[Expr, Expr, list[Expr]]]]
"""A thread's pixels, each within the statements that are done where there is such a pixel: its image, its place in it,
and its sums.
"""


def finish(em: GpuEmitter, spec: Conv, channel: Expr, count: int, pixels: Pixels) -> None:
    """The end of the products of `count` channels, from `channel` on, which is a multiple of `count`."""
    plane = spec.out_height * spec.out_width
    several = spec.quantized and spec.row_sets * spec.column_sets > 1
    group = em.let(div(channel, count), "group")
    bias = [] if several else em.read_beside("bias", group, count)
    factor = em.read_beside("factor", group, count) if spec.quantized else []
    for output, pointer, own in _outputs(em, spec, channel):
        for n, at, sums in pixels():
            beside = em.let((div(own, BLOCK) * plane + at) * (BLOCK // count) + div(mod(own, BLOCK), count), "beside")
            added_to = n * (spec.add_stride // count) + beside
            others = em.read_beside("add", added_to, count) if spec.add else []
            per_set = spec.out_channels // count
            biases = bias or em.read_beside("bias", _set(em, spec, at) * per_set + group, count)
            values = []
            for k in range(count):
                if spec.quantized:
                    acc = em.let(sums[k] + biases[k], "acc")
                    other = others[k] if spec.add else None
                    values.append(_of_bytes(em, spec, output, acc, factor[k], channel + k, other))
                    continue
                value = sums[k] + biases[k]
                values.append(clamp(value + others[k] if spec.add else value, output.activation))
            if spec.plain:
                write_plain(em, spec, n, channel, values)
                continue
            em.write_beside(pointer, n * (output.out_stride // count) + beside, values)


def write_plain(em: GpuEmitter, spec: Conv, n: Expr, channel: Expr, values: list[Expr]) -> None:
    """The results of neighbouring channels of image `n` to a plain output (`Conv.plain`), those that it has;
    `channel`, the first one, is a multiple of how many there are.
    """
    count = len(values)
    if spec.plain % count == 0:
        with em.when(channel < spec.plain) if spec.plain < spec.out_channels else nullcontext():
            em.write_beside(pointer_of(0), n * (spec.plain // count) + div(channel, count), values)
        return
    for k, value in enumerate(values):
        with em.when(channel + k < spec.plain):
            em.write(pointer_of(0), n * spec.plain + channel + k, value)


def _outputs(em: GpuEmitter, spec: Conv, channel: Expr) -> Iterator[tuple[Output, str, Expr]]:
    """The outputs that a channel may be of, each where it is that one: the output, its pointer, the channel in it."""
    if not spec.split:
        yield spec.outputs[0], pointer_of(0), channel
        return
    first = 0
    for number, output in enumerate(spec.split):
        end = first + output.channels
        with em.when(tirx.all(channel >= first, channel < end)):
            yield output, pointer_of(number), em.let(channel - first, "own")
        first = end


def _of_bytes(
    em: GpuEmitter, spec: Conv, output: Output, acc: Expr, factor: Expr, channel: Expr, other: Expr | None
) -> Expr:
    """What a sum of bytes, its bias in it, comes to: an int32 of a byte, or a float32."""
    if output.rounding is None:
        return clamp(real(acc) * factor, output.activation)
    how, q = spec.addition, rounded(acc, factor, output.rounding)
    if spec.scaling is not None:
        q = scaled(em.let(q, "q"), scaling_at(em, channel, spec.out_channels, 1), spec.scaling)
    if how is None:
        return q
    other = em.let(tirx.Cast("int32", other), "other")
    return joined(acc, other, factor, how) if how.inside is not None else added(em.let(q, "q"), other, how)


def _set(em: GpuEmitter, spec: Conv, at: Expr) -> Expr:
    """Which bias a pixel has: the number of the set of taps that it sees."""
    if spec.row_sets * spec.column_sets == 1:
        return 0
    plane = spec.out_height * spec.out_width
    inside = em.let(tirx.min(at, plane - 1), "inside")
    rows = load(em.buffers["sets"], div(inside, spec.out_width)) if spec.row_sets > 1 else 0
    if spec.column_sets == 1:
        return em.let(rows, "set")
    seen = tap_sets(spec)[1]
    known = list(dict.fromkeys(seen))
    column, found = em.let(mod(inside, spec.out_width), "column"), tirx.const(0, "int32")
    first = 0
    for taps, group in groupby(seen):
        found = found if first == 0 else tirx.Select(column >= first, tirx.const(known.index(taps), "int32"), found)
        first += len(list(group))
    return em.let(rows * spec.column_sets + found, "set")
