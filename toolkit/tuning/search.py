"""The search: which choice of which task to measure next.

All tasks compete for every trial. A choice is worth the seconds that the network is expected to lose by it: the
task's share of the time, times the model's expected gain over the best so far. A task whose trials stop paying sees
its expectations fall, and leaves the trials to others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from random import Random
from statistics import median

import numpy as np

from .database import FAILED, Database
from .features import features
from .measure import Meter, require
from .model import Model, expected_gain
from .space import Choice, Space, choice_of, knobs
from .task import Task

BATCH = 4
"""Trials chosen at a time: they are built at the same time, and the model learns from all."""

POOL, NEAR = 250, 150
"""Choices that compete, a task: drawn from the whole space, and from around the default and the best."""

WORTH = 0.98
"""A choice replaces the default where it takes less than this part of its time, in confirmed measurements."""

CONFIRM_PASSES = 6
"""Passes over a trial that confirm a choice; the search makes two."""

_MOST_CONFIRMED = 4


@dataclass
class State:
    """A task in search.

    Attributes:
        seconds: of the default, one layer.
        ratios: time over the default's, of every choice measured; infinite where it failed.
        pool: choices that compete for the next trial, with their features.
        centres: whose neighbours are among them.
    """

    task: Task
    space: Space
    seconds: float = 0.0
    ratios: dict[Choice, float] = field(default_factory=dict)
    pool: dict[Choice, np.ndarray] = field(default_factory=dict)
    centres: set[Choice] = field(default_factory=set)

    @property
    def best(self) -> Choice:
        """The fastest choice measured; the default where none is faster."""
        return min(self.ratios, key=lambda choice: self.ratios[choice], default=self.space.default)

    @property
    def ratio(self) -> float:
        """The best one's time over the default's; at most 1."""
        return min(1.0, *self.ratios.values()) if self.ratios else 1.0

    @property
    def total(self) -> float:
        """Seconds of all the task's layers, by default."""
        return self.task.count * self.seconds


