"""Kernels to object code: TIR through TVM's LLVM, cached by content."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from inception_deploy.lower.plan import Kernel


def compile_kernel(kernel: Kernel, tvm_target: dict[str, Any]) -> bytes:
    """One kernel as a relocatable object file with the C symbol `kernel.symbol`."""
    import tvm
    from tvm import tirx

    from inception_deploy.kernels.cpu import TEMPLATES

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

    todo = list(kernels)
    objects = {}
    for index, kernel in enumerate(todo):
        # the symbol is a digest of spec, schedule, sources and target
        objects[kernel.symbol] = cache.fetch(kernel.symbol, ".o", lambda k=kernel: compile_kernel(k, tvm_target))
        if progress:
            progress(index + 1, len(todo), kernel.symbol)
    return objects
