"""The device `cuda` of a library: cubins, and tables of launches, with what each waits for, for `csrc/cuda_device.c`.

The library needs the C library alone; NVIDIA's driver library is looked for when a model is opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from inception_deploy.errors import DeployError
from inception_deploy.kernels.family import COUNTERS, SCRATCH, Program
from inception_deploy.kernels.table import BY_NAME
from inception_deploy.lower.depend import Access, dependencies, scratch_places
from inception_deploy.lower.plan import ALIGNMENT, GPU, Kernel, Memory, MemoryKind, Plan, Ref

from . import library
from .link import compile_c
from .tables import Part, arg, string, table

DEVICE = GPU

SOURCES = ("cuda_device.c", "cuda_driver.c", "cuda_staging.c", "cuda_weights.c")
"""The parts of `csrc` that only this device needs."""
_SCRATCH = Memory("scratch", DEVICE, MemoryKind.SCRATCH, 0)
_COUNTERS = Memory("counters", DEVICE, MemoryKind.COUNTERS, 0)


def write_library(
    plan: Plan,
    cubins: Mapping[str, Mapping[str, bytes]],
    folder: Path,
    *,
    triple: str,
    others: Sequence[Plan] = (),
) -> list[str]:
    """`library.write_library` of plans whose every step is on a GPU. Each gets the scratch memory that launches pass
    things on through, and their counters.

    Args:
        cubins: for every architecture (``sm_80``), the machine code of every symbol of the plans' kernels.
        others: further plans of the same network, with the same weights.

    Raises:
        DeployError: ``plan``, where a plan contradicts itself or lacks code; ``link``, where zig is missing or fails.
    """
    plans = [whole(one) for one in (plan, *others)]
    for one in plans:
        library.check(one)
    embedded = code(sorted({symbol for one in plans for symbol in _symbols(one)}), cubins, triple)
    built = [(one, [part(one, list(cubins), embedded)]) for one in plans]
    return library.write_library(*built[0], folder, triple=triple, others=built[1:])


def whole(plan: Plan) -> Plan:
    """The plan with rows for scratch memory and counters."""
    _, size = _scratch(plan)
    _, counted = _counters(plan)
    more = (replace(_SCRATCH, bytes=size), replace(_COUNTERS, bytes=counted))
    return replace(plan, memories=(*plan.memories, *more))


def _symbols(plan: Plan) -> list[str]:
    return sorted({step.kernel for step in plan.steps if step.device == DEVICE})


def code(symbols: Sequence[str], cubins: Mapping[str, Mapping[str, bytes]], triple: str) -> bytes:
    """An object file with the machine code of kernels for each architecture.

    Raises:
        DeployError: ``plan``, where there is no code of a kernel for an architecture.
    """
    for arch, images in cubins.items():
        if missing := sorted(set(symbols) - images.keys()):
            raise DeployError(f"no code of {missing[0]} for {arch}", kind="plan", got=len(images))
    texts = [images_c(symbol, {arch: images[symbol] for arch, images in cubins.items()}) for symbol in symbols]
    return compile_c("\n".join(texts), "images.c", triple, flags=("-Wno-overlength-strings",))


def part(plan: Plan, archs: Sequence[str], embedded: bytes) -> Part:
    """The plan's steps on a GPU; the plan has rows for scratch memory and counters.

    Args:
        archs: that there is code for.
        embedded: `code` of the kernels.
    """
    steps = {number: step for number, step in enumerate(plan.steps) if step.device == DEVICE}
    symbols = _symbols(plan)
    programs = {symbol: program(plan.kernels[symbol]) for symbol in symbols}

    first_function: dict[str, int] = {}
    functions: list[str] = []
    for module, symbol in enumerate(symbols):
        first_function[symbol] = len(functions)
        functions += [f"{{{string(name)}, {module}u}}" for name in programs[symbol].symbols(symbol)]

    places, _ = _scratch(plan)
    counters, _ = _counters(plan)
    waits = _waits(plan, places)
    args: list[str] = []
    launches: list[str] = []
    after: list[str] = []
    does: list[str] = []
    last: dict[int, int] = {}  # of a step, its last launch
    for at, step in steps.items():
        its = programs[step.kernel].launches
        does.append(f"{{{len(launches)}u, {len(its)}u}}")
        for number, launch in enumerate(its):
            grid = ", ".join(f"{extent}u" for extent in launch.grid)
            function = first_function[step.kernel] + number
            before = [last[other] for other in waits[at] if other in last] if number == 0 else [len(launches) - 1]
            row = f"{function}u, {{{grid}}}, {launch.block[0]}u, {len(args)}u, {len(after)}u, {len(before)}u"
            launches.append(f"{{{row}}}")
            extra = {SCRATCH: places[at], COUNTERS: counters[at]}
            refs = [extra[index] if index in extra else step.args[index] for index in launch.args]
            args += [arg(plan, ref) for ref in refs]
            after += [f"{other}u" for other in before]
        last[at] = len(launches) - 1

    rows = {
        "functions": ("id_cuda_function", functions),
        "launches": ("id_cuda_launch", launches),
        "args": ("id_arg", args),
        "after": ("uint32_t", after),
        "code": ("id_cuda_code", does),
        "architectures": ("id_cuda_architecture", [_architecture(arch) for arch in archs]),
    }
    declared = [line for arch in archs for line in _images(symbols, arch)]
    for name, (ctype, lines) in rows.items():
        if lines or name != "code":  # an unused variable is an error
            declared += table(f"const {ctype}", f"cuda_{name}", lines)
    declared += [
        "static const id_cuda_tables cuda_tables = {",
        *(f"    .{name} = cuda_{name}," for name in rows if name != "code"),
        f"    .arg_count = {len(args)},",
        f"    .launch_count = {len(launches)},",
        f"    .function_count = {len(functions)},",
        f"    .module_count = {len(symbols)},",
        f"    .architecture_count = {len(archs)},",
        "};",
    ]
    return Part(
        device=DEVICE,
        sources=SOURCES,
        include="cuda_tables.h",
        symbol="id_cuda_device",
        declared=declared,
        code={number: f"&cuda_code[{row}]" for row, number in enumerate(steps)},
        tables="&cuda_tables",
        objects=[embedded],
        dl=True,
    )


def _scratch_sizes(plan: Plan) -> list[int]:
    """Bytes that the launches of each step pass on to each other."""
    needed = {
        symbol: program(kernel).scratch for symbol, kernel in plan.kernels.items() if BY_NAME[kernel.family].program
    }
    return [needed[step.kernel] if step.device == DEVICE else 0 for step in plan.steps]


def _scratch(plan: Plan) -> tuple[list[Ref], int]:
    """Where each step's scratch memory is, and how much all of it takes."""
    return scratch_places(plan, _scratch_sizes(plan), _SCRATCH.name, ALIGNMENT)


