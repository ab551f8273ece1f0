"""A bundle, ready to run: numpy, the compiled library in it, and Pillow where pictures come. Neither torch nor TVM.

>>> net = load("irv2-cpu")
>>> net("photo.jpg").top(3)
>>> (logits,) = net(x).arrays          # x: float32 (N, 3, 299, 299)
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DeployError
from . import bundle, compiled
from .given import Given, Input, Rows
from .labels import class_count, known
from .plans import Plans
from .preprocessing import Preprocessing, from_dict

Run = Callable[..., Sequence[NDArray[Any]]]
"""The outputs, in the manifest's order, for an array an input, of the exact shapes of one of the bundle's plans."""


@dataclass(frozen=True)
class Guess:
    """One class: its place among the outputs, its name, and its probability (None where that is no number)."""

    index: int
    label: str
    score: float | None


@dataclass(frozen=True)
class Result:
    """What a network gave. It is the first output where numpy wants an array: ``np.asarray(result)``.

    Attributes:
        outputs: by name, one array each, (rows, ...).
        names: of the rows: the paths of pictures, or ``row 3``.
    """

    outputs: Mapping[str, NDArray[Any]]
    names: tuple[str, ...]
    _labels: Sequence[str]
    _probabilities: bool
    _single: bool

    @property
    def arrays(self) -> list[NDArray[Any]]:
        """The outputs, in the network's order."""
        return list(self.outputs.values())

    def top(self, count: int = 5) -> Any:
        """The best classes, best first: a list of `Guess` where one picture was given, else a list of such lists, one a
        row. Empty lists where the first output is not (rows, classes), or that with further axes of 1.
        """
        rows = self.tops(count)
        return rows[0] if self._single else rows

    def tops(self, count: int = 5) -> list[list[Guess]]:
        """`top` as one list a row, however many there are."""
        logits = self.arrays[0]
        if class_count(logits.shape) is None:
            return [[] for _ in self.names]
        logits = logits.reshape(logits.shape[:2])
        scores = logits.astype(np.float64)
        if not self._probabilities:
            scores = np.exp(scores - scores.max(axis=1, keepdims=True))
            scores /= scores.sum(axis=1, keepdims=True)
        order = np.argsort(-logits, axis=1, kind="stable")[:, :count]
        return [
            [Guess(int(index), self._labels[index], _finite(row[index])) for index in best]
            for row, best in zip(scores, order, strict=True)
        ]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        first = self.arrays[0]
        return np.array(first, dtype=dtype) if copy else np.asarray(first, dtype=dtype)

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {array.dtype} {array.shape}" for name, array in self.outputs.items())
        return f"Result({shapes})"


