"""TVM's default loop nests on CPUs: what Relax legalised, lightly scheduled, with the C signature of our own kernels.

A nest whose iterations are independent is cut along its outer loops: one iteration of those is a work unit. Where a
reduction reads something that is contiguous along the innermost output loop, that loop goes inside the reduction, and
LLVM vectorises it. All else is
left as it is: these kernels are here so that every model compiles, not to be fast.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import tvm
from tvm import s_tir, sym, tirx
from tvm.ir import PointerType, PrimType
from tvm_ffi.structural import structural_map, structural_walk

from ..emit import c_function
from ..family import Family
from ..isa import Isa
from ..spec import Extern

_SPATIAL, _REDUCE = 0, 2  # tirx.IterVar's kinds


@dataclass(frozen=True)
class ExternSchedule:
    """How an operator of TVM's default is cut.

    Attributes:
        lanes: floats in a vector register.
        units: iterations of the outer loops, handed out to threads; 1 where they depend on each other.
    """

    lanes: int
    units: int


def choose(spec: Extern, isa: Isa) -> ExternSchedule:
    """As many units as the nest has independent iterations."""
    return ExternSchedule(isa.lanes, _scheduled(spec.function, isa.lanes)[1])


def units(spec: Extern, schedule: ExternSchedule) -> int:
    """Work units of the kernel."""
    return schedule.units


def emit(spec: Extern, schedule: ExternSchedule, name: str) -> list[tirx.PrimFunc]:
    """The nest as a TIR function of the emitter's C signature."""
    func = flat_loops(_scheduled(spec.function, schedule.lanes)[0])
    lo, hi = tirx.Var("lo", "int32"), tirx.Var("hi", "int32")
    body = _cut(func.body, lo, hi) if schedule.units > 1 else func.body
    pointers = [tirx.Var(p.name, PointerType(PrimType(str(p.dtype)))) for p in func.params]
    declared = [tirx.DeclBuffer(buffer, data=pointer) for buffer, pointer in zip(func.params, pointers, strict=True)]
    made = tirx.PrimFunc([*pointers, lo, hi], tirx.SeqStmt([*declared, body])).with_attr("tirx.noalias", True)
    passes = [
        tirx.transform.FlattenBuffer(),
        tirx.transform.NarrowDataType(32),
        tirx.transform.VectorizeLoop(True),
        tirx.transform.StorageRewrite(),
        tirx.transform.UnrollLoop(),
        tirx.transform.StmtSimplify(),
        tirx.transform.RemoveNoOp(),
    ]
    made = _run(passes, made)
    *pointers, lo, hi = made.params
    return [c_function(name, pointers, lo, hi, made.body)]


def _run(passes: list[Any], func: tirx.PrimFunc, target: Any = None) -> tirx.PrimFunc:
    """Passes over one function. They want a target, and for a CPU none of them looks at what it is."""
    target = target or tvm.target.Target({"kind": "llvm"})
    module = tirx.transform.BindTarget(target)(tvm.IRModule({"main": func}))
    with target:
        module = tvm.transform.Sequential(passes)(module)
    return module["main"].without_attr("target")


def flat_loops(func: tirx.PrimFunc, target: Any = None) -> tirx.PrimFunc:
    """Blocks become the statements that they stand for."""
    t = s_tir.transform
    return _run(
        [
            t.CanonicalizeLoop(),
            t.LowerInitBlock(),
            t.PlanAndUpdateBufferAllocationLocation(),
            t.ConvertBlocksToOpaque(),
            t.CompactBufferAllocation(),
            t.LowerMatchBuffer(),
            t.StmtSimplify(),
            t.LowerOpaqueBlock(),
        ],
        func,
        target,
    )


def _cut(body: Any, lo: Any, hi: Any) -> Any:
    """The parallel loop does `lo <= i < hi` of its iterations."""

    def loop(node: Any) -> Any:
        if node.kind != tirx.stmt.ForKind.PARALLEL:
            return node
        kind = str(node.loop_var.ty.dtype)
        extent = tirx.Cast(kind, hi - lo) if kind != "int32" else hi - lo
        start = tirx.Cast(kind, lo) if kind != "int32" else lo
        return tirx.For(node.loop_var, start, extent, tirx.stmt.ForKind.SERIAL, node.body)

    return structural_map(body, [(tirx.For, loop)])


