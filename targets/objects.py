"""Kernels to object code: TIR through TVM's LLVM. What was compiled before comes from the cache.

An object is known by what decides its bytes: the TIR that was emitted, `PIPELINE`, TVM's description of the target,
and the compiler's version. Emitting takes seconds for a large network, so a digest of the TIR is kept too, by the
kernel's spec and schedule and the sources of the kernels: while no file of `kernels` is edited, nothing is emitted.
After an edit everything is emitted again, and only what then is other TIR is compiled again.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

from inception_deploy.lower.plan import Kernel

PIPELINE: dict[str, Any] = {
    "passes": ["BindTarget", "FlattenBuffer", "StmtSimplify", "LowerIntrin"],
    "opt_level": 3,
    "config": {},
    "build": "target.build.llvm",
}
"""How TIR becomes code: `compile_tir` does what stands here, and all of it is a part of an object's key."""


def emit(kernel: Kernel) -> Any:
    """The kernel as a `tirx.PrimFunc` with the C symbol `kernel.symbol`."""
    from inception_deploy.kernels.table import BY_NAME

    (func,) = BY_NAME[kernel.family].emit(kernel.spec, kernel.schedule, kernel.symbol)
    return func


def compile_tir(func: Any, tvm_target: dict[str, Any]) -> bytes:
    """A function of TIR as a relocatable object file."""
    built = _built(func, tvm_target)
    # a file of memory: on a full disk LLVM would end the process
    with os.fdopen(os.memfd_create("kernel.o"), "rb") as file:
        built.write_to_file(f"/proc/self/fd/{file.fileno()}", "o")
        return file.read()


def assembly(func: Any, tvm_target: dict[str, Any]) -> str:
    """What `compile_tir` compiles, to be read."""
    return str(_built(func, tvm_target).inspect_source("asm"))


def innermost(text: str) -> list[str]:
    """Of x86 `assembly` the loops without a jump inside: from the label to the jump back to it, both included."""
    lines, labels, found = text.splitlines(), dict[str, int](), list[str]()
    for number, line in enumerate(lines):
        if label := re.match(r"(\.LBB\w+):", line):
            labels[label[1]] = number
        elif (jump := re.match(r"\s+j\w+\s+(\.LBB\w+)", line)) and jump[1] in labels:
            start = labels[jump[1]]
            if not any(re.match(r"\s+j|\.LBB", inside) for inside in lines[start + 1 : number]):
                found.append("\n".join(lines[start : number + 1]))
    return found


def _built(func: Any, tvm_target: dict[str, Any]) -> Any:
    """A function of TIR as a module of TVM's."""
    import tvm
    from tvm import tirx

    target = tvm.target.Target(tvm_target)
    arguments = {"BindTarget": [target]}
    passes = [getattr(tirx.transform, name)(*arguments.get(name, [])) for name in PIPELINE["passes"]]
    module = tvm.IRModule({str(func.attrs["global_symbol"]): func})
    with target, tvm.transform.PassContext(opt_level=PIPELINE["opt_level"], config=PIPELINE["config"]):
        return tvm.get_global_func(PIPELINE["build"])(tvm.transform.Sequential(passes)(module), target)


def object_key(tir: str, tvm_target: dict[str, Any]) -> str:
    """What an object is kept by: a digest of its TIR (`tir_digest`), and everything that makes code of it."""
    from inception_deploy import cache as store

    return store.key("object", tir, *(json.dumps(part, sort_keys=True) for part in (PIPELINE, tvm_target, _compiler())))


def tir_digest(func: Any) -> str:
    """SHA-256 of a function of TIR. Names of variables count, where in a file it was written does not."""
    import tvm

    return hashlib.sha256(str(tvm.ir.save_json(func)).encode()).hexdigest()


@cache
def _compiler() -> dict[str, Any]:
    """The versions of what compiles."""
    from importlib.metadata import version

    import tvm

    return {"tvm": version("apache-tvm"), "llvm": tvm.target.codegen.llvm_version_major()}


def compile_kernel(kernel: Kernel, tvm_target: dict[str, Any]) -> bytes:
    """The kernel's object, from the cache where the same TIR was compiled for the same target before."""
    from inception_deploy import cache as store
    from inception_deploy.kernels import sources_digest

    func = cache(lambda: emit(kernel))
    goal = json.dumps(tvm_target, sort_keys=True)
    known = store.key(
        "tir", sources_digest(), goal, kernel.family, kernel.symbol, repr(kernel.spec), repr(kernel.schedule)
    )
    tir = store.fetch(known, ".tir", lambda: tir_digest(func()).encode()).decode()
    return store.fetch(object_key(tir, tvm_target), ".o", lambda: compile_tir(func(), tvm_target))


def compile_kernels(
    kernels: Iterable[Kernel], tvm_target: dict[str, Any], progress: Callable[[int, int, str], None] | None = None
) -> dict[str, bytes]:
    """All kernels as objects, by symbol; those compiled before come from the cache."""
    todo = list(kernels)
    objects = {}
    # TVM lets go of Python's lock in LLVM only: two threads are 1.4 times as fast as one
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        done = pool.map(lambda kernel: compile_kernel(kernel, tvm_target), todo)
        for number, (kernel, data) in enumerate(zip(todo, done, strict=True), 1):
            objects[kernel.symbol] = data
            if progress:
                progress(number, len(todo), kernel.symbol)
    return objects
