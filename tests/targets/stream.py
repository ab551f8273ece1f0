"""A device for tests that executes command streams, beside the host: `c/stream_device.c`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from inception_deploy.lower.plan import Kernel, Memory, MemoryKind, Plan, Port, Ref, Step, memories
from inception_deploy.targets import link
from inception_deploy.targets.tables import Part, table

C = Path(__file__).parent / "c"
COUNT = 4096
BYTES = 4 * COUNT
DEVICE = "stream"
FAILING = ("", "OPEN", "ADDRESS", "BEGIN", "RUN", "WAIT", "FINISH")

_HEADER = (C / "stream_device.h").read_text()
_COMMANDS = {"gather": "{STREAM_GATHER, 0u, 1u, 2u}", "trap": "{STREAM_TRAP, 0u, 0u, 0u}"}
WEIGHT = np.arange(COUNT, dtype="<f4").tobytes()
PIXELS, OUT = Port("pixels", (1, COUNT)), Port("out0", (COUNT,))


def part(plan: Plan, triple: str, fails: str = "") -> Part:
    """What a library has of the device. `fails`: one of its functions that fails, once."""
    text = (C / "stream_device.c").read_text().replace('#include "stream_device.h"', _HEADER)
    steps = {number: step for number, step in enumerate(plan.steps) if step.device == DEVICE}
    declared = _HEADER.splitlines()
    for name, command in _COMMANDS.items():
        if any(step.kernel == name for step in steps.values()):
            declared += table("const stream_command", f"{name}_commands", [command, "{STREAM_END, 0u, 0u, 0u}"])
            declared += table("const stream_code", name, [f"{{{name}_commands}}"])
    declared += table("const stream_tables", "told", [f"{{{f'STREAM_{fails}' if fails else 0}}}"])
    return Part(
        device=DEVICE,
        sources=(),
        include="device.h",
        symbol="stream_device",
        declared=declared,
        code={number: step.kernel for number, step in steps.items()},
        tables="told",
        objects=[link.compile_c(text, "stream_device.c", triple)],
    )


def rows(*extra: Memory, ports: str = "cpu") -> tuple[Memory, ...]:
    """The host's table, the ports some device's, and what the stream has: two arrays of `dram`, and its own weights."""
    table_ = memories((PIXELS,), (OUT,), arena=2 * BYTES, weights=BYTES)
    table_ = tuple(replace(m, device=ports) if m.kind in (MemoryKind.INPUT, MemoryKind.OUTPUT) else m for m in table_)
    dram = Memory("dram", DEVICE, MemoryKind.ARENA, 2 * BYTES)
    return (*table_, dram, Memory("stream weights", DEVICE, MemoryKind.WEIGHTS, BYTES, first=BYTES), *extra)


def plan(steps: tuple[Step, ...], table_: tuple[Memory, ...] | None = None) -> Plan:
    kernels = {"t_gather": Kernel("t_gather", None, None, 3, COUNT // 16)}
    kernels |= {name: Kernel(name, None, None, 3, 1) for name in _COMMANDS}
    return Plan("stream", (PIXELS,), (OUT,), kernels, steps, WEIGHT + WEIGHT, table_ or rows())


def step(number: int, device: str, source: Ref, goal: Ref, kernel: str = "gather") -> Step:
    """A gather of one of the devices."""
    on_stream = device == DEVICE
    args = (source, Ref("stream weights" if on_stream else "weights", 0), goal)
    symbol = kernel if on_stream else "t_gather"
    return Step(symbol, args, number, (f"{device}{number}",), "gather", f"v{number}", 10_000_000, device=device)


def chain(devices: str) -> Plan:
    """Gathers, one after the other, each on the device of a letter: h(ost) or s(tream). The host's are first and last."""
    steps = []
    for number, letter in enumerate(devices):
        source = Ref("dram", number % 2 * BYTES) if number else Ref("input:0", 0)
        goal = Ref("dram", (number + 1) % 2 * BYTES) if number + 1 < len(devices) else Ref("output:0", 0)
        steps.append(step(number, DEVICE if letter == "s" else "cpu", source, goal))
    return plan(tuple(steps))
