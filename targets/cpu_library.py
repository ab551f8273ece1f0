"""The device `cpu` of a library: kernels as object files, run by a team of threads (`csrc/cpu_device.c`)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from inception_deploy.errors import DeployError
from inception_deploy.lower.plan import HOST, Plan

from .library import check
from .tables import Part, table

SOURCES = ("chunks.c", "cpu_device.c", "threads.c", "tvm_hooks.c")
"""The parts of `csrc` that only this device needs."""

_MACS_PER_BYTE = 8
"""How many multiply-adds a core does while it writes one byte of a step that computes next to nothing."""


def part(plan: Plan, objects: Mapping[str, bytes | Path], elsewhere: Collection[str] = ()) -> Part:
    """The plan's steps on the CPU.

    Args:
        objects: an ELF object file (its content, or where it lies) for the symbol of every kernel of those steps;
            several symbols may name the same one.
        elsewhere: symbols that the library gets from something else.

    Raises:
        DeployError: ``plan``, where the plan contradicts itself or a kernel has no object.
    """
    check(plan)
    steps = {number: step for number, step in enumerate(plan.steps) if step.device == HOST}
    symbols = sorted({step.kernel for step in steps.values()})
    if missing := sorted(set(symbols) - set(elsewhere) - objects.keys()):
        raise DeployError(f"no compiled kernel for {', '.join(missing[:3])}", kind="plan", got=len(objects))
    times = costs(plan)
    rows = []
    for number, step in steps.items():
        rows.append(f"{{{step.kernel}, UINT64_C({times[number]}), {plan.kernels[step.kernel].units}}}")
    declared = [f"extern int32_t {symbol}(void *const *, int32_t, int32_t);" for symbol in symbols]
    return Part(
        device=HOST,
        sources=SOURCES,
        include="cpu_tables.h",
        symbol="id_cpu_device",
        declared=[*declared, *(table("const id_cpu_code", "cpu_code", rows) if rows else [])],
        code={number: f"&cpu_code[{row}]" for row, number in enumerate(steps)},
        objects=list(dict.fromkeys(_content(objects[symbol]) for symbol in symbols if symbol in objects)),
    )


def _content(item: bytes | Path) -> bytes:
    return item if isinstance(item, bytes) else Path(item).read_bytes()


def costs(plan: Plan) -> list[int]:
    """How long each step takes compared with the others, in multiply-adds. The runtime balances the threads with it."""
    written = {placement.value: placement.bytes for placement in plan.placements}
    written.update({port.name: port.bytes for port in plan.outputs})
    return [max(step.macs, _MACS_PER_BYTE * written.get(step.output, 0), 1) for step in plan.steps]
