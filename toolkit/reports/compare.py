"""Bundles beside each other: what they give for the same pictures, how fast, how large, how accurate.

The first bundle is what the others are held against, e.g. the one that is in use: a ratio is another one's over its.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import artifact
from ..bundles import engines
from ..errors import DeployError, UsageError
from ..feeds import feed
from ..progress import NONE, Progress
from ..runtime import bundle as bundles
from ..runtime.model import Model
from . import bench, check, criterion, labelled
from .differ import differences
from .evaluate import AT_ONCE, BEST, Tally, require_classes

if TYPE_CHECKING:
    from numpy.typing import NDArray

FIGURES: Mapping[str, str] = {
    "latency": "p50 of an image, over that of the first bundle",
    "size": "bytes of the bundle, over those of the first",
    "memory": "bytes of weights and activations, over those of the first",
    "max_rel": "largest difference of the outputs, relative to the largest output of the first",
    "cosine": "of the outputs to those of the first",
    "same_top1": "share of the pictures with the same best class, 0 to 1",
    "drop": "points of top-1 lost against the first; with labelled pictures",
    "top1": "percent; with labelled pictures",
    "p50_ms": "of a call, a whole batch",
}
"""What ``--fail-if`` may speak of, of a bundle and the first one."""

_TIMES = ("p50_ms", "p90_ms", "p99_ms", "mean_ms", "sd_ms")
_APART = 12
"""Pictures of different best classes that a pair names."""

_FEEDS = 4
"""Random inputs on which networks are compared that take no pictures."""


@dataclass(eq=False)
class _Contender:
    """A bundle in the comparison.

    Attributes:
        engine: what gives its outputs.
        row: its row of the document.
        tally: of its accuracy, where the pictures are labelled.
    """

    model: Model
    engine: engines.Engine
    row: dict[str, Any]
    tally: Tally | None = None


def compare(
    paths: Sequence[Path],
    *,
    data: Path | None = None,
    table: Path | None = None,
    rule: str | None = None,
    labels: Path | None = None,
    images: int | None = None,
    runs: int = 30,
    fail_if: Sequence[str] = (),
    threads: int | None = None,
    driver: Path | None = None,
    progress: Progress = NONE,
) -> dict[str, Any]:
    """Compare bundles.

    Args:
        paths: two or more bundles.
        data, table, rule: pictures, see `labelled.read`; a photo in several crops where None, and random inputs where a
            network takes no pictures.
        labels: of the classes, where neither the bundles nor ImageNet say them.
        images: take only so many pictures, spread evenly.
        runs: rounds of the measurement of speed.
        threads, driver: as `engines.make` takes them.
        fail_if: conditions on `FIGURES`, see `criterion`; each is held for every bundle against the first.

    Returns:
        The document of ``compare``. ``p50_ms`` is of a call; ``ratio_p50`` is of one image, the second over the first.
        Where a bundle cannot run here, its outputs are its ONNX's in onnxruntime and its times None: ``not_run`` says
        why. ``max_rel``, ``cosine`` and ``same_top1`` are of the first outputs; None, with ``not_compared``, where they
        are of different shapes. ``apart`` names the first pictures of different best classes. ``differences`` is what
        the manifests say of each that is not the same. ``conditions`` has the verdict on each; ``failed`` those that
        held, ``ok`` is false where there is one.

    Raises:
        UsageError: fewer than two bundles, or a condition that is none.
        DeployError: a bundle or a picture is damaged.
    """
    if len(paths) < 2:
        raise UsageError("compare takes two bundles or more", kind="usage", got=len(paths), allowed="A B [C ...]")
    conditions = [criterion.parse(text, FIGURES) for text in fail_if]
    threads = threads or engines.default_threads()
    with ExitStack() as stack:
        progress.stage("load")
        opened = [stack.enter_context(bundles.open(path)) for path in paths]
        contenders = [_contender(bundle, threads, driver, labels) for bundle in opened]
        pairs = [_Pair(one, other) for index, one in enumerate(contenders) for other in contenders[index + 1 :]]
        progress.stage("compare")
        seen = _outputs(contenders, pairs, partial(_pictures, data, table, rule, images), data is not None, progress)
        _speed(contenders, opened, runs, progress)
    for contender in contenders:
        if contender.tally is not None:
            (accuracy,) = contender.tally.document(contender.model.labels)["engines"]
            contender.row |= {key: accuracy[key] for key in ("top1", "top5", "top1_interval")}
    documents = [pair.document() for pair in pairs]
    judged = [found for pair in pairs[: len(paths) - 1] for found in _judged(pair, conditions)]
    failed = [{key: row[key] for key in ("expression", "bundle", "values")} for row in judged if row["holds"]]
    return {
        "bundles": [contender.row for contender in contenders],
        "pairs": documents,
        "inputs": seen,
        "machine": bench.machine(),
        "threads": threads,
        "runs": runs,
        "differences": differences([bundle.manifest for bundle in opened]),
        "conditions": judged,
        "failed": failed,
        "ok": not failed,
    }


def _contender(bundle: bundles.Bundle, threads: int, driver: Path | None, labels: Path | None) -> _Contender:
    """A bundle with what computes it: its library, or its ONNX in onnxruntime where that cannot run here."""
    reason = None
    try:
        engine = engines.make("compiled", bundle, threads=threads, driver=driver)
    except DeployError as error:
        if error.kind not in ("target", "cpu"):
            raise
        engine, reason = engines.make("onnxruntime", bundle, threads=threads), error.message
    memory = bundle.manifest["memory"]
    row = {
        "bundle": str(bundle.source),
        **{key: bundle.manifest[key] for key in ("model", "precision", "target")},
        "batch": bundle.input_shape[0],
        "engine": engine.name,
        "not_run": reason,
        **dict.fromkeys(_TIMES),
        "bytes": sum(path.stat().st_size for path in artifact.files_below(bundle.folder)),
        "memory_bytes": memory["arena_bytes"] + memory["weights_bytes"],
        **memory,
        "top1": None,
    }
    return _Contender(Model(bundle, engine.run, labels=labels), engine, row)


def _pictures(
    data: Path | None, table: Path | None, rule: str | None, images: int | None, model: Model
) -> labelled.Labelled:
    """The pictures, as rows of this network's input."""
    if data is None:
        return labelled.crops(check.PHOTO, model.input).spread(images)
    return labelled.read(data, model.input, model.labels, table=table, rule=rule, must=rule is not None).spread(images)


