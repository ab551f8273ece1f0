"""Winograd's transforms on CPUs: 16 channels of a tile at a time. The products in between are a grouped 1x1
convolution (`vector.conv`).

Tiles at the image's edges have code of their own along a row; rows outside the image are left out at run time.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from typing import Any

from tvm import tirx

from ..cut import runs
from ..elements import BLOCK
from ..emit import Emitter, Expr, clamp, const, fma, load
from ..family import Family, of_vectors
from ..spec import Conv, WinogradInput, WinogradOutput, stages
from ..toom_cook import Matrix, transforms
from .simple import SimpleSchedule, whole_vectors

OUTPUTS = {1: (1,), 3: (2, 4), 5: (2, 4), 7: (2, 4)}
"""Taps along an axis to outputs a tile: at most as many as leave the error of fp32 below 1e-5
(tests/kernels/test_toom_cook.py). Smaller tiles have fewer weights and more products.
"""


def options(spec: Conv) -> list[tuple[int, int]]:
    """The tiles that a convolution can be computed with; none where Winograd's algorithm does not apply to it."""
    if (
        spec.in_element != "float32"
        or spec.planar
        or spec.groups > 1
        or spec.stride != (1, 1)
        or spec.dilation != (1, 1)
        or max(spec.kernel) == 1
    ):
        return []
    if any(taps not in OUTPUTS for taps in spec.kernel):
        return []
    return [(high, wide) for high in OUTPUTS[spec.kernel[0]] for wide in OUTPUTS[spec.kernel[1]]]


def pays(spec: Conv, *, lanes: int) -> tuple[int, int] | None:
    """The tile's outputs with which Winograd is expected to be faster than the direct convolution, or None.

    Compared in cycles of one core: multiply-adds (of padded tiles), transforms, and weights, of which there are more.
    """
    weights = spec.channels * spec.out_channels
    direct = spec.out_height * spec.out_width * weights * spec.kernel[0] * spec.kernel[1] / (2 * lanes)

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


def _combine(em: Emitter, row: Sequence[Fraction], values: Sequence[Expr | None], lanes: int) -> Expr | None:
    """The sum of `row[k] * values[k]`; None for a sum of nothing (a value None is zero)."""
    total: Expr | None = None
    for factor, value in zip(row, values, strict=True):
        if factor == 0 or value is None:
            continue
        if total is None:
            total = value if factor == 1 else value * const(float(factor), lanes)
        elif factor in (1, -1):
            total = total + value if factor == 1 else total - value
        else:
            total = fma(value, const(float(factor), lanes), total)
    return None if total is None else em.let(total, "v")


def _along(em: Emitter, matrix: Matrix, values: Sequence[Expr | None], lanes: int) -> list[Expr | None]:
    """The matrix times a column of vectors."""
    return [_combine(em, row, values, lanes) for row in matrix]


def input_units(spec: WinogradInput, _schedule: SimpleSchedule) -> int:
    """One work unit a tile row of a block."""
    return spec.batch * spec.blocks * spec.tiles[0]


def emit_input(spec: WinogradInput, schedule: SimpleSchedule, name: str) -> list[tirx.PrimFunc]:
    """B^T d B of every tile."""
    lanes = schedule.lanes
    em = Emitter(name, spec.pointers)
    (my, mx), (ry, rx), (top, left) = spec.outputs, spec.taps, spec.pad
    ny, nx = my + ry - 1, mx + rx - 1
    down, across = transforms(my, ry).bt, transforms(mx, rx).bt
    rows, columns = spec.tiles
    plane = rows * columns * BLOCK

    def tile(src: Expr, dst: Expr, ty: Expr, tx: int | Expr, part: int) -> None:
        """One tile: rows outside the image stay zero; columns outside it are left out."""
        inside = [s for s in range(nx) if not isinstance(tx, int) or 0 <= tx * mx - left + s < spec.width]
        kept = em.local(ny * nx * lanes, name="kept")
        for r in range(ny):
            y = em.let((ty + first_row) * my - top + r, "y")
            guard = top > 0 or (spec.tile_rows - 1) * my - top + ny > spec.height
            if guard:
                for s in inside:
                    em.store(kept, (r * nx + s) * lanes, const(0.0, lanes))
            with em.when(tirx.all(y >= 0, y < spec.height) if guard else tirx.const(True)):
                for s in inside:
                    at = src + (y * spec.width + tx * mx - left + s) * BLOCK + part
                    em.store(kept, (r * nx + s) * lanes, load(em.buffers["src"], at, lanes))
        # along the columns first, so that only one column of vectors is alive at a time
        for s in inside:
            column = [em.let(load(kept, (r * nx + s) * lanes, lanes), "d") for r in range(ny)]
            for r, value in enumerate(_along(em, down, column, lanes)):
                em.store(kept, (r * nx + s) * lanes, const(0.0, lanes) if value is None else value)
        for r in range(ny):
            row = [em.let(load(kept, (r * nx + s) * lanes, lanes), "d") if s in inside else None for s in range(nx)]
            for s, value in enumerate(_along(em, across, row, lanes)):
                at = dst + (r * nx + s) * (spec.blocks * plane) + (ty * columns + tx) * BLOCK + part
                em.store(em.buffers["dst"], at, const(0.0, lanes) if value is None else value)

    def inner(tx: int, _width: int) -> bool:
        return tx * mx - left >= 0 and tx * mx - left + nx <= spec.width

    first_row = em.let(load(em.buffers["band"], 0), "first_row") if spec.band else 0
    with em.units() as unit:
        ty = em.let(tirx.floormod(unit, rows), "ty")
        index = em.let(tirx.floordiv(unit, rows), "index")
        n, block = em.let(tirx.floordiv(index, spec.blocks), "n"), em.let(tirx.floormod(index, spec.blocks), "block")
        src = em.let(n * spec.in_stride + block * (spec.height * spec.width * BLOCK), "src0")
        dst = em.let((n * (ny * nx * spec.blocks) + block) * plane, "dst0")
        for first, _, count in runs([1] * columns, inner):
            for part in range(0, BLOCK, lanes):
                if count == 1:
                    tile(src, dst, ty, first, part)
                else:
                    with em.loop(count, "t") as t:
                        tile(src, dst, ty, em.let(first + t, "tx"), part)
    return [em.finish()]


