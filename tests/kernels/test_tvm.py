"""The pinned TVM and tvm-ffi belong together: with another tvm-ffi, tensorizing ends the process."""

from __future__ import annotations

import subprocess
import sys

TENSORIZE = """
import tvm
from tvm import te, tirx
from tvm.s_tir import SBlock, SBlockRealize, Schedule, TensorIntrin

def double(size, name):
    x = te.placeholder((size,), "float32", name="x")
    return te.create_prim_func([x, te.compute((size,), lambda i: x[i] + x[i], name=name)])

def tile():
    "Doubles four numbers, and says which memory that touches."
    func = double(4, "tile")
    source, result = (tirx.BufferRegion(b, [tvm.ir.Range(0, 4)]) for b in func.params)
    root = SBlock([], [source], [result], "root", func.body.block.body)
    return tirx.PrimFunc(func.params, SBlockRealize([], True, root), ret_type=func.ret_type)

TensorIntrin.register("test.tile", tile(), tile())
schedule = Schedule(tvm.IRModule({"main": double(16, "whole")}))
(loop,) = schedule.get_loops(schedule.get_sblock("whole"))
_, inner = schedule.split(loop, [None, 4])
schedule.tensorize(inner, "test.tile")
print("tensorized")
"""


def test_it_tensorizes() -> None:
    """In a process of its own, which a mismatch kills: that has to be told from a failure of a test."""
    done = subprocess.run([sys.executable, "-c", TENSORIZE], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, (
        f"TVM and tvm-ffi do not fit each other (status {done.returncode}):\n{done.stderr[-2000:]}"
    )
    assert done.stdout == "tensorized\n"
