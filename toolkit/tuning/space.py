"""The choices of a task: which algorithm, and which schedule of its template."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from random import Random
from typing import Any

from ..kernels.spec import Conv, Spec, stages
from ..targets.base import Target
from .task import Task


@dataclass(frozen=True)
class Choice:
    """One way to compute a layer.

    Attributes:
        outputs: of a Winograd tile along rows and columns; None for the direct algorithm.
        schedule: of the direct kernel, or of the products of Winograd's.
    """

    outputs: tuple[int, int] | None
    schedule: Any


def default(task: Task, target: Target) -> Choice:
    """What the target takes without being told."""
    outputs = target.winograd(task.spec) if task.eligible else None
    return Choice(outputs, target.schedule(main_spec(task.spec, outputs)))


def main_spec(spec: Spec, outputs: tuple[int, int] | None) -> Spec:
    """The spec of the kernel that a choice's schedule is of."""
    return stages(spec, outputs)[1] if outputs is not None and isinstance(spec, Conv) else spec


def _schedules(spec: Spec, target: Target) -> Iterable[tuple[Any, dict[str, tuple[int, ...]]]]:
    machine: Any = target.machine(spec)
    return target.family(spec).family.space(spec, machine)


@dataclass(frozen=True)
class Group:
    """Choices that share an algorithm, a register tile and a unit; `values` are those of the other knobs."""

    base: Choice
    values: dict[str, tuple[int, ...]]

    def __len__(self) -> int:
        return math.prod(map(len, self.values.values()))

    def pick(self, settings: Mapping[str, int]) -> Choice:
        """The choice with these values of the other knobs."""
        return replace(self.base, schedule=replace(self.base.schedule, **settings))


class Space:
    """All choices of a task."""

    def __init__(self, task: Task, target: Target) -> None:
        self.task, self.target = task, target
        self.default = default(task, target)

    @cached_property
    def groups(self) -> list[Group]:
        """What there is to choose from, made when it is first asked for."""
        algorithms: list[tuple[int, int] | None] = [None]
        if self.task.eligible and isinstance(self.task.spec, Conv):
            algorithms += self.target.winograd_options(self.task.spec)
        return [
            Group(Choice(outputs, schedule), values)
            for outputs in algorithms
            for schedule, values in _schedules(main_spec(self.task.spec, outputs), self.target)
        ]

    def __len__(self) -> int:
        """How many choices there are, about: the default may be one of them."""
        return sum(map(len, self.groups))

    def sample(self, random: Random, count: int) -> list[Choice]:
        """Up to `count` different choices, drawn evenly over the groups."""
        drawn = {self._draw(random): None for _ in range(count if self.groups else 0)}
        return list(drawn)

    def _draw(self, random: Random) -> Choice:
        group = random.choice(self.groups)
        return group.pick({name: random.choice(values) for name, values in group.values.items()})

    def neighbours(self, choice: Choice) -> list[Choice]:
        """The choices that differ from `choice` in one thing: another group, or another value of one knob."""
        found: dict[Choice, None] = {}
        for group in self.groups:
            settings = {name: getattr(choice.schedule, name) for name in group.values}
            kept = {name: value for name, value in settings.items() if value in group.values[name]}
            if kept == settings:
                found[group.pick(settings)] = None
        for name, values in next((g.values for g in self.groups if g.base.outputs == choice.outputs), {}).items():
            for value in values:
                found[replace(choice, schedule=replace(choice.schedule, **{name: value}))] = None
        found.pop(choice, None)
        return list(found)

    def domains(self) -> dict[str, list[int]]:
        """Every value that each knob takes, the default's among them."""
        found: dict[str, set[int]] = {name: {value} for name, value in knobs(self.default).items()}
        for group in self.groups:
            for name, value in knobs(group.base).items():
                found[name] |= {value, *group.values.get(name, ())}
        return {name: sorted(values) for name, values in found.items()}


def knobs(choice: Choice) -> dict[str, int]:
    """A choice as whole numbers by name, which is how MetaSchedule samples and stores it."""
    high, wide = choice.outputs or (0, 0)
    return {"winograd_rows": high, "winograd_columns": wide, **_numbers(choice.schedule)}


def _numbers(schedule: Any) -> dict[str, int]:
    """A schedule's knobs: not its lanes and its instruction, which follow from the machine and the spec."""
    found = {f.name: getattr(schedule, f.name) for f in fields(schedule) if f.name != "lanes"}
    return {name: int(value) for name, value in found.items() if not isinstance(value, str)}


def choice_of(values: Mapping[str, int], task: Task, target: Target) -> Choice:
    """The choice that `knobs` gave. KeyError, TypeError or ValueError where it is none of this task's template."""
    rest = dict(values)
    outputs: tuple[int, int] | None = (rest.pop("winograd_rows"), rest.pop("winograd_columns"))
    if outputs == (0, 0):
        outputs = None
    elif not task.eligible or outputs not in target.winograd_options(task.spec):
        raise ValueError(f"no Winograd tile {outputs}")
    base = target.schedule(main_spec(task.spec, outputs))
    known = {name: type(getattr(base, name)) for name in _numbers(base)}
    if known.keys() != rest.keys():
        raise KeyError(f"knobs {sorted(rest)}")
    return Choice(outputs, replace(base, **{name: known[name](value) for name, value in rest.items()}))
