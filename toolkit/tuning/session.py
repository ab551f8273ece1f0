"""The job of `tune` on one page: a network in, a database of judged choices out.

resolve, export, optimise   --model becomes the ONNX that `export` would compile
measure defaults            every task as it is: where the time goes, and what has to be beaten
search                      trials, each to the task that is expected to gain most
confirm                     the winners again, longer
settle                      the whole network, untuned and tuned, in turns: what is faster there is kept

Where a model says how long a kernel takes (`Target.modelled`), `modelled` does what stands behind the export.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from ..bundles.engines import default_threads
from ..errors import DeployError, UsageError
from ..graph import driver
from ..lower.lower import layers_for, lower
from ..progress import NONE, Progress, Stopwatch
from ..quantize import quantize
from ..quantize.integer_network import is_quantized
from ..quantize.quantizer import Recipe
from ..sources import resolve
from ..targets import parse
from ..targets.base import Target
from ..targets.cpu import Cpu
from ..targets.cuda import Cuda
from ..targets.vta_target import VtaTarget
from . import database as databases
from . import modelled, settle, told
from .devices import remote_runners, servers
from .measure import Meter, Runners, local_runners
from .over_ssh import OverSsh
from .search import Search, State
from .task import Task, tasks_of
from .trial import Setting
from .tuned import better, identity, tunable, with_choices

_LEAST_BETWEEN_NOTES = 32
_PICTURES = 16


def tune(
    request: resolve.Request,
    destination: Path,
    *,
    target: str = "cpu",
    precision: str | None = None,
    scheme: str | None = None,
    trials: int,
    resume: bool = False,
    tracker: tuple[str, int] | None = None,
    device_key: str | None = None,
    device: str | None = None,
    threads: int | None = None,
    progress: Progress = NONE,
) -> dict[str, Any]:
    """Search for faster choices of a network's kernels, and keep every measurement in the database `destination`.

    Args:
        precision: one that the target computes in; None for int8 where the network is a quantized one, and fp32
            otherwise. A float network is quantized on random pictures: times do not depend on what its scales are.
        scheme: how it is quantized; None for the target's own.
        trials: choices to judge in all, those of an interrupted run included; defaults are not counted.
        resume: go on with the database that is there.
        tracker, device_key: measure on the devices that TVM's RPC tracker knows by this key, not here.
        device: measure on this one, ``ssh://[user@]host[:port]``.
        threads: that a network will run on; None for all of this machine's cores. Not of a GPU.

    Returns:
        The document of ``tune``.

    Raises:
        UsageError: an unknown model or target, or one that has nothing to tune.
        DeployError: the database cannot be used, or nothing can be measured.
    """
    watch = Stopwatch(progress)
    goal = tunable(parse(target), precision or parse(target).precision_by_default or "fp32")
    if reason := goal.unbuildable():
        raise DeployError(f"target {goal.name} cannot be built here: {reason}", kind="target", got=goal.name)
    if scheme is not None:
        goal.check_scheme(scheme)
    if tracker and device:
        raise UsageError("--tracker and --device exclude each other", kind="usage", got=device, allowed="one of them")
    if goal.modelled and (tracker or threads or device):
        got = "--tracker" if tracker else "--device" if device else "--threads"
        message = f"{got} is for what is measured, and the time of {goal.name} follows from a model"
        raise UsageError(message, kind="usage", got=got, allowed="none of --tracker, --device, --threads")
    if isinstance(goal, Cuda) and (device or threads):
        got = "--device" if device else "--threads"
        message = f"{got} is for CPUs; {goal.name} is measured on a GPU of this machine, or on devices of a tracker"
        raise UsageError(message, kind="usage", got=got, allowed="--tracker and --key, or neither")
    over_ssh = _over_ssh(goal, device, threads, watch) if device else None
    threads = over_ssh.threads if over_ssh else threads or (1 if goal.isa.gpu else default_threads())
    runners: Runners | None = over_ssh
    if runners is None and not goal.modelled:
        runners = _runners(goal, tracker, device_key or "", threads, watch)
    watch.stage("resolve")
    source = resolve.resolve(request)
    if precision is None and source.file is not None:
        given = onnx.load(source.file, load_external_data=False)
        goal = tunable(parse(target), "int8") if is_quantized(given) else goal
    owner = identity(source.name, goal)
    # opened first: what is wrong with it should not take a minute to be told
    opened, notes = databases.resume(destination, owner) if resume else (databases.create(destination, owner), [])
    with opened, opened.removed_if_empty():
        for note in (*source.notes, *notes):
            watch.note(note)
        watch.stage("export")
        model, _ = driver.optimise(source.onnx(lambda what: watch.update(0, 0, what)), target=goal.kind)
        del source
        if goal.integers and not is_quantized(model):
            model = _quantized(model, goal, scheme or goal.scheme_by_default, watch)
        if isinstance(goal, VtaTarget):
            document = modelled.tune(model, goal, opened, trials, watch)
        else:
            assert runners is not None
            document = _measured(model, goal, opened, trials, threads, runners, not (tracker or device), watch)
        return {
            **document,
            "records": len(opened.records),
            "database": str(destination),
            "model": owner.model,
            "target": goal.name,
            "seconds": watch.seconds(),
        }


def _over_ssh(goal: Target, url: str, threads: int | None, watch: Stopwatch) -> OverSsh:
    """Where trials run: one device."""
    assert isinstance(goal, Cpu)
    found = OverSsh(url, goal, threads)
    watch.note(f"measuring on {url} ({found.told}), on {found.threads} threads")
    return found


def _runners(goal: Target, tracker: tuple[str, int] | None, key: str, threads: int, watch: Stopwatch) -> Runners:
    """Where trials run."""
    if tracker is None:
        if reason := goal.missing():
            others = "measure on another machine with --device, or on several with --tracker and --key"
            if isinstance(goal, Cuda):
                others = f"it takes {goal.needs()}: run tune there, or measure on devices of --tracker with --key"
            message = f"{goal.name} cannot be measured here ({reason}); {others}"
            raise DeployError(message, kind="target", got=goal.name)
        return local_runners(threads)
    count = servers(*tracker, key)
    watch.note(f"measuring on {count} devices of the tracker at {tracker[0]}:{tracker[1]}")
    return remote_runners(*tracker, key, threads, count)


def _measured(
    model: onnx.ModelProto,
    goal: Target,
    opened: databases.Database,
    trials: int,
    threads: int,
    runners: Runners,
    here: bool,
    watch: Stopwatch,
) -> dict[str, Any]:
    """Search by measuring, `here` or on devices; the document."""
    untuned, network = lower(model, goal), layers_for(model, goal)
    of, found = settle.owners(network), tasks_of(network.layers)
    if not found:
        raise told.nothing(opened.identity.model)
    meter = Meter(goal, Setting(threads, len(untuned.weights)), runners)
    lanes = goal.isa.of_card.multiprocessors if goal.isa.gpu else threads
    try:
        search = _search(found, opened, meter, lanes, trials, watch)
    finally:
        meter.close()
    best = better(opened, goal)
    before = 1e3 * sum(state.total for state in search.states)
    after = 1e3 * sum(s.total * (best[s.task.key].ratio if s.task.key in best else 1.0) for s in search.states)
    kept = frozenset(best)
    if here:
        watch.stage("settle")

        def chosen(keys: frozenset[str]) -> Any:
            return lower(model, with_choices(goal, {key: best[key] for key in keys}))

        kept, before, after = settle.settle(goal, untuned, chosen, kept, of, threads, watch)
        dropped = tuple(sorted(best.keys() - kept))
        settle.write(opened, settle.Settled(opened.digest(), tuple(sorted(kept)), dropped, before, after))
    rows = [
        told.row(s.task, best.get(s.task.key), kept, 1e3 * s.seconds, len(s.ratios))
        for s in sorted(search.states, key=lambda s: -s.total)
    ]
    of_what = "network" if here else "tasks"
    return told.document(rows, search.trials, len(best), len(kept), before, after, of_what)


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


def _quantized(model: onnx.ModelProto, goal: Target, scheme: str, watch: Stopwatch) -> onnx.ModelProto:
    """In int8, with the scales of random pictures."""
    watch.stage("quantize")
    shape = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim][1:]
    random = np.random.default_rng(0)
    pictures = [random.standard_normal(shape, dtype=np.float32) for _ in range(_PICTURES)]
    return quantize(model, pictures, recipe=Recipe(scheme=scheme, choices=goal.choices_by_default())).model
