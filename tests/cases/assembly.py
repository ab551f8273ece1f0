"""The machine code of kernels, as text."""

from __future__ import annotations

import re
from typing import Any

from inception_deploy import targets


def assembly(functions: list[Any], target_name: str) -> str:
    """What LLVM makes of the one function of a kernel."""
    import tvm

    from inception_deploy.targets.objects import PIPELINE

    (func,) = functions
    target = tvm.target.Target(targets.parse(target_name).tvm_target())
    arguments = {"BindTarget": [target]}
    passes = [getattr(tvm.tirx.transform, name)(*arguments.get(name, [])) for name in PIPELINE["passes"]]
    with target, tvm.transform.PassContext(opt_level=PIPELINE["opt_level"]):
        module = tvm.transform.Sequential(passes)(tvm.IRModule({"kernel": func}))
        return str(tvm.get_global_func(PIPELINE["build"])(module, target).inspect_source("asm"))


def innermost(assembly: str) -> list[str]:
    """Loops without a jump inside: from a label to the jump back to it."""
    lines, labels, found = assembly.splitlines(), dict[str, int](), list[str]()
    for number, line in enumerate(lines):
        if label := re.match(r"(\.LBB\w+):", line):
            labels[label[1]] = number
        elif (jump := re.match(r"\s+j\w+\s+(\.LBB\w+)", line)) and jump[1] in labels:
            body = lines[labels[jump[1]] + 1 : number]
            if not any(re.match(r"\s+j|\.LBB", inside) for inside in body):
                found.append("\n".join(body))
    return found
