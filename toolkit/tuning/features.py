"""A choice as numbers for the cost model: what the machine will notice of it, on scales where a step of one matters."""

from __future__ import annotations

import math

import numpy as np

from ..kernels.cut import split
from ..kernels.elements import BLOCK
from ..kernels.matrix import conv
from ..kernels.matrix.layout import LANES
from ..kernels.spec import Conv, Spec, Window, stages
from ..kernels.vector.conv import NEXT_GROUP, ConvSchedule, image, tile_widths, units
from ..kernels.vector.window import WindowSchedule
from .space import Choice

WIDTH = 20
"""Features of every choice, whatever its template."""


def features(spec: Spec, choice: Choice, threads: int) -> np.ndarray:
    """`(WIDTH,)` float64."""
    found, values = np.zeros(WIDTH), list[float]()
    schedule = choice.schedule
    if isinstance(schedule, ConvSchedule) and isinstance(spec, Conv):
        values = _conv(spec if choice.outputs is None else stages(spec, choice.outputs)[1], schedule, threads)
        high, wide = choice.outputs or (0, 0)
        values += [float(choice.outputs is not None), math.log2(1 + high), math.log2(1 + wide)]
    elif isinstance(schedule, WindowSchedule) and isinstance(spec, Window):
        parts = split(spec.out_width, schedule.pixels)
        values = [float(len(parts)), math.log2(schedule.pixels), (max(parts) - min(parts)) / max(parts)]
    elif isinstance(schedule, conv.TileSchedule) and isinstance(spec, Conv):
        values = _tiles(spec, schedule, threads)
    found[: len(values)] = values
    return found


def _conv(spec: Conv, schedule: ConvSchedule, threads: int) -> list[float]:
    vectors, row = schedule.vectors, image(spec)[3]
    widths = tile_widths(spec, schedule)
    cycles = sum(max(w * vectors / 2, (w + vectors) / 2, 4.0) for w in widths) / (vectors * row / 2)
    accumulators = max(widths) * vectors
    depth = spec.channels * math.prod(spec.kernel)
    group_kib = 4 * vectors * schedule.lanes * depth / 1024
    count = units(spec, schedule)
    idle = math.ceil(count / threads) * threads / count
    blocks = 1 if spec.planar else spec.channels // BLOCK
    passes = 1.0 if not schedule.k_block else blocks / schedule.k_block
    own = schedule.fetch > 0
    return [
        4 * math.log2(cycles),
        accumulators / 8,
        max(0, accumulators - 18) / 4,
        4.0 / max(widths),
        2.0 / vectors,
        math.log2(group_kib) / 2,
        math.log2(schedule.rows) / 2,
        math.log2(count / threads) / 2,
        4 * math.log2(idle),
        float(schedule.rows_outer),
        float(schedule.rows_outer) * math.log2(group_kib) / 4,
        math.log2(schedule.unroll),
        math.log2(passes),
        float(schedule.fetch == NEXT_GROUP),
        float(schedule.fetch == NEXT_GROUP) * math.log2(group_kib) / 4,
        float(own),
        math.log2(schedule.fetch / 8) if own else 0.0,
    ]


def _tiles(spec: Conv, schedule: conv.TileSchedule, threads: int) -> list[float]:
    total = conv.rows_of(spec).tiles
    turns = math.ceil(total / schedule.tiles)
    deep = math.prod(spec.depth)
    group_kib = 2 * spec.halves * schedule.blocks * deep * LANES**2 / 1024
    weights_kib = group_kib * spec.out_channels / (schedule.blocks * LANES)
    pixels_kib = 2 * spec.halves * conv.read_of(spec) / 1024
    count = conv.units(spec, schedule)
    idle = math.ceil(count / threads) * threads / count
    own, outer = schedule.fetch > 0, float(schedule.rows_outer)
    return [
        4 * math.log2(turns * schedule.tiles / total),
        4.0 / schedule.tiles,
        2.0 / schedule.blocks,
        math.log2(schedule.run) / 2,
        math.log2(count / threads) / 2,
        4 * math.log2(idle),
        outer,
        outer * math.log2(weights_kib / 512) / 2,
        outer * math.log2(weights_kib / pixels_kib) / 2,
        float(schedule.fetch == conv.NEXT_GROUP),
        float(schedule.fetch == conv.NEXT_GROUP) * math.log2(turns) / 2,
        float(own),
        float(own) * math.log2(group_kib) / 4,
        math.log2(schedule.fetch / conv.AHEAD_KIB) if own else 0.0,
    ]
