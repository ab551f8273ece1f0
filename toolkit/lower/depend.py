"""Which steps of a plan have to be done before which: from what each reads and writes, wherever that lies.

A plan's waves put a barrier between all steps of one and all of the next. A device that knows the true order may run
branches side by side: a step waits for the last writer of what it reads, and before it writes over something for that
one's readers and writer. Places are counted in bytes, so memory that two values take in turn orders their steps, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .plan import Plan, Ref, Step


@dataclass(frozen=True)
class Access:
    """Bytes ``first <= b < end`` of a memory that a step reads or writes."""

    memory: str
    first: int
    end: int
    writes: bool


def accesses(plan: Plan, step: Step) -> list[Access]:
    """What a step reads and writes, in the order of its arguments; a kernel without a spec reads and writes it all."""
    kernel = plan.kernels[step.kernel]
    if kernel.spec is None:
        sizes = {memory.name: memory.bytes for memory in plan.memories}
        return [Access(ref.memory, 0, sizes[ref.memory], True) for ref in step.args]
    batch = int(getattr(kernel.spec, "batch", 1))
    found = []
    for ref, operand in zip(step.args, kernel.spec.operands, strict=True):
        bytes_ = operand.bytes
        stride = kernel.spec.stride_of(operand)
        if batch > 1 and stride:
            bytes_ = (batch - 1) * stride * np.dtype(operand.dtype).itemsize + bytes_ // batch
        found.append(Access(ref.memory, ref.offset, ref.offset + bytes_, operand.role == "output"))
    return found


def dependencies(plan: Plan, scratch: Sequence[Sequence[Access]] = ()) -> tuple[tuple[int, ...], ...]:
    """For every step, the numbers of those that it waits for, as few as say it all.

    Args:
        scratch: what each step writes and reads beside its arguments.
    """
    touched = [accesses(plan, step) for step in plan.steps]
    for number, more in enumerate(scratch):
        touched[number] += more
    weights = {memory.name for memory in plan.memories if memory.kind.value == "weights"}
    by_memory: dict[str, list[tuple[int, int, int, bool]]] = {}
    before: list[set[int]] = []  # of each step, all that are done when it starts
    found: list[tuple[int, ...]] = []
    for number, those in enumerate(touched):
        direct: set[int] = set()
        for access in those:
            if access.memory in weights:
                continue
            for earlier, first, end, writes in by_memory.get(access.memory, ()):
                if first < access.end and access.first < end and (writes or access.writes):
                    direct.add(earlier)
        needed: list[int] = []
        known: set[int] = set()
        for earlier in sorted(direct, reverse=True):  # what comes later has more before it
            if earlier not in known:
                needed.append(earlier)
                known |= before[earlier] | {earlier}
        before.append(known)
        found.append(tuple(sorted(needed)))
        for access in those:
            by_memory.setdefault(access.memory, []).append((number, access.first, access.end, access.writes))
    return tuple(found)


def scratch_places(plan: Plan, sizes: Sequence[int], memory: str, alignment: int) -> tuple[list[Ref], int]:
    """A place in a scratch memory for each step that needs one, such that steps of one wave do not share it.

    Args:
        sizes: bytes that each step needs; 0 for none.

    Returns:
        The places, and the size of the memory.
    """
    places, size, wave, top = [], 0, -1, 0
    for step, wanted in zip(plan.steps, sizes, strict=True):
        if step.wave != wave:
            wave, top = step.wave, 0
        places.append(Ref(memory, top if wanted else 0))
        top += -(-wanted // alignment) * alignment
        size = max(size, top)
    return places, size
