"""Winograd's algorithm on bytes, exactly: transforms in whole numbers of 16 bits, products summed in int32, and the way
back, where sums may go round and what they are a multiple of is taken out again.

With d = `toom_cook.Whole.divisor` along both axes together, d = 2^k * odd, the way back gives d times the convolution's
sum, modulo 2^32. The inverse of the odd part makes it 2^k times the sum, and a shift to the right is right wherever the
sum has at most 32 - k bits: the weights prove it (`Conv.sum_bits`), or the number of products does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from tvm import tirx

from ..dots import VPMADDWD
from ..elements import BLOCK, BYTE, SHORT
from ..emit import Emitter, Expr, load, splat
from ..family import Family, of_bytes
from ..isa import Isa
from ..spec import Conv, WinogradInput, WinogradOutput, applies, column_sets, stages
from ..toom_cook import Whole
from ..toom_cook import whole as matrices
from ..transform import Leave, back, forward
from ..vector.conv import ConvSchedule
from ..vector.simple import SimpleSchedule, whole_vectors
from ..vector.winograd import input_units, output_units
from .direct import Direct
from .math import leave as store
from .math import scaling_at, whole
from .schedule import DotSchedule, choose, features, pack_weight, space, units

OUTPUTS = {1: (1,), 3: (2, 3, 4)}
"""Taps along an axis to outputs a tile."""

MOST_STRIDE = 2
"""Further apart, outputs share too little."""

_BYTE, _WEIGHT, _SHORT = 255, 128, 2**15
"""The largest byte and weight, and what 16 bits do not hold."""


def options(spec: Conv, isa: Isa) -> list[tuple[int, int]]:
    """The tiles that a convolution of bytes can be computed with; none where Winograd's algorithm does not apply, or
    the machine has an instruction for all bytes as they lie.
    """
    if spec.in_element != BYTE or spec.weight_element != "int8" or VPMADDWD not in isa.dots:
        return []
    if not applies(spec) or any(taps not in OUTPUTS for taps in spec.kernel) or max(spec.stride) > MOST_STRIDE:
        return []
    tiles = [(high, wide) for high in OUTPUTS[spec.kernel[0]] for wide in OUTPUTS[spec.kernel[1]]]
    return [outputs for outputs in tiles if _fits(spec, outputs)]


def _fits(spec: Conv, outputs: tuple[int, int]) -> bool:
    """Transformed data and weights fit 16 bits, whatever they are, and so does a sum what a shift leaves of 32."""
    (data, kernel), (across, along) = (one.growth() for one in _matrices(outputs, spec.kernel, spec.stride))
    if 2 * data * across * _BYTE >= _SHORT or kernel * along * _WEIGHT >= _SHORT:
        return False
    room = 32 - _divisor(_matrices(outputs, spec.kernel, spec.stride))[1]
    most = spec.channels * math.prod(spec.kernel) * _BYTE * _WEIGHT
    return spec.sum_bits <= room or most < 1 << (room - 1)


def _matrices(outputs: tuple[int, int], taps: tuple[int, int], stride: tuple[int, int]) -> list[Whole]:
    """Along the rows and along the columns."""
    return [matrices(*axis) for axis in zip(outputs, taps, stride, strict=True)]


def _divisor(both: Sequence[Whole]) -> tuple[int, int]:
    """What the way back multiplies by: the odd part and the power of two."""
    product = math.prod(one.divisor for one in both)
    power = (product & -product).bit_length() - 1
    return product >> power, power


def pays(spec: Conv, isa: Isa) -> tuple[int, int] | None:
    """The tile's outputs with which it is expected to be faster than the direct convolution, or None.

    Compared in cycles of one core: products (of padded tiles), transforms, and weights, of which there are more.
    """
    weights = spec.channels * spec.out_channels
    direct = spec.out_height * spec.out_width * weights * math.prod(spec.kernel) / _DIRECT[spec.pairs_fit]

    def cycles(outputs: tuple[int, int]) -> float:
        shape = stages(spec, outputs)[0]
        tiles = math.prod(shape.tiles)
        moved = shape.points * tiles * (spec.channels * _MOVE_IN + spec.out_channels * _MOVE_OUT)
        cold = weights * (2 * shape.points - math.prod(spec.kernel)) / (_BYTES_PER_CYCLE * spec.batch)
        return shape.points * tiles * weights / _PRODUCTS + moved + cold

    best = min(options(spec, isa), key=cycles, default=None)
    return None if best is None or cycles(best) >= direct * _WORTH else best


_DIRECT, _PRODUCTS = {False: 21.0, True: 29.0}, 24.0
"""Multiply-adds of a cycle, of the direct convolution (of bytes as they lie where `pairs_fit`) and of the products.
Measured: docs/perf/cpu-int8.md, steps 3 and 4.
"""

_MOVE_IN, _MOVE_OUT, _BYTES_PER_CYCLE = 0.3, 0.55, 6.0
"""Cycles for a number on its way in and for one on its way out; bytes of weights that come from memory in a cycle."""

_WORTH = 0.9
"""The part of the direct convolution's cycles that is worth the memory."""


