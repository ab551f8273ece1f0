"""The code of Winograd's transforms, in whatever numbers: a vector of a tile's channels at a time.

Tiles at the image's edges have code of their own along a row; rows outside the image are left out at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from tvm import tirx

from .cut import runs
from .elements import BLOCK
from .emit import Emitter, Expr, fma, load, splat
from .spec import WinogradInput, WinogradOutput
from .toom_cook import Matrix

Matrices = tuple[Matrix, Matrix]
"""Along the rows and along the columns."""

Leave = Callable[[Expr, Expr, "int | Expr", Expr, Expr], None]
"""Stores an output: the vector that the way back gave, its row, its column (an int in a tile with code of its own), and
where it lies in what is added and in the result.
"""


def _number(like: Expr, value: Any) -> Expr:
    """A constant in every lane of such a vector."""
    kind, lanes = str(like.ty.dtype).partition("x")[0], like.ty.dtype.lanes
    return splat(tirx.const(float(value) if _real(like) else int(value), kind), lanes)


def _real(like: Expr) -> bool:
    return str(like.ty.dtype).startswith("float")


def _combine(em: Emitter, row: Sequence[Any], values: Sequence[Expr | None]) -> Expr | None:
    """The sum of `row[k] * values[k]`; None for a sum of nothing (a value None is zero)."""
    total: Expr | None = None
    for factor, value in zip(row, values, strict=True):
        if factor == 0 or value is None:
            continue
        if total is None:
            total = value if factor == 1 else value * _number(value, factor)
        elif factor in (1, -1):
            total = total + value if factor == 1 else total - value
        elif _real(value):
            total = fma(value, _number(value, factor), total)
        else:
            total = total + value * _number(value, factor)
    return None if total is None else em.let(total, "v")


def _along(em: Emitter, matrix: Matrix, values: Sequence[Expr | None]) -> list[Expr | None]:
    """The matrix times a column of vectors."""
    return [_combine(em, row, values) for row in matrix]


def forward(em: Emitter, spec: WinogradInput, matrices: Matrices, zero: Expr, read: Callable[[Expr], Expr]) -> Any:
    """The finished kernel of B^T d B of every tile.

    Args:
        zero: what a pixel outside of the image is: a vector of what is computed in.
        read: the vector at a place of the input.
    """
    lanes, dtype = zero.ty.dtype.lanes, str(zero.ty.dtype).partition("x")[0]
    (my, mx), (ny, nx), (top, left) = (
        (m * step for m, step in zip(spec.outputs, spec.stride, strict=True)),
        spec.reach,
        spec.pad,
    )
    down, across = matrices
    rows, columns = spec.tiles
    plane = rows * columns * BLOCK

    def tile(src: Expr, dst: Expr, ty: Expr, tx: int | Expr, part: int) -> None:
        """One tile: rows outside the image stay zero; columns outside it are left out."""
        inside = [s for s in range(nx) if not isinstance(tx, int) or 0 <= tx * mx - left + s < spec.width]
        kept = em.local(ny * nx * lanes, dtype, "kept")
        for r in range(ny):
            y = em.let((ty + first_row) * my - top + r, "y")
            guard = top > 0 or (spec.tile_rows - 1) * my - top + ny > spec.height
            if guard:
                for s in inside:
                    em.store(kept, (r * nx + s) * lanes, zero)
            with em.when(tirx.all(y >= 0, y < spec.height) if guard else tirx.const(True)):
                for s in inside:
                    at = src + (y * spec.width + tx * mx - left + s) * BLOCK + part
                    em.store(kept, (r * nx + s) * lanes, read(at))
        # along the columns first, so that only one column of vectors is alive at a time
        for s in inside:
            column = [em.let(load(kept, (r * nx + s) * lanes, lanes), "d") for r in range(ny)]
            for r, value in enumerate(_along(em, down, column)):
                em.store(kept, (r * nx + s) * lanes, zero if value is None else value)
        for r in range(ny):
            row = [em.let(load(kept, (r * nx + s) * lanes, lanes), "d") if s in inside else None for s in range(nx)]
            for s, value in enumerate(_along(em, across, row)):
                at = dst + (r * nx + s) * (spec.blocks * plane) + (ty * columns + tx) * BLOCK + part
                em.store(em.buffers["dst"], at, zero if value is None else value)

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
    return em.finish()


def back(
    em: Emitter,
    spec: WinogradOutput,
    matrices: Matrices,
    lanes: int,
    leaving: Callable[[Expr], Leave],
    alike: Callable[[int], bool] = lambda _: True,
) -> Any:
    """The finished kernel of A^T m A of every tile, and what follows.

    Args:
        leaving: how the outputs of channels from a slot on are stored.
        alike: a column of tiles' outputs are all stored in the same way as those beside them.
    """
    (my, mx), (ny, nx) = spec.outputs, spec.reach
    down, across = matrices
    rows, columns = spec.tiles
    plane = rows * columns * BLOCK
    dtype = em.buffers["src"].dtype

    def tile(src: Expr, add: Expr, dst: Expr, leave: Leave, ty: Expr, tx: int | Expr, part: int) -> None:
        """One tile: what lies below or right of the image is not stored."""
        kept = em.local(my * nx * lanes, str(dtype), "kept")
        for s in range(nx):
            column = []
            for r in range(ny):
                at = src + (r * nx + s) * (spec.blocks * plane) + (ty * columns + tx) * BLOCK + part
                column.append(em.let(load(em.buffers["src"], at, lanes), "m"))
            for r, value in enumerate(_along(em, down, column)):
                em.store(kept, (r * nx + s) * lanes, value)
        stored = [x for x in range(mx) if not isinstance(tx, int) or tx * mx + x < spec.out_width]
        for r in range(my):
            y = em.let((ty + first_row) * my + r, "y")
            with em.when(y < spec.out_height):
                row = [em.let(load(kept, (r * nx + s) * lanes, lanes), "m") for s in range(nx)]
                for x, value in enumerate(_along(em, across, row)):
                    if x not in stored:
                        continue
                    column_ = tx * mx + x
                    at = em.let((y * spec.out_width + column_) * BLOCK + part, "at")
                    leave(value, y, column_, add + at, dst + at)

    def inner(tx: int, _width: int) -> bool:
        return (tx + 1) * mx <= spec.out_width and alike(tx)

    first_row = em.let(load(em.buffers["band"], 0), "first_row") if spec.band else 0
    with em.units() as unit:
        ty = em.let(tirx.floormod(unit, rows), "ty")
        index = em.let(tirx.floordiv(unit, rows), "index")
        n, block = em.let(tirx.floordiv(index, spec.blocks), "n"), em.let(tirx.floormod(index, spec.blocks), "block")
        src = em.let((n * (ny * nx * spec.blocks) + block) * plane, "src0")
        offset = block * (spec.out_height * spec.out_width * BLOCK)
        add, dst = em.let(n * spec.add_stride + offset, "add0"), em.let(n * spec.out_stride + offset, "dst0")
        for part in range(0, BLOCK, lanes):
            leave = leaving(block * BLOCK + part)
            for first, _, count in runs([1] * columns, inner):
                if count == 1:
                    tile(src, add, dst, leave, ty, first, part)
                else:
                    with em.loop(count, "t") as t:
                        tile(src, add, dst, leave, ty, em.let(first + t, "tx"), part)
    return em.finish()
