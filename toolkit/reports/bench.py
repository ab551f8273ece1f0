"""Latency side by side: every engine on the same input with the same threads, in interleaved rounds.

A machine drifts (clocks, neighbours), so engine A's rounds are not measured before engine B's: each round runs every
engine once, in an order that rotates, and a ratio compares medians of the same minute.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ..bundles import device as device_of
from ..bundles import engines
from ..errors import UsageError
from ..feeds import feed
from ..progress import NONE, Progress
from ..runtime import bundle as bundles
from .throughput import throughput

Key = TypeVar("Key", bound=Hashable)

_WARM_UP = 3
_FIGURES = ("p50_ms", "p90_ms", "p99_ms", "mean_ms", "sd_ms")
_PAUSE_S, _TORCH_PAUSE_S = 0.002, 0.03
"""Between two runs: long enough for the other engine's workers to go to sleep. PyTorch's OpenMP looks for work for
20 ms before it does.
"""
ON_ONNX = ("onnxruntime", "openvino")
"""Engines that compute an ONNX of the bundle, not the library or the network's PyTorch module."""
PEERS_WANTED = ("onnxruntime", "openvino", "torch")
"""The engines that `report` times where they are installed: torch-compile takes minutes before its first run."""


def bench(
    paths: Sequence[Path],
    *,
    against: Sequence[str] = (),
    runs: int = 30,
    threads: int | None = None,
    driver: Path | None = None,
    streams: int | None = None,
    batches: Sequence[int] = (),
    progress: Progress = NONE,
) -> list[dict[str, Any]]:
    """Time the compiled libraries of some bundles, and the engines `against` them, each on one random input of its own.
    All of them take turns, so that bundles compare with each other as well. `driver` as `engines.make` takes it.

    Args:
        batches: of bundles of several plans, those to time, by their numbers of images; all where none is named.

    Returns:
        A document of ``bench`` a bundle, with ``bundle`` (its path), ``model`` and ``precision``. A row of ``results``
        has ``onnx``, the file that the engine computed, where it is not our library. ``ratio[peer]`` is our median over
        the peer's, and ``ratio_to_first`` over that of the first bundle: below 1 we are faster. With `streams` also
        ``throughput``, the rows of `throughput.throughput`; `threads` is what a stream has then, and the latency takes
        so many, too. Of a bundle of several plans the document is of the first that is timed, and ``plans`` has one for
        each of the others, the same without ``bundle``, ``model``, ``target``, ``precision``.

    Raises:
        UsageError: there is no such engine, or no plan for so many images.
        DeployError: an engine is not installed or cannot run a bundle here.
    """
    for name in against:
        engines.check_peer(name)
    each, threads = threads, threads or engines.default_threads()
    with ExitStack() as stack:
        progress.stage("load")
        opened = [stack.enter_context(bundles.open(path)) for path in paths]
        for note in dict.fromkeys(engines.simulated(bundle, driver) for bundle in opened):
            if note:
                progress.note(note)
        timed = [_chosen(bundle, batches) for bundle in opened]
        starts = [0, *accumulate(map(len, timed))]
        every = [plan for plans in timed for plan in plans]
        calls: dict[tuple[int, str], Callable[[], object]] = {}
        for index, bundle in enumerate(every):
            arrays = feed(bundle.manifest["inputs"]).values()
            for name in dict.fromkeys(["compiled", *against]):
                engine = engines.make(name, bundle, threads=threads, driver=driver if name == "compiled" else None)
                calls[index, name] = partial(engine.run, *arrays)
        measured = interleave(calls, runs, progress, pause_s=pause_s(name for _, name in calls))
        rates = [
            throughput(bundle, ["compiled", *against], streams, threads=each, progress=progress) if streams else None
            for bundle in every
        ]
        documents = [
            _of_bundle(
                bundle,
                {name: figures for (number, name), figures in measured.items() if number == index},
                threads,
                measured[0, "compiled"]["p50_ms"],
            )
            | ({} if rates[index] is None else {"throughput": rates[index]})
            for index, bundle in enumerate(every)
        ]
        return [_with_plans(documents[start:end]) for start, end in pairwise(starts)]