@lru_cache(maxsize=256)
def _scheduled(function: str, lanes: int) -> tuple[tirx.PrimFunc, int]:
    """The function, scheduled, and the extent of its parallel loop (1 where it has none)."""
    func = tvm.ir.load_json(function).with_attr("global_symbol", "main")
    loops = loop_kinds(func)
    if loops is None:
        return func, 1
    schedule = s_tir.Schedule(tvm.IRModule({"main": func}))
    (block,) = schedule.get_child_blocks(schedule.get_sblock("root"))
    handles = schedule.get_loops(block)
    spatial = [h for h, kind in zip(handles, loops, strict=True) if kind == _SPATIAL]
    reduce = [h for h, kind in zip(handles, loops, strict=True) if kind == _REDUCE]
    if not spatial:
        return func, 1
    outer = spatial[:-1] if len(spatial) > 1 else spatial
    tile: list[Any] = []
    if reduce and len(spatial) > 1 and _contiguous(schedule.get(block)):
        outer, tile = _tile(schedule, spatial, lanes)
    elif reduce:
        outer = spatial
    if reduce:
        schedule.reorder(*outer, *reduce, *tile)
    fused = schedule.fuse(*outer) if len(outer) > 1 else outer[0]
    count = int(schedule.get(fused).extent)
    try:
        schedule.parallel(fused)
    except s_tir.schedule.ScheduleError:  # its iterations are not independent
        count = 1
    if len(tile) == 2:
        schedule.unroll(tile[0])
        schedule.vectorize(tile[1])
    if reduce:
        start = schedule.decompose_reduction(block, reduce[0])
        if len(tile) == 2:
            schedule.vectorize(schedule.get_loops(start)[-1])
    return schedule.mod["main"], count


def _tile(schedule: Any, spatial: list[Any], lanes: int) -> tuple[list[Any], list[Any]]:
    """The loops outside of a reduction, and those to go inside: some rows and whole vectors of columns.

    Rows are the last spatial loop but one, columns the last. Where those are no whole vectors, all go inside alone.
    """
    rows, columns = (int(schedule.get(loop).extent) for loop in spatial[-2:])
    wide = next((lanes * n for n in (4, 2, 1) if columns % (lanes * n) == 0), 0)
    if not wide:
        return spatial[:-1], spatial[-1:]
    high = next(n for n in (4, 3, 2, 1) if rows % n == 0)
    down, row = schedule.split(spatial[-2], [None, high])
    across, column = schedule.split(spatial[-1], [None, wide])
    # rows of the same columns follow each other, because they share weights
    return [*spatial[:-2], across, down], [row, column]


def loop_kinds(func: tirx.PrimFunc) -> list[int] | None:
    """The kinds of the loops of a function that is one perfect nest around one block, one loop an axis; None for any
    other.
    """
    node = getattr(getattr(func.body, "block", None), "body", None)
    variables = []
    while isinstance(node, tirx.For):
        variables.append(node.loop_var)
        node = node.body
    if not isinstance(node, s_tir.SBlockRealize) or len(node.iter_values) != len(variables):
        return None
    straight = all(value.same_as(var) for value, var in zip(node.iter_values, variables, strict=True))
    kinds = [int(axis.iter_type) for axis in node.block.iter_vars]
    if not straight or not set(kinds) <= {_SPATIAL, _REDUCE} or _inner_blocks(node.block.body):
        return None
    return kinds


def _inner_blocks(body: Any) -> bool:
    found: list[Any] = []
    structural_walk(body, [(s_tir.SBlockRealize, lambda node: found.append(node))])
    return bool(found)


def _contiguous(block: Any) -> bool:
    """Something that the block reads is contiguous along its last spatial axis."""
    axes = [axis.var for axis in block.iter_vars if int(axis.iter_type) == _SPATIAL]
    for region in block.reads:
        step: Any = sym.detect_linear_equation(region.region[-1].min, [axes[-1]]) if region.region else ()
        if len(step) == 2 and hasattr(step[0], "value") and int(step[0]) == 1:
            return True
    return False


def _serves(_spec: Extern, isa: Isa) -> str | None:
    return f"{isa.name} is a GPU" if isa.gpu else None


EXTERN: Family[Extern, ExternSchedule] = Family("vector.extern", Extern, _serves, choose, units, emit)
