"""The search where a time follows from a model: a VTA's steps, cut and ordered in other ways.

A choice is judged by the cycles that its step takes between its neighbours in the network (`targets.vta.streams`), so
that nothing is measured and the same network gives the same records each time. All tasks compete for every trial: the
one gets it that could gain most, its layers times the cycles that its best choice takes more than its bound, over the
square of the trials that it had. It is tried in turns with the next cut by the analytic model, and with what differs in
one knob from its best choice. The whole network decides what is kept.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import onnx

from ..errors import DeployError
from ..kernels.spec import Spec, Vta
from ..kernels.vta.bound import bound
from ..kernels.vta.tiling import Tiling
from ..lower.lower import lower
from ..lower.plan import Plan
from ..progress import Stopwatch
from ..targets.vta.streams import Between, places, taken
from ..targets.vta_target import VtaTarget
from . import settle as settlements
from . import told
from .database import FAILED, Database
from .space import Choice, Space, choice_of, knobs
from .task import Task, key, plain
from .tuned import Better, better

_ROUNDS = 4
"""Of taking back what loses in the network."""


@dataclass
class State:
    """A task in search.

    Attributes:
        where: the first of its layers.
        least: cycles that it takes at least.
        cycles: of every choice that was judged; None where it cannot be assembled.
        turn: how many of its trials were chosen.
    """

    task: Task
    space: Space
    target: VtaTarget
    where: Between
    least: int
    cycles: dict[Choice, int | None] = field(default_factory=dict)
    turn: int = 0

    @cached_property
    def _cuts(self) -> Iterator[Choice]:
        return iter([group.base for group in self.space.groups])

    @cached_property
    def _default(self) -> tuple[int, int]:
        """The neighbours and it, and it alone, by default."""
        return self.where.cycles(self.target.vta)

    def judge(self, choice: Choice) -> int | None:
        """Cycles of the step; None where it cannot be assembled."""
        whole, own = self._default
        if choice == self.space.default:
            return own
        try:
            return own + self.where.cycles(self.target.vta, choice.schedule)[0] - whole
        except (DeployError, ValueError):  # a list, or a number in a field, that the hardware has no room for
            return None

    @property
    def default(self) -> int:
        """Cycles of one layer, by default."""
        found = self.cycles[self.space.default]
        assert found is not None
        return found

    @property
    def best(self) -> Choice:
        """The fastest choice; of equally fast ones the first that was judged."""
        judged = {choice: cycles for choice, cycles in self.cycles.items() if cycles is not None}
        return min(judged, key=lambda choice: judged[choice])

    @property
    def promise(self) -> float:
        """What the next trial may gain."""
        most = self.cycles[self.best] or 0
        return self.task.count * max(0, most - self.least) / (1 + self.turn) ** 2

    def propose(self) -> Choice | None:
        """The choice to try next; None where nothing is left."""
        self.turn += 1
        first, second = (self._near, self._cut) if self.turn % 2 else (self._cut, self._near)
        return first() or second()

    def _near(self) -> Choice | None:
        best = self.best
        found = (c for c in self.space.neighbours(best) if c not in self.cycles and _alike(c, best))
        return next(found, None)

    def _cut(self) -> Choice | None:
        return next((choice for choice in self._cuts if choice not in self.cycles), None)


def _alike(one: Choice, other: Choice) -> bool:
    """They are the same tiles."""
    fields = ("rows", "columns", "blocks", "deep")
    return all(getattr(one.schedule, name) == getattr(other.schedule, name) for name in fields)


def tasks_of(plan: Plan) -> dict[Task, Between]:
    """The tasks among the steps of a plan, each with the first of its places."""
    found: dict[Spec, list[int]] = {}
    where = places(plan)
    for number in where:
        spec = plan.kernels[plan.steps[number].kernel].spec
        assert isinstance(spec, Vta)
        found.setdefault(plain(spec), []).append(number)
    return {
        Task(spec, False, len(numbers), tuple(plan.steps[number].name for number in numbers)): where[numbers[0]]
        for spec, numbers in found.items()
    }


class Search:
    """The tasks of a network, and a database that is asked before a choice is judged: a search that was killed goes the
    same way again, and on from where its records end.

    Args:
        report: called with the task after every judgement.
    """

    def __init__(
        self, tasks: Mapping[Task, Between], database: Database, target: VtaTarget, report: Callable[[State], None]
    ) -> None:
        self._database, self._target, self._report = database, target, report
        self.states = []
        for task, where in tasks.items():
            assert isinstance(task.spec, Vta)
            self.states.append(State(task, Space(task, target), target, where, bound(task.spec, target.vta).cycles))
        self._known = {
            (record.task, choice_of(dict(record.knobs), task, target)): record.seconds[0]
            for task in tasks
            for record in database.records
            if record.task == task.key
        }

    @property
    def trials(self) -> int:
        """Choices judged, defaults aside."""
        return sum(len(state.cycles) - 1 for state in self.states if state.cycles)

    def defaults(self) -> None:
        """Trial 0 of every task. DeployError (kind ``vta``) where one cannot be assembled."""
        for state in self.states:
            self._judge(state, state.space.default)

    def run(self, trials: int) -> None:
        """Judge until there are so many choices, or nothing is left to try."""
        open_ = list(self.states)
        while self.trials < trials and open_:
            state = max(open_, key=lambda state: state.promise)
            choice = state.propose()
            if choice is None:
                open_.remove(state)
            else:
                self._judge(state, choice)

    def _judge(self, state: State, choice: Choice) -> None:
        hertz = self._target.vta.board.mhz * 1e6
        seconds = self._known.get((state.task.key, choice))
        if seconds is None:
            cycles = state.judge(choice)
            seconds = FAILED if cycles is None else cycles / hertz
            self._database.commit(state.task, state.space, knobs(choice), [seconds], self._target)
        state.cycles[choice] = round(seconds * hertz) if seconds < FAILED else None
        self._report(state)


@dataclass(frozen=True)
class Network:
    """The cycles of a whole network, and those of its tasks in it."""

    cycles: int
    tasks: Mapping[str, int]


def network(plan: Plan, target: VtaTarget, choices: Mapping[str, Better]) -> Network:
    """What the model says of a plan with some choices."""

    def cut(spec: Vta) -> Tiling | None:
        found = choices.get(key(plain(spec), False))
        return None if found is None else found.choice.schedule

    found: dict[str, int] = {}
    for step in taken(plan, target.vta, cut):
        name = key(plain(step.spec), False)
        found[name] = found.get(name, 0) + step.cycles
    return Network(sum(found.values()), found)


def settle(plan: Plan, target: VtaTarget, found: Mapping[str, Better]) -> tuple[frozenset[str], int, int]:
    """Which choices the network keeps, and its cycles before and after: those go again whose task takes longer in the
    network than by default, and all of them where it is not faster.
    """
    before = network(plan, target, {})
    best: tuple[int, frozenset[str]] = (before.cycles, frozenset())
    kept: Set[str] = found.keys()
    for _ in range(_ROUNDS):
        if not kept:
            break
        after = network(plan, target, {name: found[name] for name in kept})
        best = min(best, (after.cycles, frozenset(kept)), key=lambda pair: pair[0])
        losing = {name for name in kept if after.tasks.get(name, 0) >= before.tasks.get(name, 0)}
        if not losing:
            break
        kept = kept - losing
    return best[1], before.cycles, best[0]


def tune(
    model: onnx.ModelProto, target: VtaTarget, database: Database, trials: int, watch: Stopwatch
) -> dict[str, Any]:
    """Search a network's tasks and settle what it keeps.

    Args:
        model: quantized. trials: choices to judge in all, those in the database included; defaults are not counted.

    Returns:
        `told.document`, with ``estimate`` (True) and the cycles of the network before, after and at least:
        ``before_cycles``, ``after_cycles``, ``bound_cycles``.

    Raises:
        DeployError: (kind ``tune``) nothing of it is a VTA's; what cannot be lowered.
    """
    plan = lower(model, target)
    tasks = tasks_of(plan)
    if not tasks:
        raise told.nothing(database.identity.model)
    total = trials + len(tasks)

    def report(state: State) -> None:
        number = sum(len(s.cycles) for s in search.states)
        share = (state.cycles[state.best] or 0) / state.default
        watch.update(number, total, f"{state.task}: {share:.3f} of the default by the cycle model")

    search = Search(tasks, database, target, report)
    watch.stage("judge defaults")
    search.defaults()
    watch.stage("search")
    search.run(trials)
    watch.stage("settle")
    found = better(database, target)
    kept, before, after = settle(
        plan, target, {s.task.key: found[s.task.key] for s in search.states if s.task.key in found}
    )
    dropped = tuple(sorted(found.keys() - kept))
    ms = target.vta.board.milliseconds
    settlements.write(
        database, settlements.Settled(database.digest(), tuple(sorted(kept)), dropped, ms(before), ms(after))
    )
    rows = [
        told.row(s.task, found.get(s.task.key), kept, ms(s.default), len(s.cycles))
        for s in sorted(search.states, key=lambda s: -s.task.count * s.default)
    ]
    return {
        **told.document(rows, search.trials, len(found), len(kept), ms(before), ms(after), "model"),
        "estimate": True,
        "before_cycles": before,
        "after_cycles": after,
        "bound_cycles": sum(s.task.count * s.least for s in search.states),
    }
