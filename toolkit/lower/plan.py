"""The `Plan`: all that is left of a network once every decision is made. What every target emits its code from.

Data only: nothing here knows TVM or ONNX.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

import numpy as np

from ..kernels.spec import Spec

ALIGNMENT = 64
"""Bytes. Every buffer and every parameter starts at a multiple of it."""


class Space(str, Enum):
    """The memory that an argument of a kernel points into."""

    ARENA = "arena"  # activations; one block, allocated by the runtime
    WEIGHTS = "weights"  # the read-only blob
    INPUT = "input"  # the caller's buffers, `index` says which
    OUTPUT = "output"


@dataclass(frozen=True)
class Ref:
    """A pointer argument: `offset` bytes into `space` (into buffer number `index` of it, for inputs and outputs)."""

    space: Space
    offset: int
    index: int = 0


@dataclass(frozen=True)
class Kernel:
    """One compiled function, shared by the steps that need the same.

    symbol: its C name, derived from the content, so that equal kernels have equal names.
    spec, schedule: frozen dataclasses of `inception_deploy.kernels`; what is computed, and how.
    pointers: how many pointer arguments it takes.
    units: work units, split freely among threads. launch: grid and block sizes on a GPU.
    """

    symbol: str
    spec: Spec | None
    schedule: Any
    pointers: int
    units: int
    launch: tuple[int, ...] = ()


@dataclass(frozen=True)
class Step:
    """One kernel call.

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

    @property
    def name(self) -> str:
        """What people call it: the last of its layers, or the value whose layout it changes."""
        return self.layers[-1] if self.layers else self.output


@dataclass(frozen=True)
class Port:
    """An input or output of the network: float32, `shape` in NCHW (or fewer axes), contiguous.

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
    """An operator that has no kernel of ours and takes TVM's default."""

    node: str
    op: str
    reason: str


@dataclass(frozen=True)
class Plan:
    """Kernel calls in order, with every address fixed. See docs/architecture.md."""

    target: str
    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    kernels: dict[str, Kernel]
    steps: tuple[Step, ...]
    weights: bytes = field(repr=False)
    arena_bytes: int = 0
    placements: tuple[Placement, ...] = ()
    refusals: tuple[Refusal, ...] = ()

    @property
    def waves(self) -> int:
        """How many barriers an inference takes."""
        return 1 + max((s.wave for s in self.steps), default=-1)