def _outputs(
    contenders: Sequence[_Contender],
    pairs: Sequence[_Pair],
    read: Callable[[Model], labelled.Labelled],
    given: bool,
    progress: Progress,
) -> dict[str, Any]:
    """Show all bundles the same inputs; gives what these were."""
    if not given and any(contender.model.preprocessing is None for contender in contenders):
        return _random(contenders, pairs)
    sources: dict[str, labelled.Labelled] = {}
    keys = []
    for contender in contenders:
        model = contender.model
        if len(model.manifest["inputs"]) > 1:
            message = f"{model.name} takes {len(model.manifest['inputs'])} inputs, pictures are one"
            raise DeployError(message, kind="input", got=contender.row["bundle"], allowed="one input, or no --data")
        keys.append(json.dumps([model.manifest["inputs"][0], model.manifest["preprocessing"], list(model.labels)]))
        if keys[-1] not in sources:
            sources[keys[-1]] = read(model)
        if sources[keys[-1]].classes is not None:
            require_classes(model)
            contender.tally = Tally([contender.engine.name], len(model.labels))
    first = sources[keys[0]]
    unlabelled = next((source.unlabelled for source in sources.values() if source.unlabelled), None)
    done = 0
    for rows in _prepared(sources):
        count = len(rows[keys[0]])
        found = []
        for contender, key in zip(contenders, keys, strict=True):
            outputs = _first_outputs(contender, labelled.batches(rows[key], contender.model.batches))[:count]
            found.append(outputs)
            classes = sources[key].classes
            if contender.tally is not None and classes is not None:
                best = np.argsort(-outputs.reshape(count, -1), axis=1, kind="stable")[:, :BEST]
                contender.tally.add(classes[done : done + count], {contender.engine.name: best})
        names = first.names[done : done + count]
        for pair in pairs:
            pair.add(found[contenders.index(pair.first)], found[contenders.index(pair.second)], names)
        done += count
        progress.update(done, len(first))
    return {
        "source": str(first.source),
        "count": len(first),
        "labelled": unlabelled is None,
        "unlabelled": unlabelled,
    }


def _prepared(sources: Mapping[str, labelled.Labelled]) -> Iterator[dict[str, list[NDArray[Any]]]]:
    """The same pictures of every source, some dozens at a time, prepared."""
    iterators = {key: source.rows() for key, source in sources.items()}
    with ThreadPoolExecutor(engines.default_threads()) as pool:
        while True:
            rows = {
                key: list(pool.map(lambda prepare: prepare(), islice(iterator, AT_ONCE)))
                for key, iterator in iterators.items()
            }
            if not all(rows.values()):
                return
            yield rows


def _first_outputs(contender: _Contender, batches: Sequence[NDArray[Any]]) -> NDArray[Any]:
    """The first output, a row a picture."""
    parts = [np.array(contender.engine.run(x)[0]) for x in batches]
    shape = contender.model.manifest["outputs"][0]["shape"]
    if not shape or shape[0] != contender.model.batch:
        message = f"the first output of {contender.row['bundle']} is {shape}: not a row a picture"
        raise DeployError(message, kind="compare", got=shape, allowed=f"[{contender.model.batch}, ...]")
    return np.concatenate(parts)


def _random(contenders: Sequence[_Contender], pairs: Sequence[_Pair]) -> dict[str, Any]:
    """Seeded random inputs for networks that take no pictures: their inputs have to be the same."""
    ports = [
        [{key: port[key] for key in ("name", "shape", "dtype")} for port in contender.model.manifest["inputs"]]
        for contender in contenders
    ]
    for contender, own in zip(contenders, ports, strict=True):
        if [(port["shape"], port["dtype"]) for port in own] != [(port["shape"], port["dtype"]) for port in ports[0]]:
            message = f"{contender.row['bundle']} takes other inputs than {contenders[0].row['bundle']}"
            raise DeployError(message, kind="compare", got=own, allowed=ports[0])
    for seed in range(_FEEDS):
        arrays = feed(ports[0], seed=seed).values()
        found = [np.array(contender.engine.run(*arrays)[0]) for contender in contenders]
        for pair in pairs:
            pair.add(found[contenders.index(pair.first)], found[contenders.index(pair.second)])
    return {"source": "random numbers", "count": _FEEDS, "labelled": False, "unlabelled": "the inputs are random"}


