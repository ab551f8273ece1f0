"""A `Plan` as a shared library for GPUs: generated tables with the cubins in them, and the C runtime that launches
them.

The interface is the one of a CPU's library (`csrc/inception_deploy.h`). The library needs the C library alone;
NVIDIA's driver library is looked for when a model is opened.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from inception_deploy.errors import DeployError
from inception_deploy.kernels.gpu.emit import SCRATCH, Program
from inception_deploy.kernels.gpu.table import TEMPLATES, device_symbols
from inception_deploy.lower.plan import Kernel, Plan

from .library import EXPORTS, HEADER, LIBRARY, SPACES, WEIGHTS, check, info_c, string, table
from .link import CSRC, compile_c, link_shared

RUNTIME = ("common.c", "cpu_features.c", "cuda_driver.c", "cuda_runtime.c")
"""The parts of `csrc` that run a model on a GPU."""

_SCRATCH_SPACE = 4  # ID_SPACE_SCRATCH


def write_library(plan: Plan, cubins: Mapping[str, Mapping[str, bytes]], folder: Path, *, triple: str) -> list[str]:
    """Write `model.so`, `weights.bin` and the C header into `folder`. Equal arguments give equal bytes.

    Args:
        plan: what to run.
        cubins: for every architecture (``sm_80``), the machine code of every symbol of `plan.kernels`.
        folder: an existing folder.
        triple: the host's, a key of `link.PLATFORMS`.

    Returns:
        The names of the files written.

    Raises:
        DeployError: ``plan``, where the plan contradicts itself; ``link``, where zig is missing or fails.
    """
    check(plan)
    for arch, images in cubins.items():
        if missing := sorted(plan.kernels.keys() - images.keys()):
            raise DeployError(f"no code of {missing[0]} for {arch}", kind="plan", got=len(images))
    sources = {name: (CSRC / name).read_text(encoding="utf-8") for name in RUNTIME}
    objects = [compile_c(text, name, triple) for name, text in sources.items()]
    objects.append(compile_c(tables_c(plan, list(cubins)), "model_cuda.c", triple))
    texts = [
        images_c(symbol, {arch: images[symbol] for arch, images in cubins.items()}) for symbol in sorted(plan.kernels)
    ]
    objects.append(compile_c("\n".join(texts), "images.c", triple, flags=("-Wno-overlength-strings",)))
    link_shared(objects, EXPORTS, folder / LIBRARY, triple, dl=True)
    (folder / WEIGHTS).write_bytes(plan.weights)
    shutil.copyfile(CSRC / HEADER, folder / HEADER)
    return [LIBRARY, WEIGHTS, HEADER]


def program(kernel: Kernel) -> Program:
    """The launches of a plan's kernel."""
    return TEMPLATES[type(kernel.spec)].program(kernel.spec, kernel.schedule)


def version(arch: str) -> tuple[int, int]:
    """Major and minor compute capability: (8, 0) of ``sm_80``."""
    number = int(arch.removeprefix("sm_"))
    return number // 10, number % 10


def images_c(symbol: str, images: Mapping[str, bytes]) -> str:
    """The C source of one kernel's cubins, named ``<symbol>_<arch>``."""
    lines = []
    for arch, data in images.items():
        lines.append(f"extern const unsigned char {symbol}_{arch}[{len(data)}];")
        # the driver reads ELF structures of 8-byte fields in place
        lines.append(f"_Alignas(64) const unsigned char {symbol}_{arch}[{len(data)}] =")
        for start in range(0, len(data), 4096):
            lines.append('"' + "".join(_BYTES[b] for b in data[start : start + 4096]) + '"')
        lines.append(";")
    return "\n".join([*lines, ""])


_BYTES = [f"\\{value:03o}" for value in range(256)]


def tables_c(plan: Plan, archs: Sequence[str]) -> str:
    """The C source of the tables that `csrc/cuda_tables.h` declares. It depends on the arguments only."""
    symbols = sorted(plan.kernels)
    programs = {symbol: program(plan.kernels[symbol]) for symbol in symbols}
    described, fields = info_c(plan)
    lines = ["/* Generated; the model's tables. */", "#include <stddef.h>", '#include "cuda_tables.h"', "", *described]

    first_function: dict[str, int] = {}
    functions: list[str] = []
    for module, symbol in enumerate(symbols):
        first_function[symbol] = len(functions)
        functions += [f"{{{string(name)}, {module}u}}" for name in device_symbols(symbol, programs[symbol])]
    lines += table("const id_device_function", "functions", functions)

    args: list[str] = []
    launches: list[str] = []
    first_launch = ["0u"]
    for step in plan.steps:
        for number, launch in enumerate(programs[step.kernel].launches):
            grid = ", ".join(f"{extent}u" for extent in launch.grid)
            function = first_function[step.kernel] + number
            launches.append(f"{{{function}u, {{{grid}}}, {launch.block[0]}u, {len(args)}u, {len(launch.args)}u}}")
            for index in launch.args:
                ref = step.args[index] if index != SCRATCH else None
                args.append(
                    f"{{UINT64_C({ref.offset}), {SPACES[ref.space]}, {ref.index}}}"
                    if ref
                    else f"{{0, {_SCRATCH_SPACE}, 0}}"
                )
        first_launch.append(f"{len(launches)}u")
    lines += table("const id_arg", "args", args)
    lines += table("const id_launch", "launches", launches)
    lines += table("const uint32_t", "first_launch", first_launch)

    rows = []
    for arch in archs:
        lines += [f"extern const unsigned char {symbol}_{arch}[];" for symbol in symbols]
        lines += table("const unsigned char *const", f"images_{arch}", [f"{symbol}_{arch}" for symbol in symbols])
        major, minor = version(arch)
        rows.append(f"{{{major}, {minor}, images_{arch}}}")
    lines += table("const id_architecture", "architectures", rows)
    lines += ["const id_tables id_model_tables = {", *fields, "    .calls = NULL,", "    .args = NULL,", "};"]
    cuda = {
        "first_launch": "first_launch",
        "launches": "launches",
        "args": "args",
        "functions": "functions",
        "architectures": "architectures",
        "arg_count": len(args),
        "function_count": len(functions),
        "module_count": len(symbols),
        "architecture_count": len(archs),
        "scratch_bytes": f"UINT64_C({max((p.scratch for p in programs.values()), default=0)})",
    }
    lines += [
        "const id_cuda_tables id_model_cuda = {",
        *(f"    .{name} = {value}," for name, value in cuda.items()),
        "};",
        "",
    ]
    return "\n".join(lines)
