"""Kernels to object code: TIR through TVM's LLVM, cached by content."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from inception_deploy.lower.plan import Kernel


def compile_kernel(kernel: Kernel, tvm_target: dict[str, Any]) -> bytes:
    """One kernel as a relocatable object file with the C symbol `kernel.symbol`."""
    import tvm
    from tvm import tirx

    from inception_deploy.kernels.table import TEMPLATES

    func = TEMPLATES[type(kernel.spec)].emit(kernel.spec, kernel.schedule, kernel.symbol)
    target = tvm.target.Target(tvm_target)
    mod = tirx.transform.BindTarget(target)(tvm.IRModule({kernel.symbol: func}))
    passes = [tirx.transform.FlattenBuffer(), tirx.transform.StmtSimplify(), tirx.transform.LowerIntrin()]
    with target, tvm.transform.PassContext(opt_level=3):
        module = tvm.get_global_func("target.build.llvm")(tvm.transform.Sequential(passes)(mod), target)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.o"
        module.write_to_file(str(path))
        return path.read_bytes()


def compile_kernels(
    kernels: Iterable[Kernel], tvm_target: dict[str, Any], progress: Callable[[int, int, str], None] | None = None
) -> dict[str, bytes]:
    """All kernels as objects, by symbol; those compiled before come from the cache."""
    from inception_deploy import cache

    def fetch(kernel: Kernel) -> tuple[str, bytes]:
        # the symbol is a digest of spec, schedule, sources and target
        return kernel.symbol, cache.fetch(kernel.symbol, ".o", lambda: compile_kernel(kernel, tvm_target))

    todo = list(kernels)
    objects = {}
    # TVM lets go of Python's lock in LLVM only: two threads are 1.4 times as fast as one
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for done, (symbol, data) in enumerate(pool.map(fetch, todo), 1):
            objects[symbol] = data
            if progress:
                progress(done, len(todo), symbol)
    return objects