class Search:
    """The tasks of a network, a database and a meter.

    Args:
        report: called after every measurement with the task that it was of.
    """

    def __init__(
        self, tasks: Sequence[Task], database: Database, meter: Meter, threads: int, report: Callable[[State], None]
    ) -> None:
        self._database, self._meter, self._threads, self._report = database, meter, threads, report
        self.states = [State(task, Space(task, meter.target)) for task in tasks]
        self._random = Random(0)
        for state in self.states:
            self._remember(state)

    @property
    def trials(self) -> int:
        """Choices measured, defaults aside."""
        return sum(len(state.ratios) - (state.space.default in state.ratios) for state in self.states)

    def _remember(self, state: State) -> None:
        """Take what the database knows of a task."""
        measured = {
            choice_of(dict(values), state.task, self._meter.target): median(seconds)
            for values, seconds in self._database.of(state.task).items()
        }
        state.seconds = measured.get(state.space.default, 0.0)
        if state.seconds:
            state.ratios = {c: s / state.seconds if s < FAILED else math.inf for c, s in measured.items()}
            state.ratios[state.space.default] = 1.0

    def _measure(self, wanted: Sequence[tuple[State, Choice]], passes: int) -> None:
        """Time some choices and put them into the database."""
        timings = self._meter.time([(state.task, state.space, choice) for state, choice in wanted], passes)
        for (state, choice), timing in zip(wanted, timings, strict=True):
            is_default = choice == state.space.default
            if is_default:
                require(timing, f"the default of layer {state.task.layers[-1]} ({state.task})")
            seconds = timing.seconds(state.seconds or None)
            self._database.commit(state.task, state.space, knobs(choice), seconds, self._meter.target)
            self._remember(state)
            self._report(state)

    def measure_defaults(self) -> None:
        """Trial 0 of every task: what the search has to beat, and where the time goes."""
        missing = [(state, state.space.default) for state in self.states if not state.seconds]
        for start in range(0, len(missing), BATCH):
            self._measure(missing[start : start + BATCH], 2)

    def run(self, trials: int) -> None:
        """Measure until there are `trials` choices in the database, or nothing is left to try."""
        while self.trials < trials:
            wanted = self._next(min(BATCH, trials - self.trials))
            if not wanted:
                return
            self._measure(wanted, 2)

    def _next(self, count: int) -> list[tuple[State, Choice]]:
        """The choices to measure now. Each is chosen as if those before it had turned out as the model expects."""
        rows, numbers, values = self._observed()
        pools = [self._pool(state) for state in self.states]
        model = Model(np.array(rows), numbers, np.array(values))
        offers = {number: self._offer(number, pool, model) for number, pool in enumerate(pools) if pool}
        taken: list[tuple[State, Choice]] = []
        while offers and len(taken) < count:
            number = max(offers, key=lambda number: offers[number][0])
            _, option, mean = offers.pop(number)
            taken.append((self.states[number], option))
            rows.append(pools[number].pop(option))
            numbers.append(number)
            values.append(mean)
            # what is expected of the other tasks hardly changes by this
            if pools[number]:
                model = Model(np.array(rows), numbers, np.array(values))
                offers[number] = self._offer(number, pools[number], model)
        return taken

    def _offer(self, number: int, pool: dict[Choice, np.ndarray], model: Model) -> tuple[float, Choice, float]:
        """The best choice of a task: the seconds an inference that it is expected to save, and its expected `y`."""
        state, options = self.states[number], list(pool)
        mean, deviation = model.predict(np.array([pool[option] for option in options]), number)
        gains = expected_gain(mean, deviation, math.log(state.ratio)) * state.ratio * state.total
        place = int(np.argmax(gains))
        return float(gains[place]), options[place], float(mean[place])

    def _observed(self) -> tuple[list[np.ndarray], list[int], list[float]]:
        """All measurements as the model wants them."""
        rows: list[np.ndarray] = []
        numbers: list[int] = []
        values: list[float] = []
        for number, state in enumerate(self.states):
            for choice, ratio in state.ratios.items():
                if choice != state.space.default:
                    rows.append(self._differences(state, choice))
                    numbers.append(number)
                    # a failure counts as slow; how slow does not matter, and would bend the model
                    values.append(min(1.5, math.log(ratio)) if math.isfinite(ratio) else 1.5)
        return rows, numbers, values

    def _pool(self, state: State) -> dict[Choice, np.ndarray]:
        """The choices of a task that compete, with their features; those measured are not among them."""
        drawn: list[Choice] = [] if state.centres else state.space.sample(self._random, POOL)
        for centre in dict.fromkeys((state.space.default, state.best)):
            if centre not in state.centres:
                state.centres.add(centre)
                around = state.space.neighbours(centre)
                drawn += self._random.sample(around, min(NEAR, len(around)))
        state.pool.update({c: self._differences(state, c) for c in drawn if c not in state.pool})
        if len(state.pool) > 4 * POOL:  # those around former bests
            state.pool = dict(list(state.pool.items())[-2 * POOL :])
        for choice in state.ratios:
            state.pool.pop(choice, None)
        state.pool.pop(state.space.default, None)
        return state.pool

    def _differences(self, state: State, choice: Choice) -> np.ndarray:
        spec = state.task.spec
        base = features(spec, state.space.default, self._meter.target, self._threads)
        return np.asarray(features(spec, choice, self._meter.target, self._threads) - base)

    def confirm(self) -> None:
        """Measure again, and longer, what looks better than the default: the best of many is lucky as well as good."""
        for _ in range(_MOST_CONFIRMED):
            wanted = [
                (state, state.best)
                for state in self.states
                if state.ratio < WORTH and self._database.times_measured(state.task, knobs(state.best)) < 2
            ]
            for start in range(0, len(wanted), BATCH):
                self._measure(wanted[start : start + BATCH], CONFIRM_PASSES)
