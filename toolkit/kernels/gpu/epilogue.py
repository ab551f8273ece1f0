"""What a product of tensor cores does with its sums: bias, addend, clamp; of bytes their rounding; and the store.

Two neighbouring channels of a pixel at a time, as they lie in a thread's registers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import groupby

from tvm import tirx

from ..bytes.math import added, joined, real, rounded, scaled, scaling_at
from ..elements import BLOCK
from ..emit import Expr, clamp, load
from ..spec import Conv, Output, pointer_of, tap_sets
from .emit import GpuEmitter, div, mod

Finish = Callable[[list[Expr], Expr], None]
"""Takes two sums, and the first one's channel."""


def epilogue_of(em: GpuEmitter, spec: Conv, n: Expr, at: Expr) -> Finish:
    """The end of the products of pixel `at` of image `n`. A pixel that there is not is asked for nothing."""
    plane = spec.out_height * spec.out_width
    set_ = _set(em, spec, at) if spec.quantized else None

    def finish(sums: list[Expr], channel: Expr) -> None:
        for output, pointer, own in outputs(em, spec, channel):
            pairs = BLOCK // 2
            place = em.let((div(own, BLOCK) * plane + at) * pairs + div(mod(own, BLOCK), 2), "place")
            values = []
            for k in range(2):
                beside = n * spec.add_stride + place * 2 + k
                if spec.quantized:
                    values.append(_of_bytes(em, spec, output, sums[k], channel + k, set_, beside))
                    continue
                value = sums[k] + load(em.buffers["bias"], channel + k)
                if spec.add:
                    value = value + em.read("add", beside)
                values.append(clamp(value, output.activation))
            _store(em, pointer, n * (output.out_stride // 2) + place, values)

    return finish


def outputs(em: GpuEmitter, spec: Conv, channel: Expr, each: int = 1) -> Iterator[tuple[Output, str, Expr]]:
    """The outputs that a channel may be of, each where it is that one: the output, its pointer, the channel in it.

    Args:
        each: channels that one of `channel` is.
    """
    if not spec.split:
        yield spec.outputs[0], pointer_of(0), channel
        return
    first = 0
    for number, output in enumerate(spec.split):
        end = first + output.channels // each
        with em.when(tirx.all(channel >= first, channel < end)):
            yield output, pointer_of(number), em.let(channel - first, "own")
        first = end


def _of_bytes(em: GpuEmitter, spec: Conv, output: Output, acc: Expr, channel: Expr, set_: Expr, beside: Expr) -> Expr:
    """What a sum of bytes comes to: an int32 of a byte, or a float32."""
    acc = em.let(acc + load(em.buffers["bias"], set_ * spec.out_channels + channel), "acc")
    factor = em.let(load(em.buffers["factor"], channel), "factor")
    if output.rounding is None:
        return clamp(real(acc) * factor, output.activation)
    how, q = spec.addition, rounded(acc, factor, output.rounding)
    if spec.scaling is not None:
        q = scaled(em.let(q, "q"), scaling_at(em, channel, spec.out_channels, 1), spec.scaling)
    if how is None:
        return q
    other = em.let(tirx.Cast("int32", load(em.buffers["add"], beside)), "other")
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


def _store(em: GpuEmitter, pointer: str, index: Expr, values: list[Expr]) -> None:
    """Two neighbours in one store; `index` counts pairs."""
    buffer = em.buffers[pointer]
    result = em.local(2, buffer.dtype, "result")
    for k, value in enumerate(values):
        kept = em.kept(pointer, value)
        em.store(result, k, kept if str(kept.ty.dtype) == buffer.dtype else tirx.Cast(buffer.dtype, kept))
    em.store(buffer, index * 2, load(result, 0, 2))
