"""The `Plan`: all that is left of a network once every decision is made. What every target emits its code from.

Data only: nothing here knows TVM or ONNX.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import pairwise
from typing import Any

import numpy as np

from ..kernels.spec import Spec

ALIGNMENT = 64
"""Bytes. Every buffer and every parameter starts at a multiple of it."""


VTA = "vta"
"""The device of an accelerator's steps."""

GPU = "cuda"
"""The device of a GPU's steps."""

HOST = "cpu"
"""The device that the library itself runs on, whatever its make. It comes after the others and sees their memories."""


class MemoryKind(str, Enum):
    """What a memory is for."""

    ARENA = "arena"  # activations
    WEIGHTS = "weights"  # a part of the weights file; read only
    INPUT = "input"  # the caller's buffer of one input
    OUTPUT = "output"  # the caller's buffer of one output
    SCRATCH = "scratch"  # used within a step
    COUNTERS = "counters"  # int32, 0 between steps


@dataclass(frozen=True)
class Memory:
    """A row of a plan's table of memories.

    Attributes:
        name: what a `Ref` calls it.
        device: whose it is: who allocates it, or takes the input from the caller, or gives the output.
        bytes: its size.
        first: of weights, the offset in the weights file.
        port: of inputs and outputs, which one.
    """

    name: str
    device: str
    kind: MemoryKind
    bytes: int
    first: int = 0
    port: int = 0


ARENA, WEIGHTS = MemoryKind.ARENA.value, MemoryKind.WEIGHTS.value
"""What the memories of these kinds are called where there is one of each."""


def memory_of(name: str, device: str) -> str:
    """What an accelerator's memory is called, beside the host's of that name."""
    return f"{name}:{device}"


def port_memory(kind: MemoryKind, number: int) -> str:
    """What the memory of an input or output is called."""
    return f"{kind.value}:{number}"


@dataclass(frozen=True)
class Ref:
    """A pointer argument: `offset` bytes into the memory of that name."""

    memory: str
    offset: int


@dataclass(frozen=True)
class Kernel:
    """One compiled function, shared by the steps that need the same.

    Attributes:
        symbol: its C name, derived from the content, so that equal kernels have equal names.
        spec, schedule: frozen dataclasses of `inception_deploy.kernels`; what is computed, and how.
        pointers: how many pointer arguments it takes.
        units: work units, split freely among threads.
        family: its name in `kernels.table`.
        refused: the families before it that do not compute this, with their reasons.
    """

    symbol: str
    spec: Spec | None
    schedule: Any
    pointers: int
    units: int
    family: str = ""
    refused: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Step:
    """One kernel call, or what else its device does at once.

    Attributes:
        device: who does it.
        args: each into a memory that the device reaches.
        wave: steps of one wave do not depend on each other; waves run one after the other.
        layers: the names of the ONNX nodes it does the work of, the last one being its output's producer.
        output: the value it computes, as the ONNX graph names it.
        macs: multiply-adds of those nodes.
    """

    kernel: str
    args: tuple[Ref, ...]
    wave: int
    layers: tuple[str, ...]
    op: str
    output: str
    macs: int = 0
    device: str = HOST

    @property
    def name(self) -> str:
        """What people call it: the last of its layers, or the value whose layout it changes."""
        return self.layers[-1] if self.layers else self.output


@dataclass(frozen=True)
class Port:
    """An input or output of the network: float32, `shape` in NCHW (or fewer axes), contiguous.

    Attributes:
        copy: of an input, where in the arena an aligned copy of it may lie while it is read; None for nowhere.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    copy: int | None = None

    @property
    def bytes(self) -> int:
        """Size of the contiguous buffer."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Placement:
    """Where a value lives: for `inspect` and for debugging. `bytes` counts from `offset` in the arena."""

    value: str
    offset: int
    bytes: int
    first_wave: int
    last_wave: int
    shares: str | None = None  # the concat (or in-place add) whose memory this is a part of


@dataclass(frozen=True)
class Refusal:
    """An operator that has no kernel of ours and takes TVM's default; or one that stays on an accelerator's host."""

    node: str
    op: str
    reason: str


@dataclass(frozen=True)
class Compared:
    """A layer that an accelerator or its host computes, whichever is estimated to be faster: all in milliseconds.

    Attributes:
        device: that does it.
        vta, host: what either takes. crossing: what the host's way takes besides, to hand over and back.
    """

    node: str
    op: str
    device: str
    vta: float
    host: float
    crossing: float


@dataclass(frozen=True)
class Siblings:
    """Convolutions of an accelerator that read the same pixels, and may be one step or several: in milliseconds.

    Attributes:
        joined: they are one step.
        apart, together: what either takes; None where they cannot be one.
        reason: why they are not; "" where they are.
    """

    nodes: tuple[str, ...]
    joined: bool
    apart: float
    together: float | None
    reason: str = ""


@dataclass(frozen=True)
class Plan:
    """Kernel calls in order, with every address fixed. See docs/architecture.md.

    Attributes:
        kept: quantized layers that an accelerator's host computes, with the reasons.
        compared: layers for which both were estimated.
        siblings: convolutions that an accelerator might do as one step, with both estimates.
    """

    target: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    kernels: dict[str, Kernel]
    steps: tuple[Step, ...]
    weights: bytes = field(repr=False)
    memories: tuple[Memory, ...] = ()
    placements: tuple[Placement, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    kept: tuple[Refusal, ...] = ()
    compared: tuple[Compared, ...] = ()
    siblings: tuple[Siblings, ...] = ()

    @property
    def devices(self) -> tuple[str, ...]:
        """Every device that does or owns something, the host last."""
        found = dict.fromkeys([*(m.device for m in self.memories), *(s.device for s in self.steps)])
        return tuple(sorted(found, key=lambda device: device == HOST))

    @property
    def arena_bytes(self) -> int:
        """Memory for activations, of all devices together."""
        return sum(m.bytes for m in self.memories if m.kind is MemoryKind.ARENA)

    @property
    def waves(self) -> int:
        """How many barriers an inference takes."""
        return 1 + max((s.wave for s in self.steps), default=-1)


def reading(plans: Sequence[Plan]) -> list[tuple[int, frozenset[int]]]:
    """The parts of the weights that several plans have in common: the bytes of each, padding included, and the numbers
    of the plans that read it.
    """
    readers: dict[int, set[int]] = {}
    for number, plan in enumerate(plans):
        for ref in (ref for step in plan.steps for ref in step.args if ref.memory == WEIGHTS):
            readers.setdefault(ref.offset, set()).add(number)
    ends = [*sorted(readers), len(plans[0].weights)]
    return [(end - start, frozenset(readers[start])) for start, end in pairwise(ends)]


def memories(
    inputs: Sequence[Port], outputs: Sequence[Port], *, arena: int, weights: int, device: str = HOST
) -> tuple[Memory, ...]:
    """The table of a plan that runs on one device: an arena, the weights, and the caller's buffers."""
    ports = [
        Memory(port_memory(kind, number), device, kind, port.bytes, port=number)
        for kind, those in ((MemoryKind.INPUT, inputs), (MemoryKind.OUTPUT, outputs))
        for number, port in enumerate(those)
    ]
    arenas = Memory(ARENA, device, MemoryKind.ARENA, arena)
    return (arenas, Memory(WEIGHTS, device, MemoryKind.WEIGHTS, weights), *ports)