def _chosen(bundle: bundles.Bundle, batches: Sequence[int]) -> list[bundles.Bundle]:
    """The plans of a bundle that are for one of these numbers of images; all where none is named."""
    if missing := [rows for rows in batches if rows not in bundle.batches]:
        message = f"bundle {bundle.source} has no plan for {missing[0]} images"
        raise UsageError(message, kind="batch", got=missing[0], allowed=list(bundle.batches))
    return [plan for plan, rows in zip(bundle.plans, bundle.batches, strict=True) if not batches or rows in batches]


def _with_plans(documents: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The document of a bundle, of those of its plans."""
    first, *others = documents
    if not others:
        return first
    common = ("bundle", "model", "target", "precision", "machine", "threads")
    return first | {"plans": [{key: d[key] for key in d if key not in common} for d in others]}


def bench_device(
    paths: Sequence[Path],
    device: str,
    *,
    runs: int = 30,
    threads: int | None = None,
    batches: Sequence[int] = (),
    progress: Progress = NONE,
) -> list[dict[str, Any]]:
    """Time the programs of some bundles on another machine, one bundle, and one plan of it, after the other.

    Args:
        device: as `device.opened` takes it.
        batches: as `bench` takes them.

    Returns:
        A document of ``bench`` a bundle, without peers, with ``device``: what it tells of itself before (``clock_mhz``,
        ``celsius``) and after (``clock_mhz_after``, ``celsius_after``), None where it does not; and ``peak_kib``, the
        most memory that the program had.

    Raises:
        UsageError, DeployError: as `bench` and `device.opened`.
    """
    documents = []
    first_ms = 0.0
    for path in paths:
        with bundles.open(path) as bundle:
            plans = _chosen(bundle, batches)
            progress.stage(f"copy {path}")
            with device_of.opened(device, bundle, threads=threads) as there:
                of_plans = []
                for plan in plans:
                    before = there.facts()
                    progress.stage("measure")
                    several = len(bundle.batches) > 1
                    told = there.times(runs, plan.input_shape[0] if several else None)
                    first_ms = first_ms or told["p50_ms"]
                    of_plans.append(_of_device(plan, device, told, before, there.facts(), first_ms))
            documents.append(_with_plans(of_plans))
    return documents


def _of_device(
    bundle: bundles.Bundle,
    device: str,
    told: Mapping[str, Any],
    before: device_of.Facts,
    after: device_of.Facts,
    first_ms: float,
) -> dict[str, Any]:
    """A plan's document of ``bench``, of what the program told there; `first_ms` is the first median of all."""
    row = {"engine": "compiled", **{key: told[key] for key in _FIGURES}, "runs": told["runs"]}
    return {
        "machine": before.describe(),
        "threads": told["threads"],
        "batch": bundle.input_shape[0],
        "results": [row],
        "bundle": str(bundle.source),
        **{key: bundle.manifest[key] for key in ("model", "target", "precision")},
        "ratio": {},
        "ratio_to_first": round(row["p50_ms"] / first_ms, 4) if first_ms else 1.0,
        "device": {
            "url": device,
            "board": before.board or None,
            "cores": list(before.cores),
            "clock_mhz": before.mhz,
            "clock_mhz_after": after.mhz,
            "celsius": before.celsius,
            "celsius_after": after.celsius,
        },
        "peak_kib": told["peak_kib"],
    }


def _of_bundle(
    bundle: bundles.Bundle, measured: Mapping[str, Mapping[str, Any]], threads: int, first_ms: float
) -> dict[str, Any]:
    """A bundle's document of ``bench``; `first_ms` is the median of the first bundle's library."""
    rows: list[dict[str, Any]] = [{"engine": name, **figures} for name, figures in measured.items()]
    for row in rows:
        if row["engine"] in ON_ONNX:
            row["onnx"] = bundle.onnx.name
    ours = rows[0]["p50_ms"]
    return _document(threads, bundle.input_shape[0], rows) | {
        "bundle": str(bundle.source),
        **{key: bundle.manifest[key] for key in ("model", "target", "precision")},
        "ratio": {row["engine"]: round(ours / row["p50_ms"], 4) for row in rows[1:]},
        "ratio_to_first": round(ours / first_ms, 4),
    }


def bench_torch(
    name: str,
    *,
    backward: bool = False,
    runs: int = 10,
    threads: int | None = None,
    batch: int = 1,
    width: float = 1.0,
    num_classes: int | None = None,
    input_size: tuple[int, int] | None = None,
    progress: Progress = NONE,
) -> dict[str, Any]:
    """Time a network of the zoo in PyTorch: forward, and with `backward` forward and backward together too.

    Returns:
        The document of ``bench``; engines ``forward`` and ``forward-backward``.
    """
    import torch

    from ..models import build

    threads = threads or engines.default_threads()
    torch.set_num_threads(threads)
    progress.stage("build")
    module = build(name, width=width, num_classes=num_classes, input_size=input_size)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((batch, *module.input_shape), generator=generator)

    def forward() -> None:
        with torch.inference_mode():
            module(x)

    def forward_backward() -> None:
        module.zero_grad(set_to_none=True)
        module(x).square().mean().backward()

    calls: dict[str, Callable[[], object]] = {"forward": forward}
    if backward:
        calls["forward-backward"] = forward_backward
    rows = [{"engine": name, **figures} for name, figures in interleave(calls, runs, progress).items()]
    document = _document(threads, batch, rows)
    return document | {"model": module.spec.name, "framework": "torch", "ratio": {}}


def pause_s(names: Iterable[str]) -> float:
    """How long to wait between two runs of these engines."""
    return _TORCH_PAUSE_S if any(name.startswith("torch") for name in names) else _PAUSE_S


def interleave(
    calls: Mapping[Key, Callable[[], object]], runs: int, progress: Progress = NONE, *, pause_s: float = _PAUSE_S
) -> dict[Key, dict[str, Any]]:
    """Time every function `runs` times, in rounds of one call each, after a warm-up.

    Args:
        pause_s: how long to wait before each call.

    Returns:
        The `statistics_of` each, in the given order.
    """
    progress.stage("warm up")
    for call in calls.values():
        for _ in range(_WARM_UP):
            call()
    progress.stage("measure")
    seconds: dict[Key, list[float]] = {name: [] for name in calls}
    names = list(calls)
    for done in range(runs):
        first = done % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(pause_s)
            start = time.perf_counter()
            calls[name]()
            seconds[name].append(time.perf_counter() - start)
        progress.update(done + 1, runs)
    return {name: statistics_of(values) for name, values in seconds.items()}


def statistics_of(seconds: Sequence[float]) -> dict[str, Any]:
    """``p50_ms, p90_ms, p99_ms, mean_ms, sd_ms, runs`` of some durations; the deviation is that of the sample."""
    ms = np.asarray(seconds, dtype=np.float64) * 1e3
    p50, p90, p99 = np.percentile(ms, [50, 90, 99])
    sd = ms.std(ddof=1) if len(ms) > 1 else 0.0
    figures = {"p50_ms": p50, "p90_ms": p90, "p99_ms": p99, "mean_ms": ms.mean(), "sd_ms": sd}
    return {name: round(float(value), 4) for name, value in figures.items()} | {"runs": len(ms)}


def machine() -> str:
    """The processor and its cores, in words, e.g. ``"Intel(R) Xeon(R) ..., 2 cores, Linux"``."""
    name = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    name = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {engines.default_threads()} cores, {platform.system()}"


def _document(threads: int, batch: int, results: list[dict[str, Any]]) -> dict[str, Any]:
    return {"machine": machine(), "threads": threads, "batch": batch, "results": results}
