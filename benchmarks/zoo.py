"""The speed figures: compiled bundles next to onnxruntime in interleaved rounds, and what exporting them costs.

    python benchmarks/zoo.py                     # latency of the five networks of the README (or: make bench)
    python benchmarks/zoo.py --all               # of every network of the zoo
    python benchmarks/zoo.py --export            # export time, cold and warm, and peak memory, of irv2
    python benchmarks/zoo.py --against onnxruntime,openvino --models irv2

Medians and their ratios come from one run; a machine drifts too much for figures of two runs to be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from inception_deploy import bench, bundle, models, pipeline, progress, sources

NETWORKS = {"irv2": 1.3, "inception_v3": 1.5, "inception_v4": 1.5, "resnet50": 1.5, "mobilenet_v1": 1.5}
"""What is measured by default, and the most that its ratio to onnxruntime may be."""

COLD_LIMIT_S, WARM_LIMIT_S, MEMORY_LIMIT_GIB = 240, 60, 4


def main() -> int:
    """Measure and print; 1 where a figure is over its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=lambda text: text.split(","), help="networks to measure, with commas")
    parser.add_argument("--all", action="store_true", help="every network of the zoo")
    parser.add_argument("--export", action="store_true", help="measure exporting instead of running")
    parser.add_argument(
        "--against", type=lambda text: text.split(","), default=["onnxruntime"], help="engines, with commas"
    )
    parser.add_argument("--target", default="cpu", help="what to compile for (default: cpu)")
    parser.add_argument("--runs", type=int, default=30, help="rounds (default: 30)")
    parser.add_argument("--threads", type=int, help="threads of every engine (default: every core)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args()
    chosen = options.models or (models.names() if options.all else ["irv2"] if options.export else list(NETWORKS))
    measure = export_cost if options.export else latency
    rows = [measure(name, options) for name in chosen]
    if options.json:
        print(json.dumps({"machine": bench.machine(), "results": rows}, indent=2))
    else:
        show(rows)
    return 0 if all(row["ok"] for row in rows) else 1


def latency(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Export to a temporary folder and time it next to the other engines."""
    with tempfile.TemporaryDirectory() as folder, progress.terminal() as bar:
        path = Path(folder) / "bundle"
        pipeline.export(sources.Request(model=name), path, target=options.target, verified=False, progress=bar)
        with bundle.open(path) as opened:
            document = bench.bench(
                opened, against=options.against, runs=options.runs, threads=options.threads, progress=bar
            )
    row: dict[str, Any] = {"model": name, "threads": document["threads"]}
    for result in document["results"]:
        row[f"{result['engine']} ms"] = result["p50_ms"]
        row[f"{result['engine']} sd"] = result["sd_ms"]
    for peer, ratio in document["ratio"].items():
        row[f"ratio to {peer}"] = ratio
    limit = NETWORKS.get(name)
    row["limit"] = limit
    row["ok"] = limit is None or document["ratio"].get("onnxruntime", 0.0) <= limit
    return row


def export_cost(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """Export twice with a cache of its own, in processes of their own: seconds cold and warm, and peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "INCEPTION_DEPLOY_CACHE": str(Path(folder) / "cache")}
        seconds = {}
        for temperature in ("cold", "warm"):
            output = str(Path(folder) / temperature)
            command = [
                sys.executable,
                "-m",
                "inception_deploy",
                "export",
                "--model",
                name,
                "--target",
                options.target,
                "-o",
                output,
            ]
            start = time.perf_counter()
            subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
            seconds[temperature] = round(time.perf_counter() - start, 1)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (1 << 20)  # of the largest child, KiB on Linux
    ok = seconds["cold"] <= COLD_LIMIT_S and seconds["warm"] <= WARM_LIMIT_S and peak <= MEMORY_LIMIT_GIB
    return {"model": name, "cold s": seconds["cold"], "warm s": seconds["warm"], "peak GiB": round(peak, 2), "ok": ok}


def show(rows: list[dict[str, Any]]) -> None:
    """One table row a network."""
    console = Console() if sys.stdout.isatty() else Console(width=160)
    table = Table(*rows[0], title=bench.machine(), title_justify="left")
    for row in rows:
        cells = [
            f"{v:.2f}" if isinstance(v, float) else "yes" if v is True else "no" if v is False else str(v)
            for v in row.values()
        ]
        table.add_row(*["-" if cell == "None" else cell for cell in cells])
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
