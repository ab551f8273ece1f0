"""Run a bundle on pictures or on a tensor: the outputs, the best classes, the latency."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import artifact
from ..bundles import engines
from ..errors import DeployError, UsageError
from ..runtime.labels import imagenet
from ..runtime.preprocessing import from_dict, load

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ..runtime.bundle import Bundle

_TIMED_RUNS = 3


def run(
    bundle: Bundle,
    *,
    pictures: Sequence[Path] = (),
    tensor: Path | None = None,
    runtime: str = "compiled",
    top_k: int = 5,
    labels: Path | None = None,
    output: Path | None = None,
    threads: int | None = None,
) -> dict[str, Any]:
    """Run the network of `bundle`.

    Args:
        pictures: JPEG or PNG files, prepared as the manifest says. Or:
        tensor: a .npy file, float32, the network's input with any number of rows, already prepared.
        runtime: an engine of `engines`, ``compiled`` or ``onnxruntime``.
        top_k: how many of the best classes to name.
        labels: a text file, one class a line; ImageNet's where None and the network has 1000 classes.
        output: where to write the first output, float32 (rows, ...), as .npy.

    Returns:
        The document of ``run``. ``latency_ms`` is the median for one batch after a warm-up. ``top`` is a list of
        classes, or a list of such lists for several rows; it is empty where the output is not (rows, classes).

    Raises:
        DeployError, UsageError: a file is missing, damaged or does not fit.
    """
    import numpy as np

    x = _tensor(tensor, bundle) if tensor is not None else _pictures(pictures, bundle)
    names = _labels(labels, bundle)
    if top_k < 1:
        raise UsageError(f"--top-k is {top_k}", kind="usage", got=top_k, allowed="1 or more")
    engine = engines.make(runtime, bundle, threads=threads)
    results, latency = in_batches(engine, x, bundle.input_shape[0])
    first = results[0].astype(np.float32, copy=False)
    if output is not None:
        with artifact.atomic_file(output) as path, path.open("wb") as file:
            np.save(file, first, allow_pickle=False)
    described = [
        {"name": port["name"], "shape": list(array.shape), "dtype": str(array.dtype)}
        for port, array in zip(bundle.manifest["outputs"], results, strict=True)
    ]
    top = _top(first, bundle, names, top_k)
    return {"runtime": runtime, "latency_ms": latency, "outputs": described, "top": top[0] if len(top) == 1 else top}


def _pictures(paths: Sequence[Path], bundle: Bundle) -> NDArray[np.float32]:
    how = bundle.manifest["preprocessing"]
    if how is None:
        raise UsageError(
            f"bundle {bundle.source} does not take pictures (its input is {list(bundle.input_shape)}); use --input",
            kind="image",
            got="--image",
            allowed="--input FILE.npy",
        )
    return load(paths, from_dict(how))


def _tensor(path: Path, bundle: Bundle) -> NDArray[np.float32]:
    import numpy as np

    try:
        with path.open("rb") as file:
            x = np.load(file, allow_pickle=False)
    except FileNotFoundError as error:
        raise DeployError(f"input {path} does not exist", kind="input", got=str(path), allowed="a .npy file") from error
    except (ValueError, EOFError, OSError) as error:
        raise DeployError(
            f"input {path} is not a .npy array: {error}", kind="input", got=str(path), allowed="a .npy file"
        ) from error
    want = bundle.input_shape
    allowed = f"float32 {['N', *want[1:]]}"
    if not isinstance(x, np.ndarray):
        raise DeployError(f"input {path} is an archive of arrays", kind="input", got=str(path), allowed=allowed)
    if x.dtype != np.float32 or x.ndim != len(want) or x.shape[1:] != want[1:] or x.shape[0] < 1:
        got = f"{x.dtype} {list(x.shape)}"
        raise DeployError(f"input {path} is {got}, the network takes {allowed}", kind="input", got=got, allowed=allowed)
    return np.ascontiguousarray(x)


def in_batches(engine: engines.Engine, x: NDArray[np.float32], batch: int) -> tuple[list[NDArray[Any]], float]:
    """All rows of `x`, `batch` at a time, the last batch filled up with its last row; and the median latency of one."""
    import numpy as np

    rows = len(x)
    if short := -rows % batch:
        x = np.concatenate([x, np.repeat(x[-1:], short, axis=0)])
    parts = np.split(x, len(x) // batch)
    outputs = [[np.array(array) for array in engine.run(part)] for part in parts]  # the first one warms up
    seconds = []
    for _ in range(_TIMED_RUNS):
        start = time.perf_counter()
        engine.run(parts[0])
        seconds.append(time.perf_counter() - start)
    joined = [np.concatenate(arrays)[:rows] for arrays in zip(*outputs, strict=True)]
    return joined, round(statistics.median(seconds) * 1e3, 3)


def _labels(path: Path | None, bundle: Bundle) -> Sequence[str]:
    shape = bundle.manifest["outputs"][0]["shape"]
    classes = shape[1] if len(shape) == 2 else 0
    if path is None:
        known = bundle.manifest.get("labels") or imagenet()
        return known if classes == len(known) else [str(index) for index in range(classes)]
    try:
        names = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError as error:
        raise DeployError(f"labels {path} does not exist", kind="labels", got=str(path)) from error
    except (UnicodeDecodeError, OSError) as error:
        raise DeployError(f"labels {path} cannot be read: {error}", kind="labels", got=str(path)) from error
    if len(names) != classes:
        message = f"labels {path} has {len(names)} lines, the network {classes} classes"
        raise DeployError(message, kind="labels", got=len(names), allowed=classes)
    return names


def _top(logits: NDArray[np.float32], bundle: Bundle, names: Sequence[str], count: int) -> list[list[dict[str, Any]]]:
    """For every row of (rows, classes) the best classes, with the probability that softmax gives them as the score."""
    import numpy as np

    if logits.ndim != 2:
        return []
    scores = logits.astype(np.float64)
    if bundle.manifest["outputs"][0].get("kind") != "probabilities":
        scores = np.exp(scores - scores.max(axis=1, keepdims=True))
        scores /= scores.sum(axis=1, keepdims=True)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :count]
    return [
        [{"index": int(index), "label": names[index], "score": _finite(row[index])} for index in best]
        for row, best in zip(scores, order, strict=True)
    ]


def _finite(score: np.float64) -> float | None:
    """For JSON, which has no NaN and no infinity."""
    return round(float(score), 6) if math.isfinite(score) else None
