"""How far each way of computing a network is from the same network in double precision.

    python benchmarks/accuracy.py                                # the ten networks of peers.py and the trained ones
    python benchmarks/accuracy.py --models irv2,mobilenet_v1 --ways cpu,cpu:avx512,cpu/bf16

The PyTorch module with fp64 weights gives the reference; the largest difference of a logit is printed, relative to the
largest logit, for a photo and for random numbers (for trained networks: over 32 of the held-out digits, with how many
of them end in another class). A way is a target, or a target and a precision.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from int8 import DATA, digit, table
from numpy.typing import NDArray
from peers import LIMITS

from inception_deploy import models, pipeline, progress
from inception_deploy.bundles import engines
from inception_deploy.reports import check
from inception_deploy.runtime import bundle
from inception_deploy.sources import resolve

WAYS = ("cpu", "cpu:avx512", "cpu:avx2", "cpu/bf16")
DIGITS = 32

Run = Callable[[NDArray[np.float32]], NDArray[Any]]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    trained = [str(path) for path in sorted(DATA.glob("digits_*.safetensors"))]
    parser.add_argument("--models", type=lambda text: text.split(","), default=[*LIMITS, *trained], help="with commas")
    parser.add_argument("--ways", type=lambda text: text.split(","), default=list(WAYS), help="with commas")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    with progress.terminal() as bar:
        rows = [row for model in options.models for row in errors(model, options.ways, bar)]
    print(json.dumps(rows, indent=2) if options.json else table(rows))
    return 0


def errors(model: str, ways: list[str], bar: progress.Progress) -> list[dict[str, Any]]:
    """One row an input: the largest error of onnxruntime and of every way."""
    own = model.endswith(".safetensors")
    module = (models.load_trained(model)[0] if own else models.build(model)).double().eval()
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for number, way in enumerate(ways):
            bar.stage(f"{Path(model).stem}: {way}")
            target, _, precision = way.partition("/")
            path = Path(folder) / str(number)
            pipeline.export(
                resolve.Request(model=model), path, target=target, precision=precision or None, verified=False
            )
            with bundle.open(path) as opened:
                how = opened.manifest["preprocessing"]
                given = _digits(how) if own else check.inputs(opened.input_shape, how, 0)
                if not found:
                    expected = {name: [_double(module, x) for x in _singly(xs)] for name, xs in given.items()}
                    found = [{"network": Path(model).stem, "input": name} for name in given]
                    _judge(found, "onnxruntime", engines.make("onnxruntime", opened), given, expected)
                _judge(found, way, engines.make("compiled", opened), given, expected)
    return found


def _digits(how: dict[str, Any]) -> dict[str, NDArray[np.float32]]:
    with np.load(DATA / "digits_heldout.npz") as file:
        pictures = file["images"][:DIGITS]
    return {f"{DIGITS} digits": np.stack([digit(grey, how) for grey in pictures])}


def _singly(batch: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    return [batch[i : i + 1] for i in range(len(batch))]


def _double(module: torch.nn.Module, x: NDArray[np.float32]) -> NDArray[Any]:
    with torch.inference_mode():
        result: NDArray[Any] = module(torch.from_numpy(x).double()).numpy()
    return result


def _judge(
    rows: list[dict[str, Any]],
    name: str,
    engine: engines.Engine,
    given: dict[str, NDArray[np.float32]],
    expected: dict[str, list[NDArray[Any]]],
) -> None:
    """Add an engine's error to every row, and how many classes it changes."""
    for row in rows:
        wanted = np.concatenate(expected[row["input"]])
        got = np.concatenate([engine.run(x)[0] for x in _singly(given[row["input"]])])
        changed = int((got.argmax(axis=1) != wanted.argmax(axis=1)).sum())
        error = np.abs(got - wanted).max() / np.abs(wanted).max()
        row[name] = f"{error:.1e}" + (f", {changed} other classes" if changed else "")


if __name__ == "__main__":
    sys.exit(main())
