"""A trial on a GPU: as `trial`, with launches for steps, timed by the driver's events.

Between two samples other memory is read and written, so much that nothing is left in the second-level cache, and then
the inputs are written, as the layer before does. A launch may take no longer than a few of the clock's ticks, so a
sample is several of them, each with weights of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..kernels.elements import BLOCK
from ..kernels.spec import Conv, Map, Spec
from ..lower.lower import kernel_of
from ..lower.plan import ARENA, GPU, Kernel, Plan, Ref, Step, memories
from ..targets import cuda_library
from ..targets.cuda import Cuda, host_triple
from ..targets.cuda_compile import compile_kernels
from ..targets.library import RUNTIME
from ..targets.link import CSRC, compile_c, link_shared, platform
from ..targets.tables import model_c
from .space import Choice
from .trial import ENTRIES, PREPARE, ROUNDS, Arena, chosen, whole

LAUNCHES = 8
"""Of a sample."""

_MOST_WEIGHTS = 64 << 20
_PIXEL = 4 * BLOCK
"""Bytes of a pixel of fp32."""


def plan(spec: Spec, choices: Sequence[Choice], target: Cuda) -> Plan:
    """The steps of a trial: `ROUNDS` samples of each choice, in turns."""
    dense = spec.dense()
    sizes = {operand.name: operand.bytes for operand in dense.operands}
    if isinstance(dense, Conv):
        shape = (dense.out_channels, dense.channels, *dense.kernel)
        empty = np.zeros(shape, np.float32)
        sizes["weight"] = max(target.pack_weight(empty, dense, choice.schedule).nbytes for choice in choices)
    arena = Arena()
    produced = whole(sizes["src"]) + whole(sizes.get("add", 0))
    first = arena.take(produced)
    where = {"src": first, "add": first + whole(sizes["src"])}
    where |= {name: arena.take(size) for name, size in sizes.items() if name not in ("src", "add", "weight")}
    weight = sizes.get("weight", 0)
    panels = [arena.take(weight) for _ in range(max(1, min(LAUNCHES, _MOST_WEIGHTS // max(1, weight))))]
    before = arena.take(produced)
    level2 = whole(target.isa.of_card.level2_bytes)
    swept, sweeping = arena.take(level2), arena.take(level2)

    kernels: dict[str, Kernel] = {}
    steps: list[Step] = []

    def add(kernel: Kernel, offsets: Sequence[int], op: str, macs: int = 0) -> None:
        kernels[kernel.symbol] = kernel
        args = tuple(Ref(ARENA, offset) for offset in offsets)
        steps.append(Step(kernel.symbol, args, len(steps), ("layer",), op, op, macs, GPU))

    def copy(size: int, source: int, to: int, op: str = "identity") -> None:
        # of zeros the sigmoid is a half, which is a number in every element
        add(kernel_of(target, Map(op, 1, 1, size // _PIXEL).dense()), (source, to), PREPARE)

    copy(produced, before, before, "sigmoid")
    for panel in panels if weight else []:
        copy(whole(weight), panel, panel, "sigmoid")
    for number in range(ROUNDS * len(choices)):
        way = chosen(number, len(choices))
        copy(level2, swept, sweeping)
        copy(produced, before, first)
        kernel = kernel_of(target, dense, choices[way].schedule)
        for launch in range(LAUNCHES):
            offsets = {**where, "weight": panels[launch % len(panels)]}
            add(kernel, [offsets[operand.name] for operand in dense.operands], f"choice {way}", spec.macs)
    table = memories((), (), arena=arena.bytes, weights=0, device=GPU)
    return Plan(target.name, (), (), kernels, tuple(steps), b"", table, ())


def build(spec: Spec, choices: Sequence[Choice], target: Cuda, path: Path) -> None:
    """Write a trial's library to `path`.

    Raises:
        DeployError: ``compiler``, where NVIDIA's is missing or fails; ``link``, where zig is or does.
    """
    made = cuda_library.whole(plan(spec, choices, target))
    triple = host_triple()
    cubins = compile_kernels(made.kernels.values(), target.archs)
    part = cuda_library.part(made, list(cubins), cuda_library.code(sorted(made.kernels), cubins, triple))
    sources = [*RUNTIME, *part.sources, "measure.c", *platform(triple).sources]
    runtime = [compile_c((CSRC / name).read_text(encoding="utf-8"), name, triple) for name in dict.fromkeys(sources)]
    tables = compile_c(model_c(made, [part]), "model.c", triple)
    link_shared([tables, *runtime, *part.objects], ENTRIES, path, triple, dl=True)
