"""Accuracy of a bundle on labelled pictures: its compiled library and onnxruntime on the same inputs.

Pictures are prepared by all workers, some dozens at a time, and then each engine computes them alone: what an engine is
said to take was measured with nothing else at work, and no core idles.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import artifact
from ..bundles import engines
from ..errors import DeployError, UsageError
from ..progress import NONE, Progress
from ..runtime import bundle as bundles
from ..runtime.model import Model
from . import labelled
from .classes import RULES
from .journal import Journal

if TYPE_CHECKING:
    from numpy.typing import NDArray

ENGINES = ("compiled", "onnxruntime")
BEST = 5
"""Classes that are kept of each picture, best first."""

AT_ONCE, _BYTES_AT_ONCE = 64, 128 << 20
"""Pictures that are prepared before the engines compute, and the memory that they may take."""


def evaluate(
    bundle: bundles.Bundle,
    path: Path,
    *,
    runtimes: Sequence[str] = (),
    table: Path | None = None,
    rule: str | None = None,
    labels: Path | None = None,
    images: int | None = None,
    workers: int | None = None,
    output: Path | None = None,
    resume: bool = False,
    threads: int | None = None,
    driver: Path | None = None,
    progress: Progress = NONE,
) -> dict[str, Any]:
    """Measure top-1 and top-5 of a bundle.

    Args:
        path, table, rule: the pictures and how their classes are told, see `labelled.read`.
        runtimes: of `ENGINES`; those that can run here where empty.
        labels: a text file, one class a line; the bundle's, or ImageNet's, where None.
        images: take only so many pictures, spread evenly.
        workers: threads that prepare pictures; the cores this process may use where None.
        output: a file of JSON lines to write, one a picture: its class, and each engine's best ones.
        threads, driver: as `engines.make` takes them.
        resume: go on with the `output` of an evaluation that was stopped.

    Returns:
        The document of ``evaluate``. ``top1`` and ``top5`` are percentages. ``images_per_second`` counts the engine's
        own time; ``seconds`` has all parts. ``per_class`` and ``confusion`` (what was taken for what, most first) are
        of the first engine.

    Raises:
        UsageError: there is no such engine or rule, or nothing to resume.
        DeployError: a picture is damaged, a class unknown, the outputs are no classes, or nothing can run here.
    """
    if resume and output is None:
        raise UsageError("--resume needs the --output to go on with", kind="usage", got="no --output", allowed="both")
    if rule is not None and rule not in RULES:
        raise UsageError(f"there is no rule '{rule}' for classes", kind="usage", got=rule, allowed=list(RULES))
    started = time.perf_counter()
    progress.stage("load")
    running, not_run = _engines(bundle, runtimes, threads, driver)
    model = Model(bundle, running[0].run, labels=labels)
    data = labelled.read(path, model.input, require_classes(model), table=table, rule=rule).spread(images)
    if data.classes is None:
        message = f"{path} does not say the classes of its pictures: {data.unlabelled}"
        raise DeployError(message, kind="data", got=str(path), allowed=labelled.ALLOWED)
    names = [engine.name for engine in running]
    head = {
        "format": 1,
        "model": model.name,
        "manifest_sha256": artifact.sha256(bundle.folder / bundles.MANIFEST),
        "data_sha256": data.fingerprint,
        "images": len(data),
        "engines": names,
        "best": min(BEST, len(model.labels)),
    }
    tally = Tally(names, len(model.labels))
    progress.stage("evaluate")
    with Journal(output, head, resume=resume) as journal:
        done = resumed = len(journal.rows)
        part = {"prepare": 0.0, "engines": 0.0}
        if done:
            before = {name: [row[name] for row in journal.rows] for name in names}
            tally.add(data.classes[:done], {name: [row["top"] for row in rows] for name, rows in before.items()})
            tally.seconds = {name: sum(row["ms"] for row in rows) / 1e3 for name, rows in before.items()}
        progress.update(done, len(data))
        for inputs, count in _chunks(data, model, done, workers, part):
            found: dict[str, tuple[NDArray[Any], float]] = {}
            for engine in running:
                if done == resumed:
                    engine.run(inputs[0])  # a warm-up
                found[engine.name] = _compute(engine, inputs, count)
                part["engines"] += found[engine.name][1]
            classes = data.classes[done : done + count]
            tally.add(classes, {name: best for name, (best, _) in found.items()})
            for name, (_, seconds) in found.items():
                tally.seconds[name] += seconds
            journal.write(_lines(data, done, count, found))
            done += count
            progress.update(done, len(data))
    spent = {**part, "all": time.perf_counter() - started}
    return {
        "bundle": str(bundle.source),
        **{key: bundle.manifest[key] for key in ("model", "target", "precision")},
        "data": str(path),
        "classes_by": data.by,
        "images": len(data),
        "resumed_at": resumed,
        "threads": threads or engines.default_threads(),
        "batch": model.batch,
        **tally.document(model.labels),
        "seconds": {name: round(value, 3) for name, value in spent.items()},
        "not_run": not_run,
        "output": None if output is None else str(output),
    }


def require_classes(model: Model) -> Sequence[str]:
    """The labels of a network that tells classes.

    Raises:
        DeployError: (kind ``evaluate``) its first output is no row of classes a picture, or it takes several inputs.
    """
    ports, shape = model.manifest["inputs"], model.manifest["outputs"][0]["shape"]
    if len(ports) > 1:
        message = f"{model.name} takes {len(ports)} inputs, pictures are one"
        raise DeployError(message, kind="evaluate", got=[port["name"] for port in ports], allowed="one input")
    if len(shape) < 2 or shape[0] != model.batch or math.prod(shape[2:]) != 1 or len(model.labels) != shape[1]:
        message = f"the first output of {model.name} is {shape}, which tells no classes"
        raise DeployError(message, kind="evaluate", got=shape, allowed="[batch, classes]")
    return model.labels


def _engines(
    bundle: bundles.Bundle, names: Sequence[str], threads: int | None, driver: Path | None
) -> tuple[list[engines.Engine], list[dict[str, str]]]:
    """The engines asked for, all of them; or where none is named those that can run here, and why others cannot."""
    for name in names:
        if name not in ENGINES:
            raise UsageError(f"there is no runtime '{name}'", kind="usage", got=name, allowed=list(ENGINES))
    found, not_run = [], []
    for name in dict.fromkeys(names or ENGINES):
        try:
            own = driver if name == "compiled" else None
            found.append(engines.make(name, bundle, threads=threads, driver=own))
        except (DeployError, ModuleNotFoundError) as error:
            if names:
                raise
            not_run.append({"engine": name, "reason": str(error)})
    if not found:
        message = "; ".join(f"{row['engine']}: {row['reason']}" for row in not_run)
        raise DeployError(message, kind="engine", got=str(bundle.source), allowed=list(ENGINES))
    return found, not_run


def _chunks(
    data: labelled.Labelled, model: Model, start: int, workers: int | None, seconds: dict[str, float]
) -> Iterator[tuple[list[NDArray[Any]], int]]:
    """The pictures from the `start`-th on, prepared: batches of the network's size, and how many rows count. What
    preparing took is added to ``seconds["prepare"]``.
    """
    size = int(np.prod(model.input.shape[1:])) * np.dtype(model.input.dtype).itemsize
    largest = max(model.batches)
    many = max(1, min(AT_ONCE, _BYTES_AT_ONCE // size) // largest) * largest
    rows = data.rows(start)
    with ThreadPoolExecutor(workers or engines.default_threads()) as pool:
        while True:
            began = time.perf_counter()
            taken = list(pool.map(lambda prepare: prepare(), islice(rows, many)))
            if not taken:
                return
            batches = labelled.batches(taken, model.batches)
            seconds["prepare"] += time.perf_counter() - began
            yield batches, len(taken)


def _compute(engine: engines.Engine, batches: Sequence[NDArray[Any]], count: int) -> tuple[NDArray[Any], float]:
    """The best classes of `count` pictures, (count, up to `BEST`), best first, and the seconds that the engine took."""
    seconds, best = 0.0, []
    for x in batches:
        began = time.perf_counter()
        logits = engine.run(x)[0]
        seconds += time.perf_counter() - began
        best.append(np.argsort(-logits.reshape(len(x), -1), axis=1, kind="stable")[:, :BEST])
    return np.concatenate(best)[:count], seconds


def _lines(
    data: labelled.Labelled, start: int, count: int, found: Mapping[str, tuple[NDArray[Any], float]]
) -> Iterator[dict[str, Any]]:
    """A line of the journal a picture."""
    assert data.classes is not None
    for row in range(count):
        yield {
            "picture": data.names[start + row],
            "class": int(data.classes[start + row]),
            **{
                name: {"top": best[row].tolist(), "ms": round(1e3 * seconds / count, 4)}
                for name, (best, seconds) in found.items()
            },
        }


class Tally:
    """What was right, by class and engine.

    Attributes:
        seconds: that each engine took.
    """

    def __init__(self, names: Sequence[str], classes: int) -> None:
        self.seconds = dict.fromkeys(names, 0.0)
        self._shown = np.zeros(classes, np.int64)
        self._right = {name: {1: np.zeros(classes, np.int64), BEST: np.zeros(classes, np.int64)} for name in names}
        self._same = dict.fromkeys(names, 0)
        self._taken_for: Counter[tuple[int, int]] = Counter()

    def add(self, classes: Sequence[int] | NDArray[np.int64], best: Mapping[str, Any]) -> None:
        """Count pictures of these classes, with each engine's best classes, (pictures, up to `BEST`)."""
        wanted = np.asarray(classes)
        first = next(iter(self.seconds))
        np.add.at(self._shown, wanted, 1)
        for name in self.seconds:
            got = np.asarray(best[name])
            hit = got == wanted[:, None]
            for depth, right in self._right[name].items():
                np.add.at(right, wanted, hit[:, :depth].any(axis=1))
            self._same[name] += int((got[:, 0] == np.asarray(best[first])[:, 0]).sum())
        self._taken_for.update(zip(wanted.tolist(), np.asarray(best[first])[:, 0].tolist(), strict=True))

    def document(self, labels: Sequence[str]) -> dict[str, Any]:
        """``engines``, ``per_class`` and ``confusion``."""
        count = int(self._shown.sum())
        first = next(iter(self.seconds))
        rows = []
        for name, right in self._right.items():
            top1, top5 = (int(right[depth].sum()) for depth in (1, BEST))
            rows.append(
                {
                    "engine": name,
                    "top1": _percent(top1, count),
                    "top5": _percent(top5, count),
                    "top1_interval": [round(bound, 4) for bound in interval(top1, count)],
                    "images_per_second": round(count / max(self.seconds[name], 1e-9), 2),
                    "same_top1": round(self._same[name] / count, 6),
                }
            )
        ours = self._right[first]
        per_class = [
            {
                "class": index,
                "label": labels[index],
                "images": int(self._shown[index]),
                "top1": _percent(ours[1][index], self._shown[index]),
                "top5": _percent(ours[BEST][index], self._shown[index]),
            }
            for index in np.flatnonzero(self._shown).tolist()
        ]
        taken = sorted(self._taken_for.items(), key=lambda pair: (-pair[1], pair[0]))
        confusion = [
            {
                "class": wanted,
                "label": labels[wanted],
                "predicted": got,
                "predicted_label": labels[got],
                "images": number,
            }
            for (wanted, got), number in taken
            if wanted != got
        ]
        return {"engines": rows, "per_class": per_class, "confusion": confusion}


def interval(right: int, count: int) -> tuple[float, float]:
    """In percent, where the top-1 of all pictures lies at 95 %, after `right` of `count` (Wilson's score interval)."""
    z = 1.959964
    share, weight = right / count, z * z / count
    centre = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / count + weight / count / 4)
    return 100 * max(0.0, centre - half), 100 * min(1.0, centre + half)


def _percent(right: int | np.int64, count: int | np.int64) -> float:
    return round(100 * int(right) / int(count), 4)
