"""Run a bundle on pictures or on a tensor: the outputs, the best classes, the latency."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .. import artifact
from ..bundles import engines
from ..errors import DeployError, UsageError
from ..progress import NONE, Progress
from ..runtime.model import Model

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..runtime.bundle import Bundle
    from ..runtime.given import Given

_TIMED_RUNS = 3


def run(
    bundle: Bundle,
    given: Given,
    *,
    runtime: str = "compiled",
    top_k: int = 5,
    labels: Path | None = None,
    output: Path | None = None,
    allow_nan: bool = False,
    threads: int | None = None,
    driver: Path | None = None,
    progress: Progress = NONE,
) -> dict[str, Any]:
    """Run the network of `bundle`.

    Args:
        given: pictures or a tensor, as `runtime.given` tells them apart.
        runtime: an engine of `engines`, ``compiled`` or ``onnxruntime``.
        top_k: how many of the best classes to name.
        labels: a text file, one class a line; ImageNet's where None and the network has 1000 classes.
        driver: the library that drives the bundle's accelerator; the usual one where None.
        allow_nan: take inputs that hold a NaN or an infinity.
        output: where to write the first output, float32 (rows, ...), as .npy.

    Returns:
        The document of ``run``. ``latency_ms`` is the median for the first batch after a warm-up. ``inputs`` names the
        rows; ``batches`` says by how many at once they were computed, in order.
        ``top`` is a list of classes, or a list of such lists for several rows; it is empty where the output is not
        (rows, classes).

    Raises:
        DeployError, UsageError: a file is missing, damaged or does not fit.
    """
    if top_k < 1:
        raise UsageError(f"--top-k is {top_k}", kind="usage", got=top_k, allowed="1 or more")
    progress.stage("load")
    if runtime == "compiled" and (note := engines.simulated(bundle, driver)):
        progress.note(note)
    model = Model(bundle, engines.make(runtime, bundle, threads=threads, driver=driver).run, labels=labels)
    rows = model.input.rows(given)
    progress.stage("run")
    latency, sizes = 0.0, list[int]()

    def outputs() -> Iterator[Sequence[NDArray[Any]]]:
        nonlocal latency
        done = 0
        for x, count in rows.batches(model.batches):
            if not allow_nan:
                _require_finite(x, rows.names[done : done + count])
            yield model.compute(x)
            sizes.append(model.batch if isinstance(x, tuple) else len(x))
            if not done:
                latency = _latency(model, x)
            done += count
            progress.update(done, len(rows))

    result = model.result(rows, outputs())
    first = result.arrays[0].astype(np.float32, copy=False)
    if output is not None:
        with artifact.atomic_file(output) as path, path.open("wb") as file:
            np.save(file, first, allow_pickle=False)
    tops = [[vars(guess) for guess in top] for top in result.tops(top_k)]
    if not any(tops):
        tops = []
    return {
        "runtime": runtime,
        "latency_ms": latency,
        "inputs": list(result.names),
        "batches": sizes,
        "outputs": [
            {"name": name, "shape": list(array.shape), "dtype": str(array.dtype)}
            for name, array in result.outputs.items()
        ],
        "top": tops[0] if len(tops) == 1 else tops,
    }


def _require_finite(x: NDArray[Any] | Sequence[NDArray[Any]], names: Sequence[str]) -> None:
    """Refuse a batch that holds a NaN or an infinity."""
    for array in x if isinstance(x, Sequence) else [x]:
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            flat = np.isfinite(array).reshape(len(array), -1).all(axis=1)
            where = next((name for name, good in zip(names, flat, strict=False) if not good), "the input")
            message = f"{where} holds NaN or infinity; --allow-nan computes with them"
            raise DeployError(message, kind="input", got="NaN or infinity", allowed="finite numbers, or --allow-nan")


def _latency(model: Model, x: NDArray[Any] | tuple[NDArray[Any], ...]) -> float:
    """The median of some runs, in milliseconds, of a model that has run before."""
    seconds = []
    for _ in range(_TIMED_RUNS):
        start = time.perf_counter()
        model.compute(x)
        seconds.append(time.perf_counter() - start)
    return round(statistics.median(seconds) * 1e3, 3)
