"""The streams of a plan, and how long they take on a board by the cycle model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from inception_deploy.kernels.spec import Vta
from inception_deploy.kernels.vta.accelerator import Accelerator
from inception_deploy.kernels.vta.tiling import Tiling
from inception_deploy.lower.plan import Plan

from . import pieces
from .assemble import Stream, Work, assemble
from .cycles import measure

Cut = Callable[[Vta], Tiling | None]
"""How a step is cut instead of as the plan says; None for as it says."""


def as_planned(_: Vta) -> None:
    """The cut of no step is another one."""


def streams(plan: Plan, accelerator: Accelerator) -> list[Stream]:
    """What is assembled for each of `pieces.spans`."""
    return [assemble(works, accelerator) for works in _works(plan, as_planned)]


def _works(plan: Plan, cut: Cut) -> list[list[Work]]:
    return [[_work(plan, number, cut) for number in numbers] for numbers in pieces.spans(plan)]


def _work(plan: Plan, number: int, cut: Cut) -> Work:
    step = plan.steps[number]
    kernel = plan.kernels[step.kernel]
    assert isinstance(kernel.spec, Vta)
    return Work(step.name, kernel.spec, cut(kernel.spec) or kernel.schedule, step.args)


@dataclass(frozen=True)
class Taken:
    """A step, and the cycles from the end of the one before it to its own."""

    spec: Vta
    cycles: int


def taken(plan: Plan, accelerator: Accelerator, cut: Cut = as_planned) -> list[Taken]:
    """The time of every step of a plan on the board; together they are the time of its streams."""
    found: list[Taken] = []
    for works in _works(plan, cut):
        stream = assemble(works, accelerator)
        timing = measure(stream.instructions, accelerator.config, accelerator.board)
        times = timing.of_steps(stream.steps)
        times[-1] += timing.cycles - sum(times)  # what ends the stream
        found += [Taken(work.spec, cycles) for work, cycles in zip(works, times, strict=True)]
    return found


@dataclass(frozen=True)
class Between:
    """A step of a plan between the steps that its stream has in front of it and behind it.

    Attributes:
        before, behind: the numbers of these; empty where it is the first, or the last.
    """

    plan: Plan
    number: int
    before: tuple[int, ...]
    behind: tuple[int, ...]

    def cycles(self, accelerator: Accelerator, tiling: Tiling | None = None) -> tuple[int, int]:
        """How long the two or three take, and how long the step does, cut as the plan says or in another way."""
        around = [_work(self.plan, number, as_planned) for number in (*self.before, *self.behind)]
        at = len(self.before)
        works = [*around[:at], _work(self.plan, self.number, lambda _: tiling), *around[at:]]
        stream = assemble(works, accelerator)
        timing = measure(stream.instructions, accelerator.config, accelerator.board)
        return timing.cycles, timing.of_steps(stream.steps)[at]


def places(plan: Plan) -> dict[int, Between]:
    """Every step of a VTA, by its number."""
    return {
        number: Between(plan, number, tuple(numbers[max(0, at - 1) : at]), tuple(numbers[at + 1 : at + 2]))
        for numbers in pieces.spans(plan)
        for at, number in enumerate(numbers)
    }
