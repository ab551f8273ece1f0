"""The job of `tune` on one page: a network in, a database of measured choices out.

resolve, export, optimise   --model becomes the ONNX that `export` would compile
measure defaults            every task as it is: where the time goes, and what has to be beaten
search                      trials, each to the task that is expected to gain most
confirm                     the winners again, longer
compare                     the whole network, untuned and tuned, in turns
"""

from __future__ import annotations

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..bundles.engines import default_threads
from ..errors import DeployError
from ..graph import driver
from ..lower.lower import layers_for, lower
from ..progress import NONE, Progress, Stopwatch
from ..reports.bench import interleave
from ..runtime import compiled
from ..sources import resolve
from ..targets import parse
from ..targets.cpu import Cpu
from . import database as databases
from .devices import remote_runners, servers
from .measure import Meter, local_runners
from .search import Search, State
from .task import Task, tasks_of
from .trial import Setting
from .tuned import better, identity, tunable, with_choices

_COMPARE_RUNS = 30
_LEAST_BETWEEN_NOTES = 32


def tune(
    request: resolve.Request,
    destination: Path,
    *,
    target: str = "cpu",
    trials: int,
    resume: bool = False,
    tracker: tuple[str, int] | None = None,
    device_key: str | None = None,
    threads: int | None = None,
    progress: Progress = NONE,
) -> dict[str, Any]:
    """Search for faster choices of a network's kernels, and keep every measurement in the database `destination`.

    Args:
        trials: choices to measure in all, those of an interrupted run included; defaults are not counted.
        resume: go on with the database that is there.
        tracker, device_key: measure on the devices that TVM's RPC tracker knows by this key, not here.
        threads: that a network will run on; None for all of this machine's cores.

    Returns:
        The document of ``tune``.

    Raises:
        UsageError: an unknown model or target, or one that has nothing to tune.
        DeployError: the database cannot be used, or nothing can be measured.
    """
    watch = Stopwatch(progress)
    goal = tunable(parse(target))
    if reason := goal.unbuildable():
        raise DeployError(f"target {goal.name} cannot be built here: {reason}", kind="target", got=goal.name)
    threads = threads or default_threads()
    if tracker is None:
        if reason := goal.missing():
            message = f"{goal.name} cannot be measured here ({reason}); measure on devices with --tracker and --key"
            raise DeployError(message, kind="target", got=goal.name)
        runners = local_runners(threads)
    else:
        count = servers(*tracker, device_key or "")
        watch.note(f"measuring on {count} devices of the tracker at {tracker[0]}:{tracker[1]}")
        runners = remote_runners(*tracker, device_key or "", threads, count)
    watch.stage("resolve")
    source = resolve.resolve(request)
    owner = identity(source.name, goal)
    # opened first: what is wrong with it should not take a minute to be told
    opened, notes = databases.resume(destination, owner) if resume else (databases.create(destination, owner), [])
    with opened, opened.removed_if_empty():
        for note in (*source.notes, *notes):
            watch.note(note)
        watch.stage("export")
        model, _ = driver.optimise(source.onnx(lambda what: watch.update(0, 0, what)), target=goal.kind)
        del source
        untuned = lower(model, goal)
        found = tasks_of(layers_for(model, goal).layers)
        if not found:
            raise DeployError(f"{owner.model} has no layer that can be tuned", kind="tune", got=owner.model)
        meter = Meter(goal, Setting(threads, len(untuned.weights)), runners)
        try:
            search = _search(found, opened, meter, threads, trials, watch)
        finally:
            meter.close()
        best = better(opened, goal)
        before = 1e3 * sum(state.total for state in search.states)
        after = 1e3 * sum(s.total * (best[s.task.key].ratio if s.task.key in best else 1.0) for s in search.states)
        if tracker is None:
            watch.stage("compare")
            tuned = lower(model, with_choices(goal, best))
            before, after = compare(goal, untuned, tuned, threads, watch)
        return {
            "tasks": len(found),
            "trials": search.trials,
            "records": len(opened.records),
            "better": len(best),
            "before_ms": round(before, 4),
            "after_ms": round(after, 4),
            "measured": "network" if tracker is None else "tasks",
            "database": str(destination),
            "model": owner.model,
            "target": goal.name,
            "layers": [
                {
                    "task": str(state.task),
                    "count": state.task.count,
                    "default_ms": round(1e3 * state.seconds, 4),
                    "share": round(state.total / sum(s.total for s in search.states), 4),
                    "ratio": round(best[state.task.key].ratio, 4) if state.task.key in best else 1.0,
                    "choices": len(state.ratios),
                }
                for state in sorted(search.states, key=lambda s: -s.total)
            ],
            "seconds": watch.seconds(),
        }


def _search(
    found: list[Task], opened: databases.Database, meter: Meter, threads: int, trials: int, watch: Stopwatch
) -> Search:
    start, measured, total = time.perf_counter(), 0, 0

    def report(state: State) -> None:
        nonlocal measured, total
        measured += 1
        total = max(total, measured)  # confirmations come on top
        whole = sum(s.total for s in search.states)
        gained = 1 - sum(s.total * s.ratio for s in search.states) / whole
        left = max(0, total - measured) * (time.perf_counter() - start) / measured / 60
        told = f"{len(search.states)} tasks, {gained:.1%} gained, {left:.1f} min left"
        own = f"{state.task} ({state.total / whole:.1%} of the time): {state.ratio:.2f} of the default"
        watch.update(measured, total, f"{told}; {own}")
        if measured % max(_LEAST_BETWEEN_NOTES, total // 8) == 0:
            watch.note(f"{measured} of {total} measurements: {told}")

    search = Search(found, opened, meter, threads, report)
    total = max(0, trials - search.trials) + sum(not state.seconds for state in search.states)
    watch.stage("measure defaults")
    search.measure_defaults()
    watch.stage("search")
    search.run(trials)
    watch.stage("confirm")
    search.confirm()
    return search


def compare(goal: Cpu, untuned: Any, tuned: Any, threads: int, watch: Stopwatch) -> tuple[float, float]:
    """Median milliseconds of two plans of one network, run in turns on this machine."""
    with tempfile.TemporaryDirectory() as folder:
        calls = {}
        models = []
        for name, plan in {"untuned": untuned, "tuned": tuned}.items():
            place = Path(folder) / name
            place.mkdir()
            goal.build(plan, place, progress=watch.update)
            models.append(compiled.load(place, threads=threads))
            random = np.random.default_rng(0)
            inputs = [random.standard_normal(port.shape, dtype=np.float32) for port in models[-1].inputs]
            calls[name] = partial(models[-1].run, *inputs)
        try:
            found = interleave(calls, _COMPARE_RUNS)
        finally:
            for model in models:
                model.close()
        return found["untuned"]["p50_ms"], found["tuned"]["p50_ms"]
