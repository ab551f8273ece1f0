"""A target with the choices of a tuning database in place of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from ..errors import DeployError, UsageError
from ..kernels.spec import Spec
from ..lower.lower import symbol_of
from ..targets.base import Target
from ..targets.cpu import Cpu
from ..targets.cuda import Cuda
from ..targets.precision import Precision
from ..targets.vta_target import VtaTarget
from . import settle
from .database import FAILED, Database, Identity, header_target, read
from .search import WORTH
from .space import Choice, choice_of, default, knobs, main_spec
from .task import Task, key, plain
from .task import tunable as has_knobs

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True)
class Better:
    """A choice that was found to be faster than the default; `ratio` is its time over the default's."""

    task: Task
    choice: Choice
    ratio: float


def better(database: Database, target: Target) -> dict[str, Better]:
    """For every task whose fastest confirmed choice beats the default by enough, that choice, by the task's key.

    A choice is confirmed when it has two records: the fastest of many single measurements is fast by luck too. Where
    the time follows from a model, one says all, and any gain is enough.
    """
    worth, least = (1.0, 1) if target.modelled else (WORTH, 2)
    found: dict[str, Better] = {}
    for task in database.tasks():
        pooled = database.of(task)
        base = knobs(default(task, target))
        reference = next((median(s) for values, s in pooled.items() if dict(values) == base), None)
        for values, seconds in pooled.items():
            chosen = dict(values)
            if reference is None or median(seconds) >= worth * reference or chosen == base:
                break
            if database.times_measured(task, chosen) >= least and median(seconds) < FAILED:
                try:
                    choice = choice_of(chosen, task, target)
                except (KeyError, TypeError, ValueError) as error:
                    raise DeployError(
                        f"{database.folder} has a record for {task} that no kernel can be made from: {error}",
                        kind="database", got=chosen, allowed="what `tune` wrote",
                    ) from error  # fmt: skip
                found[task.key] = Better(task, choice, median(seconds) / reference)
                break
    return found


def tunable(target: Target, precision: str = "fp32") -> Target:
    """The target in a precision, where its kernels have knobs that are searched.

    Raises:
        UsageError: ``precision``, in which it does not compute, or has no kernels of its own.
        DeployError: ``target``: this machine, which the target stands for, does not.
    """
    found = target.at(precision)
    if isinstance(found, Cpu) and precision == "int8" and not found.integers:
        message = f"{target.name} computes int8 in float32, by the kernels of fp32: there is nothing to tune"
        allowed = "a target with integer kernels, or fp32"
        raise UsageError(message, kind="precision", got=target.name, allowed=allowed)
    return found


def identity(model: str, target: Target) -> Identity:
    """What a database of this model and target says of itself. The path of a configuration is no part of it: what is
    in the file is.
    """
    precision = "int8" if target.integers else target.precision.name
    behind = "" if precision == "fp32" else f"{_AT}{precision}"
    goal = f"{target.name.partition('@')[0]}{behind}"
    return Identity(model, goal, target.judge(), version("apache-tvm"))


_AT = " at "
"""What the target of a database has behind its name, and then the precision, where it is not fp32."""


