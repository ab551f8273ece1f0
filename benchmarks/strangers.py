"""Trained networks that popular packages ship: exported, verified, and timed against onnxruntime.

    pip download --no-deps rapidocr-onnxruntime    # a wheel is an archive; nothing is installed
    python benchmarks/strangers.py rapidocr_onnxruntime-*.whl --runs 20

Give wheels, folders or .onnx files: every .onnx in them is taken. Sizes that a file leaves open are what the network
was trained on, where that is known here. Exit status 1 where an export or its verification failed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from inception_deploy.errors import DeployError
from inception_deploy.pipeline import export
from inception_deploy.reports import bench, check
from inception_deploy.runtime import bundle
from inception_deploy.sources.resolve import Request

SIZES = {"det": (640, 640), "rec": (48, 320), "cls": (48, 192)}
"""A part of a file's name -> its input, of PaddlePaddle's text detection, recognition and orientation."""


def main() -> int:
    """Measure and print; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, help="wheels, folders, or .onnx files")
    parser.add_argument("--target", default="cpu", help="what to compile for (default: cpu)")
    parser.add_argument("--runs", type=int, default=10, help="timed rounds (default: 10)")
    parser.add_argument("--input-size", metavar="HxW", help="for files whose size is neither fixed nor known here")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        files = enumerate(found(options.files, Path(folder)))
        rows = [row(path, options, Path(folder) / f"{index}") for index, path in files]
    if options.json:
        print(json.dumps({"machine": bench.machine(), "results": rows}, indent=2))
    else:
        _show(rows)
    return int(any("error" in entry for entry in rows))


def found(given: list[Path], folder: Path) -> Iterator[Path]:
    """Every .onnx in what was given; wheels are unpacked into `folder`."""
    for path in given:
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                names = [name for name in wheel.namelist() if name.endswith(".onnx")]
                wheel.extractall(folder / path.stem, names)
            yield from (folder / path.stem / name for name in sorted(names))
        elif path.is_dir():
            yield from sorted(path.rglob("*.onnx"))
        else:
            yield path


def row(path: Path, options: argparse.Namespace, destination: Path) -> dict[str, Any]:
    """What became of a file."""
    known = next((size for part, size in SIZES.items() if part in path.stem), None)
    size = tuple(map(int, options.input_size.split("x"))) if options.input_size else known
    entry: dict[str, Any] = {"network": path.stem, "input": size and list(size)}
    try:
        export(Request(str(path), input_size=size), destination, target=options.target)
    except DeployError as error:
        return entry | {"error": error.message}
    with bundle.open(destination) as opened:
        stages = check.verify_bundle(opened)["stages"]
        refusals = opened.document(bundle.REFUSALS)
    (measured,) = bench.bench([destination], against=["onnxruntime"], runs=options.runs)
    return entry | {
        "errors": {stage["stage"]: stage["max_rel"] for stage in stages},
        "default_share": round(sum(refusal["share"] for refusal in refusals), 3),
        "ms": measured["results"][0]["p50_ms"],
        "ratio": measured["ratio"]["onnxruntime"],
    }


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table("network", "input", "worst stage", "on TVM's default", "ms", "ours / onnxruntime")
    for entry in rows:
        if "error" in entry:
            table.add_row(entry["network"], str(entry["input"]), entry["error"], "", "", "")
        else:
            worst = max(entry["errors"].items(), key=lambda item: item[1])
            said = f"{worst[0]} {worst[1]:.1e}", f"{entry['default_share']:.0%}"
            table.add_row(entry["network"], str(entry["input"]), *said, f"{entry['ms']:.2f}", f"{entry['ratio']:.2f}")
    Console().print(table)


if __name__ == "__main__":
    raise SystemExit(main())
