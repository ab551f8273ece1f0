"""int8 next to the peers' best: our bundle, onnxruntime and OpenVINO on our QDQ file, OpenVINO on NNCF's file.

    pip install --target elsewhere openvino nncf
    PYTHONPATH=elsewhere python benchmarks/int8_peers.py made/ --prepare     # exports and quantizes; takes minutes
    PYTHONPATH=elsewhere python benchmarks/int8_peers.py made/               # measures, interleaved, with one input
    PYTHONPATH=elsewhere python benchmarks/int8_peers.py made/ --models mobilenet_v1 --lite0 efficientnet_*.whl

Files that others wrote: of each network of `THEIRS` onnxruntime.quantization makes one (QDQ, a scale for each
channel), which we export and onnxruntime runs. Weights are seeded and scales are of a few random inputs: time is what
is measured, not accuracy. Exit status 1 where a ratio is over its limit. Code in what you give is run.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from int8 import table
from int8_real import lite0
from strangers import unpacked

from inception_deploy import pipeline, progress, targets
from inception_deploy.bundles import engines
from inception_deploy.feeds import feed
from inception_deploy.quantize.job import Options
from inception_deploy.quantize.quantizer import Recipe
from inception_deploy.reports import bench
from inception_deploy.runtime import bundle
from inception_deploy.sources import resolve

NETWORKS = ("irv2", "inception_v3", "googlenet", "resnet50", "mobilenet_v1")

THEIRS = ("resnet50", "mobilenet_v1", "lite0")
"""Whose float networks onnxruntime quantizes."""

LIMIT, LIMIT_THEIRS = 1.0, 0.8
"""The most that ours may take of the best peer's time, and of onnxruntime's for its own file."""

PICTURES = 8
"""Random inputs that scales are found on."""


def main() -> int:
    """Prepare what is missing, measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where bundles and the peers' files are kept")
    parser.add_argument("--models", nargs="+", default=NETWORKS, help="networks of the zoo")
    parser.add_argument("--theirs", nargs="*", default=THEIRS, help="networks that onnxruntime quantizes")
    parser.add_argument("--lite0", nargs="*", type=Path, default=[], help="wheels or folders of EfficientNet-Lite0")
    parser.add_argument("--target", default="cpu", help="what to compile for (default: cpu)")
    parser.add_argument("--prepare", action="store_true", help="make what is missing, and measure nothing")
    parser.add_argument("--runs", type=int, default=30, help="rounds (default: 30)")
    parser.add_argument("--threads", type=int, default=engines.default_threads(), help="of every engine")
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of a table")
    options = parser.parse_args()
    options.folder.mkdir(exist_ok=True)
    theirs = [name for name in options.theirs if name != "lite0" or options.lite0 or of_theirs(options, name).exists()]
    for name in options.models:
        prepare(name, options)
    for name in theirs:
        prepare_theirs(name, options)
    if options.prepare:
        return 0
    rows = [measure(options.folder / name, LIMIT, options) for name in options.models]
    rows += [measure(of_theirs(options, name), LIMIT_THEIRS, options) for name in theirs]
    print(json.dumps({"machine": bench.machine(), "results": rows}, indent=2) if options.json else table(rows))
    return int(any(row["ratio"] > row["limit"] for row in rows))


def of_theirs(options: argparse.Namespace, name: str) -> Path:
    """Our bundle of onnxruntime's file."""
    return Path(options.folder / f"{name}-onnxruntime")


def prepare(name: str, options: argparse.Namespace) -> None:
    """Our bundle of a network of the zoo, and NNCF's file of the same float network beside it."""
    path = options.folder / name
    if not path.exists():
        inputs = path.with_suffix(".npz")
        model = resolve.resolve(resolve.Request(model=name))
        np.savez(inputs, x=pictures(model.onnx(lambda _: None)))
        recipe = Recipe(scheme=targets.parse(options.target).scheme_by_default)
        how = Options(calibration=inputs, effort="fast", recipe=recipe)
        request = resolve.Request(model=name)
        exported(request, path, options, precision="int8", quantization=how)
    nncf_file = path.with_suffix(".nncf.onnx")
    if not nncf_file.exists():
        try:
            import nncf  # type: ignore[import-not-found]
        except ImportError as error:
            print(f"{name}: {error}; OpenVINO is measured on our file only", file=sys.stderr)
            return
        with bundle.open(path) as opened:
            model = onnx.load(str(opened.folder / bundle.ONNX))
        given = pictures(model)
        data = nncf.Dataset([picture[None] for picture in given], lambda x: {model.graph.input[0].name: x})
        onnx.save(nncf.quantize(model, data, subset_size=len(given)), str(nncf_file))


