"""Winograd's transforms of fp32 on CPUs. The products in between are a grouped 1x1 convolution (`vector.conv`)."""

from __future__ import annotations

from typing import Any

from tvm import tirx

from ..emit import Emitter, Expr, clamp, const, load
from ..family import Family, of_vectors
from ..spec import Conv, WinogradInput, WinogradOutput, applies, stages
from ..toom_cook import transforms
from ..transform import Leave, back, forward
from .conv import share
from .simple import SimpleSchedule, whole_vectors

OUTPUTS = {1: (1,), 3: (2, 4), 5: (2, 4), 7: (2, 4)}
"""Taps along an axis to outputs a tile: at most as many as leave the error of fp32 below 1e-5
(tests/kernels/test_toom_cook.py). Smaller tiles have fewer weights and more products.
"""


def options(spec: Conv) -> list[tuple[int, int]]:
    """The tiles that a convolution can be computed with; none where Winograd's algorithm does not apply to it."""
    if spec.in_element != "float32" or spec.stride != (1, 1) or not applies(spec):
        return []
    if any(taps not in OUTPUTS for taps in spec.kernel):
        return []
    return [(high, wide) for high in OUTPUTS[spec.kernel[0]] for wide in OUTPUTS[spec.kernel[1]]]


def pays(spec: Conv, *, lanes: int) -> tuple[int, int] | None:
    """The tile's outputs with which Winograd is expected to be faster than the direct convolution, or None.

    Compared in cycles of one core: multiply-adds (of padded tiles), transforms, and weights, of which there are more.
    """
    weights = spec.channels * spec.out_channels
    seen = spec.out_channels * share(spec, lanes).inputs  # the direct one leaves zeros out
    direct = spec.out_height * spec.out_width * seen * spec.kernel[0] * spec.kernel[1] / (2 * lanes)

    def cycles(outputs: tuple[int, int]) -> float:
        shape = stages(spec, outputs)[0]
        tiles = shape.tiles[0] * shape.tiles[1]
        products = shape.points * tiles * weights / (2 * lanes)
        moved = shape.points * tiles * (spec.channels * _MOVE_IN + spec.out_channels * _MOVE_OUT) / lanes
        cold = 4 * weights * (shape.points - spec.kernel[0] * spec.kernel[1]) / (_BYTES_PER_CYCLE * spec.batch)
        return products * _FEW_PIXELS + moved + cold

    best = min(options(spec), key=cycles, default=None)
    return None if best is None or cycles(best) >= direct * _WORTH else best


_MOVE_IN, _MOVE_OUT, _BYTES_PER_CYCLE = 5.0, 4.0, 6.0
"""Cycles for a vector of products on its way in and out; bytes of weights that come from memory in a cycle. Measured:
docs/perf/cpu-fp32.md, step 4.
"""

_FEW_PIXELS, _WORTH = 1.1, 0.9
"""What a product of few pixels takes over one of many, and the part of the direct convolution's cycles that is worth
the memory: they leave 192-224 1x3@8 direct, where F(2) took 1.03 of the time, and take F(2) for 224-256 3x1@8, where it
took 0.94 (docs/perf/tuning.md, round 3).
"""


def input_units(spec: WinogradInput, _schedule: SimpleSchedule) -> int:
    """One work unit a tile row of a block."""
    return spec.batch * spec.blocks * spec.tiles[0]


def emit_input(spec: WinogradInput, schedule: SimpleSchedule, name: str) -> list[tirx.PrimFunc]:
    """B^T d B of every tile."""
    em, lanes = Emitter(name, spec.pointers), schedule.lanes
    down, across = (transforms(m, r).bt for m, r in zip(spec.outputs, spec.taps, strict=True))
    return [forward(em, spec, (down, across), const(0.0, lanes), lambda at: load(em.buffers["src"], at, lanes))]


def output_units(spec: WinogradOutput, _schedule: SimpleSchedule) -> int:
    """One work unit a tile row of a block."""
    return spec.batch * spec.blocks * spec.tiles[0]


def emit_output(spec: WinogradOutput, schedule: SimpleSchedule, name: str) -> list[tirx.PrimFunc]:
    """A^T m A of every tile, then bias, add and clamp."""
    em, lanes = Emitter(name, spec.pointers), schedule.lanes
    down, across = (transforms(m, r).at for m, r in zip(spec.outputs, spec.taps, strict=True))

    def leaving(slot: Expr) -> Leave:
        bias = em.let(load(em.buffers["bias"], slot, lanes), "bias0")

        def leave(value: Expr, _y: Expr, _x: int | Expr, add_at: Expr, dst_at: Expr) -> None:
            value = value + bias
            if spec.add:
                value = value + load(em.buffers["add"], add_at, lanes)
            em.store(em.buffers["dst"], dst_at, clamp(value, spec.activation))

        return leave

    return [back(em, spec, (down, across), lanes, leaving)]


FAMILIES: tuple[Family[Any, SimpleSchedule], ...] = (
    Family("vector.winograd_in", WinogradInput, of_vectors, whole_vectors, input_units, emit_input),
    Family("vector.winograd_out", WinogradOutput, of_vectors, whole_vectors, output_units, emit_output),
)
