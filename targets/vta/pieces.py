"""The pieces of a plan that a VTA works on: what is assembled for it, where that lies, what its driver allocates, and
what the host's cache may hold of it.

Streams, micro-operations and weights lie in the weights file. A stream addresses bytes of the plan's memories; physical
addresses are put in when a model is opened, because only a board's driver knows them.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Protocol

from inception_deploy.errors import DeployError
from inception_deploy.kernels.vta import isa
from inception_deploy.kernels.vta.config import Config
from inception_deploy.lower.plan import ALIGNMENT, HOST, Memory, MemoryKind, Plan, Ref, Step

DEVICE = "vta"

UOPS, STREAMS, RELOCATIONS = "vta:uops", "vta:streams", "vta:relocations"
"""The memories of a plan that hold what was assembled."""

LARGEST = 32 << 20
"""Bytes that a driver allocates at once, at most."""

_NEVER_ALLOCATED = (STREAMS, RELOCATIONS)
"""A stream is allocated by itself; relocations are read on the way."""

_PAGE = 256
"""Where micro-operations of a stream begin, and what a stream or table of relocations is filled up to."""

_LINE = 64
"""Bytes of a line of a processor's cache, at most."""


class StepRange(Protocol):
    """The instructions of a step: `first` to `end - 1` of its stream."""

    @property
    def first(self) -> int: ...
    @property
    def end(self) -> int: ...


class Stream(Protocol):
    """What the assembler makes of the steps of a span.

    Attributes:
        instructions: 16 bytes each; `dram_base` counts elements from the begin of the memory that is meant.
        uops: 4 bytes each.
        relocations: of every instruction that addresses DRAM: its number, the name of the memory (``uops`` for the
            stream's own micro-operations) and the bytes of the memory's elements.
        steps: the instructions of every step of the span, in order.
    """

    @property
    def instructions(self) -> bytes: ...
    @property
    def uops(self) -> bytes: ...
    @property
    def relocations(self) -> Sequence[tuple[int, str, int]]: ...
    @property
    def steps(self) -> Sequence[StepRange]: ...


def spans(plan: Plan) -> list[list[int]]:
    """The numbers of the steps of each of the plan's streams."""
    runs = groupby(enumerate(plan.steps), key=lambda numbered: numbered[1].device)
    return [[number for number, _ in steps] for device, steps in runs if device == DEVICE]


