"""What a bundle for a VTA holds beside its libraries: streams, micro-operations and a map of memory, as plain files
that other people's tools read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from inception_deploy.kernels.vta import isa
from inception_deploy.kernels.vta.config import Config
from inception_deploy.lower.plan import Memory, MemoryKind, Plan, Ref, Step
from inception_deploy.targets.library import WEIGHTS

from . import pieces
from .pieces import DEVICE, RELOCATIONS, STREAMS, UOPS, Stream

FOLDER = "vta"
MAP = f"{FOLDER}/memory.json"
CONFIGURATION = f"{FOLDER}/config.json"

_RELOCATION = ("instruction: 4 bytes", "memory, by its number: 2 bytes", "bytes of an element: 2 bytes")


def files(plan: Plan, streams: Sequence[Stream], config: Config) -> dict[str, bytes]:
    """The files by their names.

    Args:
        plan: as `pieces.with_streams` gives it. streams: the same.
    """
    found = {CONFIGURATION: _json(config.document()), f"{FOLDER}/uops.bin": _content(plan, UOPS)}
    code, tables = _content(plan, STREAMS), _content(plan, RELOCATIONS)
    rows = []
    first = table = 0
    for number, (steps, stream) in enumerate(zip(pieces.spans(plan), streams, strict=True)):
        names = f"{FOLDER}/stream{number}.bin", f"{FOLDER}/stream{number}.relocations.bin"
        size, entries = len(stream.instructions), 8 * len(stream.relocations)
        found |= dict(zip(names, (code[first : first + size], tables[table : table + entries]), strict=True))
        first, table = first + pieces.whole(size), table + pieces.whole(entries)
        seen = pieces.seen(plan, steps)
        rows.append(
            {
                "instructions": names[0],
                "relocations": names[1],
                "count": size // isa.WORDS,
                "steps": [_step(plan, plan.steps[n], row) for n, row in zip(steps, stream.steps, strict=True)],
                "flush_before": [_row(r) for r in seen[0]],
                "invalidate_after": [_row(r) for r in seen[1]],
            }
        )
    document = {
        "version": 1,
        "configuration": CONFIGURATION,
        "memories": [_memory(n, m) for n, m in enumerate(plan.memories) if m.device == DEVICE],
        "allocations": [_row(r) for memory in plan.memories for r in pieces.pieces(plan, memory, config)],
        "relocation": {"bytes": 8, "little_endian": True, "fields": list(_RELOCATION)},
        "streams": rows,
    }
    return {**found, MAP: _json(document)}


def _content(plan: Plan, name: str) -> bytes:
    memory = next(m for m in plan.memories if m.name == name)
    return plan.weights[memory.first : memory.first + memory.bytes]


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=1) + "\n").encode()


def _memory(number: int, memory: Memory) -> dict[str, Any]:
    """Weights lie in a file; what else there is starts as zeros."""
    found = {"number": number, "name": memory.name, "kind": memory.kind.value, "bytes": memory.bytes}
    return {**found, "file": WEIGHTS, "offset": memory.first} if memory.kind is MemoryKind.WEIGHTS else found


def _row(found: pieces.Range) -> dict[str, Any]:
    return {"memory": found.memory, "offset": found.offset, "bytes": found.bytes}


def _step(plan: Plan, step: Step, row: pieces.StepRange) -> dict[str, Any]:
    spec = plan.kernels[step.kernel].spec
    operands = [] if spec is None else spec.operands
    given = [_operand(ref, operand) for ref, operand in zip(step.args, operands, strict=True)] if operands else []
    found = {"name": step.name, "op": step.op, "first": row.first, "end": row.end, "operands": given}
    return found if spec is None else {**found, "spec": spec.encode()}


def _operand(ref: Ref, operand: Any) -> dict[str, Any]:
    where = {"memory": ref.memory, "offset": ref.offset, "bytes": operand.bytes}
    return {"name": operand.name, "role": operand.role, "element": operand.dtype, **where}