def _speed(contenders: Sequence[_Contender], opened: Sequence[bundles.Bundle], runs: int, progress: Progress) -> None:
    """Time the libraries that run here, taking turns."""
    calls: dict[int, Callable[[], object]] = {
        index: partial(contender.engine.run, *feed(bundle.manifest["inputs"]).values())
        for index, (contender, bundle) in enumerate(zip(contenders, opened, strict=True))
        if contender.row["not_run"] is None
    }
    for index, figures in (bench.interleave(calls, runs, progress) if calls else {}).items():
        contenders[index].row |= {name: figures[name] for name in _TIMES}


class _Pair:
    """Two bundles, and what their outputs have in common so far."""

    def __init__(self, first: _Contender, second: _Contender) -> None:
        self.first, self.second = first, second
        self._reason: str | None = None
        self._shown = self._same = 0
        self._apart = self._largest = 0.0
        self._products = np.zeros(3)
        self._different: list[dict[str, Any]] = []
        self._classes = all(len(one.model.labels) > 1 for one in (first, second))

    def add(self, one: NDArray[Any], other: NDArray[Any], names: Sequence[str] = ()) -> None:
        """Count some outputs of both on the same inputs, (rows, ...), which are pictures with these names."""
        if one.shape != other.shape:
            self._reason = f"the outputs are {['N', *one.shape[1:]]} and {['N', *other.shape[1:]]}"
            return
        a, b = (x.reshape(len(x), -1).astype(np.float64) if x.ndim else x.reshape(1, 1) for x in (one, other))
        if not (np.isfinite(a).all() and np.isfinite(b).all()):
            self._reason = "the outputs hold NaN or infinity"
            return
        self._apart = max(self._apart, float(np.abs(a - b).max()))
        self._largest = max(self._largest, float(np.abs(a).max()))
        self._products += [(a * b).sum(), (a * a).sum(), (b * b).sum()]
        self._shown += len(a)
        best, others = a.argmax(axis=1), b.argmax(axis=1)
        self._same += int((best == others).sum())
        for row in np.flatnonzero(best != others)[: _APART - len(self._different)].tolist() if names else ():
            taken = {"a": self._label(self.first, best[row]), "b": self._label(self.second, others[row])}
            self._different.append({"picture": names[row], **taken})

    @staticmethod
    def _label(one: _Contender, index: int) -> str:
        return str(one.model.labels[index]) if index < len(one.model.labels) else str(index)

    def document(self) -> dict[str, Any]:
        """The row of ``pairs``."""
        one, other = self.first.row, self.second.row
        row = {"a": one["bundle"], "b": other["bundle"], "max_abs": None, "max_rel": None, "cosine": None,
               "same_top1": None, "apart": [], "not_compared": self._reason}  # fmt: skip
        if self._reason is None:
            product, *norms = self._products.tolist()
            length = (norms[0] * norms[1]) ** 0.5
            row["max_abs"] = self._apart
            row["max_rel"] = self._apart / self._largest if self._largest else float(self._apart > 0)
            row["cosine"] = round(product / length, 9) if length else float(norms[0] == norms[1])
            row["same_top1"] = round(self._same / self._shown, 6) if self._classes else None
            row["apart"] = self._different if self._classes else []
        timed = one["p50_ms"] is not None and other["p50_ms"] is not None
        per_image = [r["p50_ms"] / r["batch"] for r in (one, other)] if timed else []
        return row | {
            "ratio_p50": round(per_image[1] / per_image[0], 4) if timed else None,
            "ratio_bytes": round(other["bytes"] / one["bytes"], 4),
            "ratio_memory": round(other["memory_bytes"] / one["memory_bytes"], 4) if one["memory_bytes"] else None,
            "drop_points": None if None in (one["top1"], other["top1"]) else round(one["top1"] - other["top1"], 4),
        }


def _judged(pair: _Pair, conditions: Sequence[criterion.Criterion]) -> Iterator[dict[str, Any]]:
    """Each condition, whether it holds for the second bundle of a pair, and by which figures."""
    row, other = pair.document(), pair.second.row
    figures = {
        "latency": row["ratio_p50"],
        "size": row["ratio_bytes"],
        "memory": row["ratio_memory"],
        "drop": row["drop_points"],
        **{name: row[name] for name in ("max_rel", "cosine", "same_top1")},
        **{name: other[name] for name in ("top1", "p50_ms")},
    }
    for condition in conditions:
        values = {name: figures[name] for name in sorted(condition.names)}
        yield {"expression": condition.text, "bundle": row["b"], "values": values, "holds": condition.holds(figures)}
