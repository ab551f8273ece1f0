"""What a family of kernels is: one way to compute one kind of spec, for CPUs and GPUs alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np

from .isa import Isa
from .spec import Spec

S = TypeVar("S", bound=Spec)
T = TypeVar("T")


SCRATCH = -1
"""In `Launch.args`: the scratch memory of a program."""

COUNTERS = -2
"""In `Launch.args`: the counters of a program, int32, which are 0 whenever it begins and ends."""


@dataclass(frozen=True)
class Launch:
    """One launch of a grid of threads.

    Attributes:
        grid, block: extents in x, y, z.
        args: which pointer of the plan's kernel each parameter takes, or `SCRATCH`, or `COUNTERS`.
    """

    grid: tuple[int, int, int]
    block: tuple[int, int, int]
    args: tuple[int, ...]


@dataclass(frozen=True)
class Program:
    """What one kernel of a plan takes on a GPU: launches one after the other, the bytes that they, or their blocks,
    pass on through scratch memory, and how many counters.
    """

    launches: tuple[Launch, ...]
    scratch: int = 0
    counters: int = 0

    def symbols(self, symbol: str) -> list[str]:
        """The device function of each launch: the kernel's own symbol, then that with a number."""
        return [symbol if number == 0 else f"{symbol}_{number}" for number in range(len(self.launches))]


def _nothing(*_: Any) -> Any:
    return ()


def _none(_schedule: Any) -> Any:
    return None


def _own(_spec: Any, _isa: Any, schedule: Any, _layout: Any) -> Any:
    return schedule


def as_it_is(weight: np.ndarray, _spec: Any, _schedule: Any) -> np.ndarray:
    """The packing of a family whose constants lie alike, whatever the schedule."""
    return weight


@dataclass(frozen=True)
class Family(Generic[S, T]):
    """A family of kernels: `S` is what it computes, `T` its schedules, frozen dataclasses. A spec and a schedule say
    all of a kernel's code.

    Attributes:
        name: its module's, below this package.
        kind: the class of specs it is of.
        serves: why it does not compute a spec on an instruction set; None where it does.
        choose: the schedule that a model of the machine takes to be fastest.
        units: work units of a kernel, which threads share freely; blocks of threads on a GPU.
        emit: the kernel, as TIR functions of the symbol given: one on a CPU, one a launch on a GPU.
        pack: a convolution's weight `[O, I, r, s]` (physical channels, one group's I) in the kernel's order.
        space: what a search tries: schedules, each with the values that some of its fields may take instead.
        features: a schedule as numbers for tuning's cost model, by the threads that run it, or a GPU's
            multiprocessors.
        program: the launches of a kernel on a GPU; None on a CPU.
        layout: what of a schedule the packing of weights depends on; None where it depends on nothing of it.
        repacked: a schedule for a spec on an instruction set that packs weights as another one does, whose `layout`
            is given beside the spec's own.
        version: what tuning measured is of a version. Raise it when knobs mean something else, or the code changes so
            that what was fastest need not be any more: records of the old one are passed over then.
    """

    name: str
    kind: type[S]
    serves: Callable[[S, Isa], str | None]
    choose: Callable[[S, Isa], T]
    units: Callable[[S, T], int]
    emit: Callable[[S, T, str], list[Any]]
    pack: Callable[[np.ndarray, S, T], np.ndarray] = as_it_is
    space: Callable[[S, Isa], Iterable[tuple[T, dict[str, tuple[int, ...]]]]] = _nothing
    features: Callable[[S, T, int], list[float]] = _nothing
    program: Callable[[S, T], Program] | None = None
    layout: Callable[[T], Any] = _none
    repacked: Callable[[S, Isa, T, Any], T] = _own
    version: int = 1


def of_gpu(isa: Isa) -> str | None:
    """What a family of GPU kernels says of any other machine."""
    return None if isa.gpu else f"{isa.name} is no GPU"


def of_vectors(spec: Spec, isa: Isa) -> str | None:
    """What a family of fp32 vectors on CPUs says: it takes real numbers, in whatever they are kept."""
    if isa.gpu:
        return f"{isa.name} is a GPU"
    return "its numbers are quantized" if spec.quantized else None


def of_bytes(spec: Spec, isa: Isa) -> str | None:
    """What a family of bytes says: CPUs have the instructions for one byte at a time."""
    if isa.gpu:
        return f"{isa.name} is a GPU"
    return None if spec.quantized else "its numbers are real"