def prepare_theirs(name: str, options: argparse.Namespace) -> None:
    """Our bundle of a file that onnxruntime.quantization made."""
    from onnxruntime.quantization import CalibrationDataReader, quantize_static

    if of_theirs(options, name).exists():
        return
    with tempfile.TemporaryDirectory() as scratch:
        if name == "lite0":
            model, _ = lite0([unpacked(path, Path(scratch)) for path in options.lite0])
        else:
            source = resolve.resolve(resolve.Request(model=name))
            model = source.onnx(lambda _: None)

        class Reader(CalibrationDataReader):  # type: ignore[misc]
            def __init__(self) -> None:
                self.left = iter(pictures(model))

            def get_next(self) -> dict[str, Any] | None:
                picture = next(self.left, None)
                return None if picture is None else {model.graph.input[0].name: picture[None]}

        plain, made = Path(scratch) / "fp32.onnx", options.folder / f"{name}.onnxruntime.onnx"
        onnx.save(model, str(plain))
        quantize_static(plain, made, Reader(), per_channel=True)
    exported(resolve.Request(model=str(made)), of_theirs(options, name), options)


def exported(request: resolve.Request, path: Path, options: argparse.Namespace, **how: Any) -> None:
    """A bundle; without checks, which the tests make."""
    with progress.terminal() as bar:
        pipeline.export(request, path, target=options.target, verified=False, progress=bar, **how)


def pictures(model: onnx.ModelProto) -> np.ndarray:
    """Random inputs `[N, C, H, W]`."""
    shape = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim[1:]]
    return np.random.default_rng(0).standard_normal((PICTURES, *shape), dtype=np.float32)


def measure(path: Path, limit: float, options: argparse.Namespace) -> dict[str, Any]:
    """One bundle next to what else runs its network."""
    with ExitStack() as stack:
        opened = stack.enter_context(bundle.open(path))
        arrays = feed(opened.manifest["inputs"]).values()
        calls = {name: partial(run, *arrays) for name, run in ready(opened, limit, options)}
        found = bench.interleave(calls, options.runs, pause_s=bench.pause_s(["compiled"]))
        ms = {name: row["p50_ms"] for name, row in found.items()}
    ours = ms.pop("ours")
    best = min(ms, key=lambda name: ms[name])
    row = {"network": path.name, "target": opened.manifest["target"], "ours ms": ours}
    row |= {f"{name} ms": value for name, value in ms.items()}
    row |= {"best": best, "ratio": round(ours / ms[best], 3), "limit": limit}
    print(row, file=sys.stderr)
    return row


@dataclass(frozen=True)
class WithFile(bundle.Bundle):
    """A bundle whose peers compute another file."""

    file: Path

    @property
    def onnx(self) -> Path:
        """The file."""
        return self.file


def ready(opened: bundle.Bundle, limit: float, options: argparse.Namespace) -> Iterator[tuple[str, Callable[..., Any]]]:
    """What is measured."""
    yield "ours", engines.make("compiled", opened, threads=options.threads).run
    yield "onnxruntime", engines.make("onnxruntime", opened, threads=options.threads).run
    if limit == LIMIT_THEIRS:
        return
    if find_spec("openvino") is None:
        print("OpenVINO is not installed, and not measured", file=sys.stderr)
        return
    yield "OpenVINO", engines.make("openvino", opened, threads=options.threads).run
    nncf_file = Path(opened.source).with_suffix(".nncf.onnx")
    if nncf_file.exists():
        other = WithFile(opened.source, opened.folder, opened.manifest, nncf_file)
        yield "OpenVINO, NNCF's", engines.make("openvino", other, threads=options.threads).run


if __name__ == "__main__":
    raise SystemExit(main())
