"""Images a second: several streams at once, each with a handle and threads of its own, engine after engine in rounds.

Latency asks how long one picture takes with all cores; throughput how many a machine computes when pictures wait.
Streams of few threads each lose less at the barriers between layers, which is why the best number is rarely one.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..bundles import engines
from ..errors import UsageError
from ..feeds import feed
from ..progress import NONE, Progress
from ..runtime.bundle import Bundle

ROUNDS = 5
WINDOW_S, _LEAST = 1.0, 3
"""How long a round of an engine lasts at least, and how many calls each stream makes at least."""

Calls = Sequence[Callable[[], object]]


def throughput(
    bundle: Bundle,
    names: Sequence[str],
    streams: int,
    *,
    threads: int | None = None,
    rounds: int = ROUNDS,
    window_s: float = WINDOW_S,
    progress: Progress = NONE,
) -> list[dict[str, Any]]:
    """Measure the compiled library of a bundle and other engines on the same random input.

    Args:
        names: of `engines.STREAMED`.
        streams: handles that run at the same time.
        threads: of each stream; the cores this process may use, shared out, where None.
        rounds, window_s: as for `measure`; two rounds at least.

    Returns:
        A row an engine: ``engine``, ``batch``, ``streams``, ``threads`` (of a stream), ``images_per_second`` (the
        median of the rounds), ``sd`` and ``rounds``. OpenVINO has its throughput hint with so many streams.

    Raises:
        UsageError: an engine has no streams.
        DeployError: as `engines.make`.
    """
    for name in names:
        if name not in engines.STREAMED:
            message = f"--streams is not for {name}"
            raise UsageError(message, kind="usage", got=name, allowed=list(engines.STREAMED))
    each = threads or max(1, engines.default_threads() // streams)
    arrays = list(feed(bundle.manifest["inputs"]).values())
    batch = bundle.input_shape[0]
    progress.stage("streams")
    calls: dict[str, Calls] = {
        name: [lambda run=run: run(*arrays) for run in engines.streams(name, bundle, streams, each)]  # type: ignore[misc]
        for name in dict.fromkeys(names)
    }
    rates = measure(calls, rounds=rounds, window_s=window_s, progress=progress)
    return [
        {
            "engine": name,
            "batch": batch,
            "streams": streams,
            "threads": each,
            "images_per_second": round(batch * statistics.median(found), 2),
            "sd": round(batch * statistics.stdev(found), 2),
            "rounds": len(found),
        }
        for name, found in rates.items()
    ]


def measure(
    calls: Mapping[str, Calls], *, rounds: int = ROUNDS, window_s: float = WINDOW_S, progress: Progress = NONE
) -> dict[str, list[float]]:
    """Calls a second of every engine, in rounds that take turns.

    Args:
        calls: of each engine a function a stream; all of its functions run at the same time, again and again.
        window_s: how long a round of an engine lasts at least, in seconds.
    """
    for streams in calls.values():
        rate(streams, 0.0, 1)  # a warm-up
    found: dict[str, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for done in range(rounds):
        first = done % len(names)
        for name in names[first:] + names[:first]:
            found[name].append(rate(calls[name], window_s))
        progress.update(done + 1, rounds)
    return found


def rate(streams: Calls, window_s: float, least: int = _LEAST) -> float:
    """Calls a second of functions that run at the same time, each at least `least` times and for at least `window_s`.

    Raises:
        Exception: what a function raised.
    """
    counts = [0] * len(streams)
    faults: list[BaseException] = []
    start = threading.Barrier(len(streams) + 1)

    def work(index: int) -> None:
        start.wait()
        until = time.perf_counter() + window_s
        try:
            while counts[index] < least or time.perf_counter() < until:
                streams[index]()
                counts[index] += 1
        except BaseException as error:
            faults.append(error)

    workers = [threading.Thread(target=work, args=(index,)) for index in range(len(streams))]
    for worker in workers:
        worker.start()
    start.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    seconds = time.perf_counter() - began
    if faults:
        raise faults[0]
    return sum(counts) / seconds