def _counters(plan: Plan) -> tuple[list[Ref], int]:
    """Where each step's counters are, and the bytes of all: no two steps share one, so they may run side by side."""
    needed = {
        symbol: program(kernel).counters for symbol, kernel in plan.kernels.items() if BY_NAME[kernel.family].program
    }
    places, size = [], 0
    for step in plan.steps:
        places.append(Ref(_COUNTERS.name, size))
        size += 4 * needed[step.kernel] if step.device == DEVICE else 0
    return places, size


def _waits(plan: Plan, places: Sequence[Ref]) -> tuple[tuple[int, ...], ...]:
    """For each step, those that it waits for; scratch memory that two take in turn, at `places`, counts."""
    used = [
        [Access(place.memory, place.offset, place.offset + size, True)] if size else []
        for place, size in zip(places, _scratch_sizes(plan), strict=True)
    ]
    return dependencies(plan, used)


def _architecture(arch: str) -> str:
    major, minor = version(arch)
    return f"{{{major}, {minor}, images_{arch}}}"


def _images(symbols: Sequence[str], arch: str) -> list[str]:
    """Declarations of every kernel's cubin for an architecture, and their table."""
    names = [f"{symbol}_{arch}" for symbol in symbols]
    declared = [f"extern const unsigned char {name}[];" for name in names]
    return declared + table("const unsigned char *const", f"images_{arch}", names)


def program(kernel: Kernel) -> Program:
    """The launches of a plan's kernel."""
    launches = BY_NAME[kernel.family].program
    if launches is None:
        raise DeployError(f"kernel {kernel.symbol} is of {kernel.family}, not of a GPU", kind="plan", got=kernel.family)
    return launches(kernel.spec, kernel.schedule)


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