def emit_input(spec: WinogradInput, _schedule: SimpleSchedule, name: str) -> list[tirx.PrimFunc]:
    """B^T d B of every tile, a pixel of a block in a vector."""
    em = Emitter(name, spec.pointers)
    down, across = (one.bt for one in _matrices(spec.outputs, spec.taps, spec.stride))
    dtype = f"{SHORT}x{BLOCK}"
    zero = splat(tirx.const(0, SHORT), BLOCK)
    return [forward(em, spec, (down, across), zero, lambda at: tirx.Cast(dtype, load(em.buffers["src"], at, BLOCK)))]


def emit_output(spec: WinogradOutput, schedule: SimpleSchedule, name: str) -> list[tirx.PrimFunc]:
    """A^T m A of every tile over the divisor, then the convolution's epilogue."""
    em, lanes = Emitter(name, spec.pointers), schedule.lanes
    both = _matrices(spec.outputs, spec.taps, spec.stride)
    (down, across), (odd, shift) = (one.at for one in both), _divisor(both)
    inverse = int(np.array(pow(odd, -1, 2**32), np.uint32).view(np.int32))
    sets, every = column_sets(spec.convolution)
    channels, wide = spec.blocks * BLOCK, spec.outputs[1]

    def leaving(slot: Expr) -> Leave:
        factor = em.let(load(em.buffers["factor"], slot, lanes), "factor")
        scaling = scaling_at(em, slot, channels, lanes) if spec.scaling is not None else None

        def leave(value: Expr, y: Expr, x: int | Expr, add_at: Expr, dst_at: Expr) -> None:
            row = load(em.buffers["sets"], y) if spec.row_sets > 1 else 0
            column = sets[x] if isinstance(x, int) else every
            bias = load(em.buffers["bias"], (row * spec.column_sets + column) * channels + slot, lanes)
            value = value * whole(inverse, lanes) if odd > 1 else value
            value = tirx.shift_right(value, whole(shift, lanes)) if shift else value
            store(em, spec, em.let(value + bias, "acc"), factor, add_at, dst_at, scaling=scaling)

        return leave

    def alike(tile: int) -> bool:
        return all(sets[x] == every for x in range(tile * wide, (tile + 1) * wide))

    return [back(em, spec, (down, across), lanes, leaving, alike)]


class _Products(Direct):
    """Sums of products of whole numbers of 16 bits, as they are."""

    def started(self, _group: Expr, _y: Expr, _x: int | Expr, width: int) -> Any:
        """A tile's sums: nothing yet."""
        acc = self.emitter.local(width * self.wide, "int32")
        for at in range(0, width * self.wide, self.schedule.lanes):
            self.emitter.store(acc, at, whole(0, self.schedule.lanes))
        return acc

    def finished(self, acc: Any, where: tuple[Expr, Expr, int | Expr, int], _add0: Expr, dst0: Expr) -> None:
        """Store a tile's sums."""
        em, lanes, vectors = self.emitter, self.schedule.lanes, self.schedule.vectors
        group, y, x, width = where
        for v in range(vectors):
            at = em.let(self.out_index(group, v, y, x), "at")
            for p in range(width):
                value = load(acc, (p * vectors + v) * lanes, lanes)
                em.store(em.buffers["dst"], dst0 + at + p * BLOCK, value)


def emit_products(spec: Conv, schedule: DotSchedule, name: str) -> list[tirx.PrimFunc]:
    """A 1x1 convolution in a group a point."""
    return [_Products(spec, schedule, name).emit()]


def serves_products(spec: Conv, isa: Isa) -> str | None:
    """Whole numbers of 16 bits, with an instruction that multiplies pairs of them."""
    if spec.in_element != SHORT:
        return f"it multiplies {spec.in_element}, not {SHORT}"
    return None if VPMADDWD in isa.dots else f"{isa.name} has no {VPMADDWD.name}"


def _layout(schedule: ConvSchedule) -> int:
    return schedule.vectors


FAMILIES: tuple[Family[Any, Any], ...] = (
    Family("bytes.winograd_in", WinogradInput, of_bytes, whole_vectors, input_units, emit_input),
    Family(
        "bytes.winograd_products", Conv, serves_products, choose, units, emit_products, pack_weight, space, features,
        layout=_layout,
    ),
    Family("bytes.winograd_out", WinogradOutput, of_bytes, whole_vectors, output_units, emit_output),
)  # fmt: skip
