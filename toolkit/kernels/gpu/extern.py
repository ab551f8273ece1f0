"""TVM's default loop nests on GPUs: what Relax legalised, a thread for every element of the result.

A nest whose iterations are independent is spread over threads, each with its part of a reduction to itself. One whose
iterations
depend on each other is done by a single thread: slow, and correct. These kernels are here so that every model compiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.ir import PointerType, PrimType, Range

from ..family import Family, Launch, Program, of_gpu
from ..isa import Isa
from ..spec import Extern
from ..vector.extern import flat_loops, loop_kinds
from .emit import DEVICE_FUNCTION, wait_for_earlier

_THREADS = 128
_SPATIAL, _REDUCE = 0, 2  # tirx.IterVar's kinds


@dataclass(frozen=True)
class ExternSchedule:
    """How an operator of TVM's default is cut.

    Attributes:
        blocks: of threads; 1 with a single thread where the iterations depend on each other.
    """

    blocks: int
    threads: int


def choose(spec: Extern, _isa: Isa) -> ExternSchedule:
    """As many threads as the nest has independent iterations."""
    count = _scheduled(spec.function)[1]
    return ExternSchedule(-(-count // _THREADS), _THREADS) if count else ExternSchedule(1, 1)


def program(spec: Extern, schedule: ExternSchedule) -> Program:
    """One launch."""
    return Program((Launch((schedule.blocks, 1, 1), (schedule.threads, 1, 1), tuple(range(len(spec.operands)))),))


def emit(spec: Extern, schedule: ExternSchedule, symbol: str) -> list[Any]:
    """The nest as a device function."""
    target = tvm.target.Target({"kind": "cuda", "arch": "sm_80"})
    func = flat_loops(_scheduled(spec.function)[0], target)
    pointers = [tirx.Var(p.name, PointerType(PrimType(str(p.dtype)))) for p in func.params]
    declared = [tirx.DeclBuffer(buffer, data=pointer) for buffer, pointer in zip(func.params, pointers, strict=True)]
    body: Any = tirx.SeqStmt([*declared, wait_for_earlier(), func.body])
    if schedule.threads == 1:
        axis = tirx.IterVar(Range(0, 1), tirx.Var("thread", "int32"), tirx.IterVar.ThreadIndex, "threadIdx.x")
        body = tirx.AttrStmt(axis, "thread_extent", tirx.const(1, "int32"), body)
    made = tirx.PrimFunc(pointers, body).with_attr(
        {"global_symbol": symbol, "tirx.noalias": True, "calling_conv": DEVICE_FUNCTION}
    )
    passes = [
        tirx.transform.BindTarget(target),
        tirx.transform.FlattenBuffer(),
        tirx.transform.NarrowDataType(32),
        tirx.transform.VectorizeLoop(True),
        tirx.transform.StorageRewrite(),
        tirx.transform.StmtSimplify(),
        tirx.transform.RemoveNoOp(),
    ]
    with target:
        module = tvm.transform.Sequential(passes)(tvm.IRModule({symbol: made}))
    return [module[symbol].without_attr("target").with_attr("global_symbol", symbol)]


@lru_cache(maxsize=256)
def _scheduled(function: str) -> tuple[tirx.PrimFunc, int]:
    """The function with its loops bound to threads, and how many independent iterations it has; 0 where they depend
    on each other.
    """
    func = tvm.ir.load_json(function).with_attr("global_symbol", "main")
    kinds = loop_kinds(func)
    if kinds is None or _SPATIAL not in kinds:
        return func, 0
    schedule = s_tir.Schedule(tvm.IRModule({"main": func}))
    (block,) = schedule.get_child_blocks(schedule.get_sblock("root"))
    handles = schedule.get_loops(block)
    spatial = [h for h, kind in zip(handles, kinds, strict=True) if kind == _SPATIAL]
    reduce = [h for h, kind in zip(handles, kinds, strict=True) if kind == _REDUCE]
    if reduce:
        schedule.reorder(*spatial, *reduce)
        schedule.decompose_reduction(block, reduce[0])
    fused = schedule.fuse(*spatial) if len(spatial) > 1 else spatial[0]
    count = int(schedule.get(fused).extent)
    blocks, threads = schedule.split(fused, [None, _THREADS])
    try:
        schedule.bind(blocks, "blockIdx.x")
        schedule.bind(threads, "threadIdx.x")
    except s_tir.schedule.ScheduleError:  # its iterations are not independent
        return func, 0
    return schedule.mod["main"], count


EXTERN: Family[Extern, ExternSchedule] = Family(
    "gpu.extern", Extern, lambda _spec, isa: of_gpu(isa), choose, lambda _spec, schedule: schedule.blocks, emit,
    program=program,
)  # fmt: skip
