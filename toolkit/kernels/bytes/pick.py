"""Bytes of a map in other places: `spec.Pick` on CPUs."""

from __future__ import annotations

import numpy as np
from tvm import tirx

from ..elements import BLOCK, element_of
from ..emit import Emitter, Expr, load, splat
from ..family import Family, of_bytes
from ..spec import Pick
from ..vector.simple import SimpleSchedule, whole_vectors


def units(spec: Pick, _schedule: SimpleSchedule) -> int:
    """One work unit a row of a block of the output."""
    return spec.batch * spec.blocks * spec.out_height


def emit(spec: Pick, _schedule: SimpleSchedule, name: str) -> list[tirx.PrimFunc]:
    """A pixel of a block at a time, or, where channels change their slots, a byte."""
    em = Emitter(name, spec.pointers)
    plane, stored = spec.height * spec.width * BLOCK, element_of(spec.in_element).stored
    fill = int(np.array(max(spec.fill, 0), np.uint32).astype(stored))
    with em.units() as unit:
        y = em.let(tirx.floormod(unit, spec.out_height), "y")
        index = em.let(tirx.floordiv(unit, spec.out_height), "index")
        n, block = tirx.floordiv(index, spec.blocks), em.let(tirx.floormod(index, spec.blocks), "block")
        row = em.let(load(em.buffers["rows"], y), "row")
        image = em.let(n * spec.in_stride, "image")
        dst0 = em.let(n * spec.out_stride + (block * spec.out_height + y) * (spec.out_width * BLOCK), "dst0")

        def value(inside: Expr, at: Expr, lanes: int) -> Expr:
            """Bytes, or the fill where their place is none; what is not used is read from a place that there is."""
            if spec.fill < 0:
                return load(em.buffers["src"], at, lanes)
            read = load(em.buffers["src"], tirx.Select(inside, at, tirx.const(0, "int32")), lanes)
            return tirx.Select(splat(inside, lanes), read, splat(tirx.const(fill, stored), lanes))

        with em.loop(spec.out_width, "x") as x:
            column = em.let(load(em.buffers["columns"], x), "column")
            seen = tirx.all(row >= 0, column >= 0)
            pixel = em.let((row * spec.width + column) * BLOCK, "pixel")
            if spec.shuffled:
                with em.loop(BLOCK, "lane") as lane:
                    slot = em.let(load(em.buffers["channels"], block * BLOCK + lane), "slot")
                    at = image + tirx.floordiv(slot, BLOCK) * plane + pixel + tirx.floormod(slot, BLOCK)
                    em.store(em.buffers["dst"], dst0 + x * BLOCK + lane, value(tirx.all(seen, slot >= 0), at, 1))
            else:
                em.store(em.buffers["dst"], dst0 + x * BLOCK, value(seen, image + block * plane + pixel, BLOCK))
    return [em.finish()]


PICK: Family[Pick, SimpleSchedule] = Family("bytes.pick", Pick, of_bytes, whole_vectors, units, emit)