def with_streams(plan: Plan, streams: Sequence[Stream], config: Config) -> Plan:
    """The plan with what was assembled for its spans in its weights.

    Args:
        streams: one for each of `spans`, in order.

    Raises:
        DeployError: (kind ``plan``) a stream does not fit the plan.
    """
    check(plan, streams)
    memories = {memory.name: number for number, memory in enumerate(plan.memories)}
    memories["uops"] = len(memories)
    uops, code, tables = bytearray(), bytearray(), bytearray()
    for stream in streams:
        instructions = bytearray(stream.instructions)
        for number, name, element in stream.relocations:
            if name == "uops":
                _add_to_base(instructions, number, len(uops) // element, config)
            if name not in memories:
                raise DeployError(f"a stream addresses {name}, which the plan lacks", kind="plan", got=name)
            tables += struct.pack("<IHH", number, memories[name], element)
        for whole, part_ in ((uops, stream.uops), (code, instructions), (tables, b"")):
            whole += part_
            whole += bytes(-len(whole) % _PAGE)
    weights = bytearray(plan.weights)
    rows = []
    for name, data in ((UOPS, uops), (STREAMS, code), (RELOCATIONS, tables)):
        weights += bytes(-len(weights) % ALIGNMENT)
        rows.append(Memory(name, DEVICE, MemoryKind.WEIGHTS, len(data), first=len(weights)))
        weights += data
    return replace(plan, weights=bytes(weights), memories=(*plan.memories, *rows))


def _add_to_base(instructions: bytearray, number: int, count: int, config: Config) -> None:
    place = isa.places("memory", config)["dram_base"]
    at = number * isa.WORDS
    words = list(struct.unpack_from("<2Q", instructions, at))
    base = place.read(words) + count
    words[place.word] = words[place.word] & ~(((1 << place.width) - 1) << place.shift) | place.write(base)
    struct.pack_into("<2Q", instructions, at, *words)


def check(plan: Plan, streams: Sequence[Stream]) -> None:
    """DeployError ``plan`` where the streams are not those of the plan."""
    wanted = [len(steps) for steps in spans(plan)]
    got = [len(stream.steps) for stream in streams]
    if wanted != got:
        raise DeployError("the streams are not those of the plan", kind="plan", got=got, allowed=wanted)


def first_of(plan: Plan, name: str) -> int:
    """Where in the weights file a memory begins."""
    return next(memory.first for memory in plan.memories if memory.name == name)


def whole(size: int) -> int:
    """What a stream, or its table of relocations, takes in its memory."""
    return -(-size // _PAGE) * _PAGE


def alignment(config: Config) -> int:
    """Of a physical address: the largest element, or what the host wants."""
    return max(config.inp_bytes, config.wgt_bytes, config.acc_bytes, ALIGNMENT)


# -- pieces that a driver allocates ------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Range:
    """Some bytes of a memory."""

    memory: str
    offset: int
    bytes: int


def pieces(plan: Plan, memory: Memory, config: Config) -> list[Range]:
    """A memory in as few pieces as drivers allocate; only weights can be cut, between two tensors."""
    if memory.device != DEVICE or memory.name in _NEVER_ALLOCATED or not memory.bytes:
        return []
    most = LARGEST - alignment(config)
    if memory.bytes <= most:
        return [Range(memory.name, 0, memory.bytes)]
    cuts = sorted({ref.offset for step in plan.steps for ref in step.args if ref.memory == memory.name} | {0})
    found: list[Range] = []
    start = 0
    while start < memory.bytes:
        end = memory.bytes
        if end - start > most:
            end = cuts[bisect_right(cuts, start + most) - 1]
        if memory.kind is not MemoryKind.WEIGHTS or end <= start:
            message = f"{memory.name} of {memory.bytes} bytes is more than a VTA's driver allocates at once"
            raise DeployError(
                f"{message}; a smaller batch has smaller activations", kind="vta", got=memory.bytes, allowed=most
            )
        found.append(Range(memory.name, start, end - start))
        start = end
    return found


# -- what the host's cache holds ---------------------------------------------------------------------------------------
def seen(plan: Plan, steps: Sequence[int]) -> tuple[list[Range], list[Range]]:
    """What the host may have written into the VTA's memories since the stream before, and what it touches before the
    next one; streams follow each other in a ring, an inference after the other.
    """
    before: list[Range] = []
    after: list[Range] = []
    count = len(plan.steps)
    at = (steps[0] - 1) % count
    while plan.steps[at].device == HOST:
        before += _touched(plan, plan.steps[at], written=True)
        at = (at - 1) % count
    at = (steps[-1] + 1) % count
    while plan.steps[at].device == HOST:
        after += _touched(plan, plan.steps[at], written=False)
        at = (at + 1) % count
    return _joined(plan, before), _joined(plan, after)


def _touched(plan: Plan, step: Step, *, written: bool) -> Iterable[Range]:
    """What a step of the host writes, or reads and writes, of the VTA's activations."""
    spec = plan.kernels[step.kernel].spec
    operands = None if spec is None else spec.operands
    mine = {m.name: m for m in plan.memories if m.device == DEVICE and m.kind is not MemoryKind.WEIGHTS}
    for number, ref in enumerate(step.args):
        memory = mine.get(ref.memory)
        if memory is None:
            continue
        if operands is None:
            yield Range(ref.memory, 0, memory.bytes)
        elif operands[number].role == "output" or not written:
            yield Range(ref.memory, ref.offset, _extent(plan, step, number, ref, memory))


def _extent(plan: Plan, step: Step, number: int, ref: Ref, memory: Memory) -> int:
    """How far an operand reaches, the distance between images included."""
    spec = plan.kernels[step.kernel].spec
    assert spec is not None
    operand = spec.operands[number]
    batch = getattr(spec, "batch", 1)
    stride = getattr(spec, operand.stride, 0) if operand.stride else 0
    size = operand.bytes
    if batch > 1 and operand.stride:
        each = operand.size // batch
        size = operand.bytes // operand.size * ((batch - 1) * max(stride, each) + each) if stride else memory.bytes
    return min(size, memory.bytes - ref.offset)


def _joined(plan: Plan, ranges: Iterable[Range]) -> list[Range]:
    """Whole lines of the cache, what touches in one."""
    size = {memory.name: memory.bytes for memory in plan.memories}
    found: list[Range] = []
    for r in sorted(ranges, key=lambda r: (r.memory, r.offset)):
        start = r.offset // _LINE * _LINE
        end = min(-(-(r.offset + r.bytes) // _LINE) * _LINE, size[r.memory])
        last = found[-1] if found else None
        if last and last.memory == r.memory and start <= last.offset + last.bytes:
            found[-1] = Range(r.memory, last.offset, max(end, last.offset + last.bytes) - last.offset)
        else:
            found.append(Range(r.memory, start, end - start))
    return found