class Model:
    """A bundle, ready to run. Call it with anything in `given`'s table.

    Attributes:
        name, target, precision: of the manifest, e.g. ``inception_resnet_v2``, ``cpu``, ``int8``.
        input: the shape, type and preprocessing of what it takes.
        batch: images that are computed at once; other numbers of rows are cut and filled up.
        batches: of every plan, `batch` the first and smallest: the largest that rows fill comes first (`plans.cut`).
        labels: the names of the classes.
        manifest: everything else that the bundle says of itself.
    """

    def __init__(
        self,
        opened: bundle.Bundle,
        run: Run,
        *,
        labels: str | os.PathLike[str] | Sequence[str] | None = None,
        close: Callable[[], None] = lambda: None,
    ) -> None:
        manifest = opened.manifest
        how = manifest["preprocessing"]
        self.name: str = manifest["model"]
        self.target: str = manifest["target"]
        self.precision: str = manifest["precision"]
        self.manifest = manifest
        self.input = Input(
            str(opened.source),
            opened.input_shape,
            manifest["inputs"][0]["dtype"],
            None if how is None else from_dict(how),
            tuple(manifest["inputs"]),
        )
        self.batches = opened.batches
        self.batch = self.batches[0]
        self._ports = [plan.manifest["outputs"] for plan in opened.plans]
        self.labels = _labels(labels, manifest)
        self.run, self._close = run, close

    @property
    def preprocessing(self) -> Preprocessing | None:
        """How it wants pictures prepared; None where it does not take pictures."""
        return self.input.preprocessing

    def __call__(self, given: Given) -> Result:
        """Run it.

        Args:
            given: a picture (path, PIL image, uint8 pixels), several (a list, a folder, an array), or the prepared
                tensor (float32 (N, C, H, W), or a path to it as .npy).

        Raises:
            DeployError, UsageError: what was given does not fit, is missing or is damaged.
        """
        rows = self.input.rows(given)
        return self.result(rows, ([*self.compute(x)] for x, _ in rows.batches(self.batches)))

    def compute(self, x: NDArray[Any] | tuple[NDArray[Any], ...]) -> Sequence[NDArray[Any]]:
        """`run` on a batch of `Rows`: an array, or a tuple of one an input."""
        return self.run(*x) if isinstance(x, tuple) else self.run(x)

    def result(self, rows: Rows, outputs: Iterator[Sequence[NDArray[Any]]]) -> Result:
        """The `Result` of what `run` gave for each of the rows' batches."""
        parts = [[np.array(array) for array in arrays] for arrays in outputs]  # some engines write over theirs
        ports = self.manifest["outputs"]
        for arrays in parts:
            self._check(arrays)
        named = {
            port["name"]: self._joined(arrays, port, len(rows))
            for port, arrays in zip(ports, zip(*parts, strict=True), strict=True)
        }
        return Result(named, rows.names, self.labels, ports[0].get("kind") == "probabilities", rows.single)

    def _check(self, arrays: Sequence[NDArray[Any]]) -> None:
        """Refuse what the manifest does not announce: names of classes and rows are found by its shapes."""
        got = [array.shape for array in arrays]
        every = [[tuple(port["shape"]) for port in ports] for ports in self._ports]
        if got not in every:
            told = every[0] if len(every) == 1 else every
            message = f"the network gives {got}, and the bundle's manifest says {told}; export it again"
            raise DeployError(message, kind="bundle", got=got, allowed=told)

    def _joined(self, arrays: Sequence[NDArray[Any]], port: Mapping[str, Any], rows: int) -> NDArray[Any]:
        """The batches of an output, one after the other; of one that has rows, as many as were given."""
        if not port["shape"]:
            return arrays[0] if len(arrays) == 1 else np.stack(arrays)
        whole = np.concatenate(arrays)
        return whole[:rows] if port["shape"][0] == self.batch else whole

    def close(self) -> None:
        """Free its threads and memory now, and not when it is collected."""
        self._close()

    def __enter__(self) -> Model:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        outputs = ", ".join(str(tuple(port["shape"])) for port in self.manifest["outputs"])
        what = f"{self.input.dtype} {self.input.shape} -> {outputs}"
        return f"Model({self.name} for {self.target} in {self.precision}: {what})"


def load(
    path: str | os.PathLike[str],
    *,
    threads: int | None = None,
    driver: str | os.PathLike[str] | None = None,
    labels: str | os.PathLike[str] | Sequence[str] | None = None,
) -> Model:
    """Open a bundle, check every file of it against its hash, and load its compiled library.

    Args:
        path: a folder or .zip that `export` wrote.
        threads: to compute with; every core this process may use where None.
        driver: the library that drives the bundle's accelerator; the usual one where None.
        labels: the names of the classes, or a text file with one a line; the bundle's, or ImageNet's, where None.

    Raises:
        DeployError: (kind ``bundle``) there is none, or it is damaged; as `compiled.load` where this machine cannot run
            it.
    """
    with bundle.open(Path(path)) as opened:
        used = None if driver is None else Path(driver)
        plans = Plans(opened.batches, lambda n: compiled.load(opened.folder, threads=threads, driver=used, plan=n))
        return Model(opened, plans.open_all().run, labels=labels, close=plans.close)


def _labels(given: str | os.PathLike[str] | Sequence[str] | None, manifest: Mapping[str, Any]) -> Sequence[str]:
    classes = class_count(manifest["outputs"][0]["shape"]) or 0
    if given is None:
        names = known(manifest.get("labels"), manifest["outputs"][0]["shape"])
        return names or [str(index) for index in range(classes)]
    if not isinstance(given, (str, os.PathLike)):
        names, subject = list(given), "the list of labels"
    else:
        names, subject = _read(Path(given)), f"labels {given}"
    if len(names) != classes:
        message = f"{subject} has {len(names)} lines, the network {classes} classes"
        raise DeployError(message, kind="labels", got=len(names), allowed=classes)
    return names


def _read(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise DeployError(f"labels {path} does not exist", kind="labels", got=str(path)) from error
    except (UnicodeDecodeError, OSError) as error:
        raise DeployError(f"labels {path} cannot be read: {error}", kind="labels", got=str(path)) from error


def _finite(score: np.float64) -> float | None:
    """For JSON, which has no NaN and no infinity."""
    return round(float(score), 6) if math.isfinite(score) else None
