"""A trial: a small library that runs a layer's default and another choice in turns, and times both.

It is a `Plan` like any other, run by the runtime that will run the network: the same threads, chunks and barriers.
Between two samples there are steps that make memory look as it does inside of the network: the weights were last
seen an inference ago, the inputs were written a moment ago.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..kernels.spec import Conv, Spec, stages
from ..lower.lower import kernel_of
from ..lower.plan import ARENA, Kernel, Placement, Plan, Ref, Step, memories
from ..targets import cpu_library
from ..targets.cpu import Cpu
from ..targets.library import RUNTIME
from ..targets.link import CSRC, compile_c, link_program, link_shared, platform
from ..targets.objects import compile_kernels
from ..targets.tables import model_c
from .space import Choice

UNIT = 4096
"""Bytes of a work unit of `csrc/measure.c`."""

SWEEP_BYTES = 4 << 20
"""What every thread reads between two samples: more than the second-level cache of any core holds."""

ENTRIES = ("__tvm_ffi_finish", "__tvm_ffi_measure", "__tvm_ffi_sample")

ROUNDS = 8
"""Samples of each choice in one pass over the steps."""

_MOST_WEIGHTS, _MOST_COLD = 64 << 20, 128 << 20
PREPARE = "prepare"
"""The op of steps that are not timed, as `csrc/measure.c` knows it."""


@dataclass(frozen=True)
class Setting:
    """What a layer finds around it in the network.

    Attributes:
        threads: that run it.
        cold_bytes: weights of the whole network: read between two uses of one layer's.
    """

    threads: int
    cold_bytes: int


@dataclass(frozen=True)
class _Call:
    """A kernel of a choice and the names of the buffers it gets, its output last."""

    spec: Spec
    schedule: Any
    buffers: tuple[str, ...]
    macs: int = 0


def _calls(spec: Spec, choice: Choice, target: Cpu) -> tuple[list[_Call], dict[str, int]]:
    """The kernels of a choice, and the bytes of all buffers that they touch."""
    sizes = {operand.name: operand.bytes for operand in spec.operands}
    if choice.outputs is None or not isinstance(spec, Conv):
        return [_Call(spec.dense(), choice.schedule, tuple(sizes), spec.macs)], sizes
    into, inner, back = (stage.dense() for stage in stages(spec, choice.outputs))
    # what each of them reads and writes: between them two buffers, and constants of the products' own
    extra = {"data" if o.name == "src" else "products" if o.name == "dst" else o.name: o for o in inner.operands}
    extra = {"nothing" if name == "bias" else name: operand for name, operand in extra.items()}
    last = ("products", *(operand.name for operand in back.operands[1:]))
    calls = [
        _Call(into, target.schedule(into), ("src", "data")),
        _Call(inner, choice.schedule, tuple(extra), spec.macs),
        _Call(back, target.schedule(back), last),
    ]
    return calls, sizes | {name: operand.bytes for name, operand in extra.items()}


class Arena:
    """Buffers one after the other in the arena, each at the start of a unit."""

    def __init__(self) -> None:
        self.bytes = 0

    def take(self, size: int) -> int:
        """The offset of `size` fresh bytes. One unit more lies behind: kernels fetch a little ahead."""
        offset = self.bytes
        self.bytes += whole(size) + UNIT
        return offset


def whole(size: int) -> int:
    """`size` bytes as whole units."""
    return -(-size // UNIT) * UNIT


def plan(spec: Spec, choices: Sequence[Choice], target: Cpu, setting: Setting) -> Plan:
    """The steps of a trial: `ROUNDS` samples of each choice, in turns."""
    ways = [_calls(spec, choice, target) for choice in choices]
    names = dict.fromkeys(name for _, found in ways for name in found)
    sizes = {name: max(found[name] for _, found in ways if name in found) for name in names}
    arena = Arena()
    produced = whole(sizes["src"]) + UNIT + whole(sizes.get("add", 0))
    order = ["src", *(["add"] if "add" in sizes else []), *(n for n in sizes if n not in ("src", "add", "weight"))]
    where = {name: arena.take(sizes[name]) for name in order}
    weights = sizes.get("weight", 0)
    panels = [arena.take(weights) for _ in range(max(1, min(ROUNDS * len(ways), _MOST_WEIGHTS // max(1, weights))))]
    sweep = SWEEP_BYTES * setting.threads
    parts = max(1, min(setting.cold_bytes, _MOST_COLD) // sweep)
    region = arena.take(parts * sweep)

    kernels: dict[str, Kernel] = {}
    steps: list[Step] = []

    def prepare(what: str, offset: int, size: int) -> None:
        symbol = f"id_measure_{what}"
        kernels[symbol] = Kernel(symbol, None, None, 1, size // UNIT)
        steps.append(Step(symbol, (Ref(ARENA, offset),), len(steps), (what,), PREPARE, what, size))

    prepare("fill", 0, arena.bytes)
    for number in range(ROUNDS * len(ways)):
        way = chosen(number, len(ways))
        prepare("sweep", region + number % parts * sweep, sweep)
        prepare("produce", where["src"], whole(produced))
        addresses = {**where, "weight": panels[number % len(panels)]}
        for call in ways[way][0]:
            kernel = kernel_of(target, call.spec, call.schedule)
            kernels[kernel.symbol] = kernel
            args = tuple(Ref(ARENA, addresses[name]) for name in call.buffers)
            steps.append(
                Step(kernel.symbol, args, len(steps), ("layer",), f"choice {way}", call.buffers[-1], call.macs)
            )
    placements = tuple(Placement(name, where[name], sizes[name], 0, 0) for name in where)
    table = memories((), (), arena=arena.bytes, weights=0)
    return Plan(target.name, (), (), kernels, tuple(steps), b"", table, placements)


def chosen(number: int, choices: int) -> int:
    """Which of the choices sample `number` of a pass is of."""
    turn, place = divmod(number, choices)
    return (place + turn) % choices


def build(
    spec: Spec, choices: Sequence[Choice], target: Cpu, setting: Setting, path: Path, *, program: bool = False
) -> None:
    """Write a trial's library to `path`, or a program that takes threads and passes and prints the samples of each.

    Raises:
        DeployError: ``link``, where zig is missing or fails.
    """
    made = plan(spec, choices, target, setting)
    triple = target.isa.triple
    own = [kernel for kernel in made.kernels.values() if kernel.spec is not None]
    objects = compile_kernels(own, target.tvm_target())
    part = cpu_library.part(made, objects, made.kernels.keys() - objects.keys())
    own_sources = ["measure.c", "measure_main.c"] if program else ["measure.c", *platform(triple).sources]
    sources = [*RUNTIME, *part.sources, *own_sources]
    texts = {name: (CSRC / name).read_text(encoding="utf-8") for name in sources}
    runtime = [compile_c(text, name, triple, musl=program) for name, text in texts.items()]
    tables = compile_c(model_c(made, [part], target.isa.features), "model.c", triple)
    if program:
        link_program([*runtime, tables, *part.objects], path, triple)
    else:
        link_shared([tables, *runtime, *part.objects], ENTRIES, path, triple)
