"""Products of two computed matrices, as attention has them, on plain memory.

A work unit is some rows of one product. Its tile of sums stays in registers: `rows` rows, each an element in every
lane, by some vectors of columns. The last tile of columns overlaps the one before it where they are no whole tiles,
and computes the same bits again.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm import tirx

from ..emit import Emitter, Expr, const, fma, load, splat
from ..family import Family, of_vectors
from ..isa import Isa
from ..spec import MatrixProduct


@dataclass(frozen=True)
class ProductSchedule:
    """How a product is cut.

    Attributes:
        lanes: columns in a vector; no more than there are columns.
        vectors: of a tile.
        rows: of a tile, and of a work unit; the last one of a product may have fewer.
    """

    lanes: int
    vectors: int
    rows: int


def choose(spec: MatrixProduct, isa: Isa) -> ProductSchedule:
    """As many sums as leave registers for a row of the right operand and an element of the left one."""
    lanes = isa.lanes
    while lanes > spec.columns:
        lanes //= 2
    vectors = max(1, min(2 if isa.registers == 16 else 4, spec.columns // lanes))
    most = (isa.registers - vectors - 1) // vectors
    tiles = -(-spec.rows // most)
    return ProductSchedule(lanes, vectors, -(-spec.rows // tiles))


def units(spec: MatrixProduct, schedule: ProductSchedule) -> int:
    """Tiles of rows, of all products."""
    return spec.count * -(-spec.rows // schedule.rows)


def emit(spec: MatrixProduct, schedule: ProductSchedule, name: str) -> list[tirx.PrimFunc]:
    """All columns of a unit's rows."""
    em = Emitter(name, spec.pointers)
    tiles, rest = -(-spec.rows // schedule.rows), spec.rows % schedule.rows
    with em.units() as unit:
        which, tile = em.let(tirx.floordiv(unit, tiles), "which"), em.let(tirx.floormod(unit, tiles), "tile")
        if not rest:
            _tile(em, spec, schedule, which, tile, schedule.rows)
        else:
            with em.when(tile < tiles - 1):
                _tile(em, spec, schedule, which, tile, schedule.rows)
            with em.when(tile == tiles - 1):
                _tile(em, spec, schedule, which, tile, rest)
    return [em.finish()]


def _tile(em: Emitter, spec: MatrixProduct, schedule: ProductSchedule, which: Expr, tile: Expr, rows: int) -> None:
    """`rows` rows of product `which`."""
    lanes, width = schedule.lanes, schedule.lanes * schedule.vectors
    row = em.let(tile * schedule.rows, "row")
    first = em.let(which * spec.rows + row, "first")
    down, along = (1, spec.rows) if spec.turned else (spec.depth, 1)
    left = em.let(which * (spec.rows * spec.depth) + row * down, "left0")
    right = em.let(which * (spec.depth * spec.columns), "right0")
    with em.loop(-(-spec.columns // width), "j") as j:
        column = em.let(tirx.min(j * width, spec.columns - width), "column")
        sums = em.local(rows * width, name="sums")
        for at in range(0, rows * width, lanes):
            em.store(sums, at, const(0.0, lanes))
        with em.loop(spec.depth, "k") as k:
            line = em.let(right + k * spec.columns + column, "line")
            b = [em.let(load(em.buffers["right"], line + v * lanes, lanes), "b") for v in range(schedule.vectors)]
            for i in range(rows):
                a = em.let(splat(load(em.buffers["left"], left + i * down + k * along), lanes), "a")
                for v, values in enumerate(b):
                    at = i * width + v * lanes
                    em.store(sums, at, fma(a, values, load(sums, at, lanes)))
        for i in range(rows):
            for v in range(schedule.vectors):
                place = (first + i) * spec.columns + column + v * lanes
                em.store(em.buffers["dst"], place, load(sums, i * width + v * lanes, lanes))


PRODUCT: Family[MatrixProduct, ProductSchedule] = Family(
    "vector.product", MatrixProduct, of_vectors, choose, units, emit
)