@dataclass(frozen=True)
class Tuned(Target):
    """A target, answering from a database where that knows better.

    Attributes:
        choices: by a task's key, what was found for it.
        digest: of the database.
        passed_over: what of the database was not taken (`Database.notes`).
        shipped: the core whose records, which come with the package, are the database.
        used: by the kernel's symbol, what was taken from the database.
    """

    choices: Mapping[str, Better] = field(default_factory=dict)
    digest: str = ""
    passed_over: tuple[str, ...] = ()
    shipped: str | None = None
    used: dict[str, dict[str, Any]] = field(default_factory=dict, compare=False)

    @cached_property
    def _products(self) -> dict[Spec, Better]:
        """Winograd's products are kernels of their own, which two tasks may share: the first by its key decides."""
        found: dict[Spec, Better] = {}
        for _, one in sorted(self.choices.items()):
            if one.choice.outputs is not None:
                found.setdefault(main_spec(one.task.spec, one.choice.outputs).canonical(), one)
        return found

    def computing(self, row: Precision) -> Self:
        """The same; another way of computing has other kernels, of which the database knows nothing."""
        found = super().computing(row)
        return found if row == self.precision else replace(found, choices={}, used={})

    def schedule(self, spec: Spec) -> Any:
        found = self._find(spec)
        if found is None:
            return super().schedule(spec)
        schedule = found.choice.schedule
        self.used[symbol_of(spec, schedule)] = {
            "layer": str(found.task),
            "task": found.task.key,
            "knobs": knobs(found.choice),
            "ratio": round(found.ratio, 4),
        }
        return schedule

    def _find(self, spec: Spec) -> Better | None:
        if not has_knobs(spec):
            return None
        alike = plain(spec)
        if alike in self._products:
            return self._products[alike]
        candidates = (self.choices.get(key(alike, eligible)) for eligible in (True, False))
        return next((found for found in candidates if found is not None and found.choice.outputs is None), None)

    def winograd(self, spec: Spec) -> tuple[int, int] | None:
        found = self.choices.get(key(plain(spec), True))
        return super().winograd(spec) if found is None else found.choice.outputs

    def manifest(self) -> dict[str, Any]:
        """What a bundle says of its tuning: the database's content, and the choice of every kernel that it gave."""
        kernels = [{"kernel": symbol, **record} for symbol, record in sorted(self.used.items())]
        judged = "modelled" if self.modelled else "measured"
        origin = {} if self.shipped is None else {"shipped": self.shipped}
        return {"database_sha256": self.digest, "judged": judged, "kernels": kernels, **origin}

    def note(self) -> str:
        """For the user, after lowering."""
        if self.shipped is not None:
            return f"{len(self.used)} kernels take their schedules from the records shipped for {self.shipped}"
        taken = (
            f"{len(self.used)} kernels take their schedules from the database"
            if self.used
            else "the database has no record that is better than the default for any layer of this network"
        )
        return "; ".join([taken, *self.passed_over])


@dataclass(frozen=True)
class TunedCpu(Tuned, Cpu):
    """A CPU so."""


@dataclass(frozen=True)
class TunedCuda(Tuned, Cuda):
    """GPUs so."""


@dataclass(frozen=True)
class TunedVta(Tuned, VtaTarget):
    """A VTA with its host so."""


def load(folder: Path, model: str, target: Target) -> Tuned:
    """A target with the choices of a database.

    Raises:
        UsageError: ``target``, which has nothing to tune.
        DeployError: ``database``: missing, damaged, or of another model, target or version.
    """
    base = tunable(target, header_target(folder).partition(_AT)[2] or "fp32")
    database = read(folder, identity(model, base))
    choices, notes, settled = better(database, base), database.notes(), settle.read(database)
    if settled is None:
        notes.append("its choices were judged one layer at a time, and not in the network")
    else:
        choices = {task: choice for task, choice in choices.items() if task in settled.kept}
        if settled.dropped:
            notes.append(
                f"{len(settled.dropped)} choices that were faster alone, and not in the network, are passed over"
            )
    return replace(with_choices(base, choices, database.digest()), passed_over=tuple(notes))


def with_choices(base: Target, choices: Mapping[str, Better], digest: str = "") -> Tuned:
    """The target with these choices."""
    kinds: tuple[tuple[type[Target], type[Tuned]], ...] = ((VtaTarget, TunedVta), (Cuda, TunedCuda), (Cpu, TunedCpu))
    kind, made = next(pair for pair in kinds if isinstance(base, pair[0]))
    own = {field.name: getattr(base, field.name) for field in fields(kind)}
    return made(**own, choices=choices, digest=digest)