def output_units(spec: WinogradOutput, _schedule: SimpleSchedule) -> int:
    """One work unit a tile row of a block."""
    return spec.batch * spec.blocks * spec.tiles[0]


def emit_output(spec: WinogradOutput, schedule: SimpleSchedule, name: str) -> list[tirx.PrimFunc]:
    """A^T m A of every tile, then bias, add and clamp."""
    lanes = schedule.lanes
    em = Emitter(name, spec.pointers)
    (my, mx), (ry, rx) = spec.outputs, spec.taps
    ny, nx = my + ry - 1, mx + rx - 1
    down, across = transforms(my, ry).at, transforms(mx, rx).at
    rows, columns = spec.tiles
    plane = rows * columns * BLOCK

    def tile(src: Expr, add: Expr, dst: Expr, bias: Expr, ty: Expr, tx: int | Expr, part: int) -> None:
        """One tile: what lies below or right of the image is not stored."""
        kept = em.local(my * nx * lanes, name="kept")
        for s in range(nx):
            column = []
            for r in range(ny):
                at = src + (r * nx + s) * (spec.blocks * plane) + (ty * columns + tx) * BLOCK + part
                column.append(em.let(load(em.buffers["src"], at, lanes), "m"))
            for r, value in enumerate(_along(em, down, column, lanes)):
                em.store(kept, (r * nx + s) * lanes, value)
        stored = [x for x in range(mx) if not isinstance(tx, int) or tx * mx + x < spec.out_width]
        for r in range(my):
            y = em.let((ty + first_row) * my + r, "y")
            with em.when(y < spec.out_height):
                row = [em.let(load(kept, (r * nx + s) * lanes, lanes), "m") for s in range(nx)]
                for x, value in enumerate(_along(em, across, row, lanes)):
                    if x not in stored:
                        continue
                    at = em.let((y * spec.out_width + tx * mx + x) * BLOCK + part, "at")
                    value = value + bias
                    if spec.add:
                        value = value + load(em.buffers["add"], add + at, lanes)
                    em.store(em.buffers["dst"], dst + at, clamp(value, spec.activation))

    def inner(tx: int, _width: int) -> bool:
        return (tx + 1) * mx <= spec.out_width

    first_row = em.let(load(em.buffers["band"], 0), "first_row") if spec.band else 0
    with em.units() as unit:
        ty = em.let(tirx.floormod(unit, rows), "ty")
        index = em.let(tirx.floordiv(unit, rows), "index")
        n, block = em.let(tirx.floordiv(index, spec.blocks), "n"), em.let(tirx.floormod(index, spec.blocks), "block")
        src = em.let((n * (ny * nx * spec.blocks) + block) * plane, "src0")
        offset = block * (spec.out_height * spec.out_width * BLOCK)
        add, dst = em.let(n * spec.add_stride + offset, "add0"), em.let(n * spec.out_stride + offset, "dst0")
        for part in range(0, BLOCK, lanes):
            bias = em.let(load(em.buffers["bias"], block * BLOCK + part, lanes), "bias0")
            for first, _, count in runs([1] * columns, inner):
                if count == 1:
                    tile(src, add, dst, bias, ty, first, part)
                else:
                    with em.loop(count, "t") as t:
                        tile(src, add, dst, bias, ty, em.let(first + t, "tx"), part)
    return [em.finish()]


FAMILIES: tuple[Family[Any, SimpleSchedule], ...] = (
    Family("vector.winograd_in", WinogradInput, of_vectors, whole_vectors, input_units, emit_input),
    Family("vector.winograd_out", WinogradOutput, of_vectors, whole_vectors, output_units, emit_output),
)
