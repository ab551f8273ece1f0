"""What of a search the whole network keeps: no tuning leaves it slower than it was.

A choice won against its default in a trial, where a layer stands alone. Here the network with all winners and the one
with the defaults run in turns, step by step: a task keeps its choice where the steps that do its work are faster by
more than the noise. Then the network with what was kept runs in turns with the untuned one as a whole; where that is
not faster by more than the noise, the defaults stay.
"""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .. import artifact
from ..lower.layers import Network
from ..lower.plan import Plan
from ..progress import Stopwatch
from ..runtime import compiled
from ..targets.base import Target
from .database import Database
from .task import key_of

SETTLED = "settled.json"
"""The file of a database that says which tasks keep what was found."""

ROUNDS, RUNS, MOST_RUNS = 15, 30, 90
"""Rounds of steps; of whole networks, until it is clear which one is faster, and at most."""

_STAGE = re.compile(r"(:\d+)?(:data|:products)?$")
"""What Winograd's stages, and bands of them, have behind the name of the layer."""


@dataclass(frozen=True)
class Settled:
    """What was kept.

    Attributes:
        digest: of the records that it is of.
        kept: tasks that take the best choice, by key.
        dropped: those whose choice won alone, but not in the network.
        before_ms, after_ms: medians of the network with the defaults, and with what was kept.
    """

    digest: str
    kept: tuple[str, ...]
    dropped: tuple[str, ...]
    before_ms: float
    after_ms: float


def owners(network: Network) -> dict[str, str]:
    """The task of each layer, by the name of its value."""
    found = {layer.value: key_of(layer) for layer in network.layers}
    return {name: key for name, key in found.items() if key is not None}


def wins(ratios: Sequence[float]) -> bool:
    """Whether a median is below 1 by more than twice what it may be off: `ratios` of two times in turns."""
    values = np.asarray(ratios, np.float64)
    middle = float(np.median(values))
    spread = 1.4826 * float(np.median(np.abs(values - middle)))
    return bool(middle + 2 * 1.2533 * spread / np.sqrt(len(values)) < 1)


class Contest:
    """Networks of one model on this machine, which run in turns."""

    def __init__(self, goal: Target, plans: Mapping[str, Plan], threads: int, watch: Stopwatch) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self.plans = dict(plans)
        self.models = {}
        for name, plan in plans.items():
            place = Path(self._folder.name) / name
            place.mkdir()
            goal.build(plan, place, progress=watch.update)
            self.models[name] = compiled.load(place, threads=threads)
        random = np.random.default_rng(0)
        ports = next(iter(self.models.values())).inputs
        self.inputs = [random.standard_normal(port.shape).astype(port.dtype) for port in ports]

    def __enter__(self) -> Contest:
        for model in self.models.values():
            model.run(*self.inputs)
        return self

    def __exit__(self, *_: object) -> None:
        for model in self.models.values():
            model.close()
        self._folder.cleanup()

    def turns(self, rounds: int, once: Callable[[str], Any]) -> dict[str, list[Any]]:
        """What `once` gives for each network, in rounds whose order changes."""
        found: dict[str, list[Any]] = {name: [] for name in self.models}
        names = list(self.models)
        for number in range(rounds):
            for name in names if number % 2 else names[::-1]:
                found[name].append(once(name))
        return found

    def seconds(self, name: str) -> float:
        """Of one run."""
        start = time.perf_counter()
        self.models[name].run(*self.inputs)
        return time.perf_counter() - start

    def tasks(self, name: str, of: Mapping[str, str]) -> dict[str, float]:
        """Milliseconds of one run, by task."""
        found: dict[str, float] = {}
        for step, taken in zip(self.plans[name].steps, self.models[name].profile(*self.inputs), strict=True):
            key = of.get(step.output) or of.get(_STAGE.sub("", step.output))
            if key is not None:
                found[key] = found.get(key, 0.0) + taken.ms
        return found


def settle(
    goal: Target,
    untuned: Plan,
    lower: Callable[[frozenset[str]], Plan],
    winners: frozenset[str],
    of: Mapping[str, str],
    threads: int,
    watch: Stopwatch,
) -> tuple[frozenset[str], float, float]:
    """Which winners the network keeps, and the medians of both networks in milliseconds.

    Args:
        lower: the plan with the choices of some tasks.
        winners: tasks that have one.
        of: the task of each layer, as `owners` has it.
    """
    kept = winners
    if winners:
        with Contest(goal, {"before": untuned, "after": lower(winners)}, threads, watch) as contest:
            rounds = contest.turns(ROUNDS, lambda name: contest.tasks(name, of))
        kept = frozenset(
            key
            for key in winners
            if wins([new[key] / old[key] for old, new in zip(rounds["before"], rounds["after"], strict=True)])
        )
    plans = {"before": untuned, **({"after": lower(kept)} if kept else {})}
    with Contest(goal, plans, threads, watch) as contest:
        seconds: dict[str, list[float]] = {name: [] for name in plans}
        while len(seconds["before"]) < MOST_RUNS:
            for name, values in contest.turns(RUNS, contest.seconds).items():
                seconds[name] += values
            if not kept or wins(_ratios(seconds)):
                break
    before = 1e3 * float(np.median(seconds["before"]))
    if not kept or not wins(_ratios(seconds)):
        return frozenset(), before, before
    return kept, before, 1e3 * float(np.median(seconds["after"]))


def _ratios(seconds: Mapping[str, Sequence[float]]) -> list[float]:
    return [new / old for old, new in zip(seconds["before"], seconds["after"], strict=True)]


def write(database: Database, settled: Settled) -> None:
    """Put it beside the records, whole or not at all."""
    with artifact.atomic_file(database.folder / SETTLED) as path:
        artifact.dump_json(asdict(settled), path)


def read(database: Database) -> Settled | None:
    """What was settled of the records that are there; None where it was not, or more was measured since."""
    try:
        document = json.loads((database.folder / SETTLED).read_text(encoding="utf-8"))
        found = Settled(**{**document, "kept": tuple(document["kept"]), "dropped": tuple(document["dropped"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return found if found.digest == database.digest() else None
