"""Compiled bundles next to onnxruntime, OpenVINO and torch.compile, interleaved in one process with the machine's peak.

    python benchmarks/peers.py                                   # the ten networks of the goal, against all three
    python benchmarks/peers.py --models irv2 --layers            # and every distinct convolution against oneDNN
    python benchmarks/peers.py irv2-cpu --against onnxruntime    # a bundle that was exported before
    python benchmarks/peers.py --precision bf16 --against openvino --models irv2
    python benchmarks/peers.py --quick                           # what `make bench` does: five networks, onnxruntime

Every engine has the same threads and the same input, and must give the same answer. A round runs each of them once, and
a loop of multiply-adds that measures what the machine can do in that minute. GFLOP/s count the operations of the direct
convolutions, whatever algorithm is used, so a share may exceed what it does in instructions. Exit status 1 where a
ratio to the best peer is over its limit, or an answer is another.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from activations import activations
from layers import table as layer_table
from rich.console import Console
from rich.table import Table

from inception_deploy import models, pipeline, progress, targets, verify
from inception_deploy.bundles import engines
from inception_deploy.errors import DeployError
from inception_deploy.reports import bench
from inception_deploy.reports.peak import Peak
from inception_deploy.runtime import bundle
from inception_deploy.sources import resolve
from inception_deploy.targets import precision

LIMITS = {
    **dict.fromkeys(("irv2", "irv1", "inception_v4", "inception_v3", "googlenet"), 0.80),
    **dict.fromkeys(("resnet50", "vgg16", "resnext50", "xception", "mobilenet_v1"), 0.95),
}
"""The most that ours may take of the best peer's time."""

QUICK = ("irv2", "inception_v3", "resnet50", "mobilenet_v1", "googlenet")
ALL_PEERS = ("onnxruntime", "openvino", "torch-compile")
_PEAK = "multiply-adds"


def main() -> int:
    """Measure and print; 1 where a figure is over its limit or an answer is another."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", nargs="*", type=Path, help="bundles, instead of networks to export")
    parser.add_argument("--models", type=_names, help="networks to measure, with commas")
    parser.add_argument("--quick", action="store_true", help="five networks against onnxruntime only")
    parser.add_argument("--against", type=_names, help=f"engines, with commas (default: {','.join(ALL_PEERS)})")
    parser.add_argument("--target", default="cpu", help="what to compile for (default: cpu)")
    parser.add_argument("--precision", default="fp32", help="what to compute in (default: fp32)")
    parser.add_argument("--layers", action="store_true", help="also each distinct convolution, next to oneDNN")
    parser.add_argument("--runs", type=int, default=30, help="rounds (default: 30)")
    parser.add_argument("--threads", type=int, default=engines.default_threads(), help="threads of every engine")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    options = parser.parse_args()
    options.against = options.against or (["onnxruntime"] if options.quick else list(ALL_PEERS))
    documents = []
    with progress.terminal() as bar, tempfile.TemporaryDirectory() as folder:
        paths = options.bundle
        try:
            for name in () if paths else options.models or (QUICK if options.quick else LIMITS):
                path = Path(folder) / name
                request = resolve.Request(model=name)
                pipeline.export(
                    request, path, target=options.target, precision=options.precision, verified=False, progress=bar
                )
                documents.append(measure(path, options, bar))
            documents += [measure(path, options, bar) for path in paths]
        except DeployError as error:
            print(f"error: {error.message}", file=sys.stderr)
            return error.exit_code
    if options.json:
        print(json.dumps({"machine": bench.machine(), "threads": options.threads, "results": documents}, indent=2))
    else:
        show(documents, options)
    return 0 if all(document["ok"] for document in documents) else 1


def _names(text: str) -> list[str]:
    return [name for name in text.split(",") if name]


def measure(path: Path, options: argparse.Namespace, bar: progress.Progress) -> dict[str, Any]:
    """Everything about one bundle."""
    with bundle.open(path) as opened:
        manifest = opened.manifest
        name, flops = manifest["model"], 2 * manifest["cost"]["macs"]
        bar.stage(f"{name}: load")
        ready = [engines.make(e, opened, threads=options.threads) for e in ("compiled", *options.against)]
        x = np.random.default_rng(0).standard_normal(opened.input_shape, dtype=np.float32)
        answers = {engine.name: engine.run(x) for engine in ready}
        loop = Peak(targets.parse(manifest["target"]).isa, options.threads)
        calls: dict[str, Any] = {engine.name: partial(engine.run, x) for engine in ready}
        bar.note(f"{name}: measuring")
        found = bench.interleave(calls | {_PEAK: loop.run}, options.runs, bar, pause_s=bench.pause_s(calls))
        rows = [{"engine": name, **figures} for name, figures in found.items()]
        bar.note(f"{name}: measured")
        peak = loop.flops / rows[-1]["p50_ms"] / 1e6
        for row in rows:
            row["gflops"] = round((loop.flops if row["engine"] == _PEAK else flops) / row["p50_ms"] / 1e6, 1)
            row["share"] = round(row["gflops"] / peak, 3)
        p50 = {row["engine"]: row["p50_ms"] for row in rows}
        ratio = {peer: round(p50["compiled"] / p50[peer], 4) for peer in options.against}
        agreement = {peer: _difference(answers[peer], answers["compiled"], manifest) for peer in options.against}
        limits = {models.resolve(key): value for key, value in LIMITS.items()}
        limit = limits.get(name) if manifest["precision"] == "fp32" else 1.0
        best = min(ratio, key=lambda peer: -ratio[peer])
        document = {
            "model": name,
            "precision": manifest["precision"],
            "input": list(opened.input_shape),
            "results": rows,
            "ratio": ratio,
            "best_peer": best,
            "ratio_to_best": ratio[best],
            "limit": limit,
            "same_answer": agreement,
            "memory": {
                "arena_bytes": manifest["memory"]["arena_bytes"],
                **{f"{engine}_measured_bytes": activations(engine, path) for engine in ("compiled", "onnxruntime")},
            },
        }
        if options.layers:
            bar.stage(f"{name}: layers")
            model = onnx.load(str(opened.onnx))
            document["layers"], worst = layer_table(model, manifest["target"], options.threads, options.runs, bar)
            agreement["onednn"] = {"max_rel": worst, "ok": worst <= verify.tolerance("compiled").max_rel}
    document["ok"] = (limit is None or ratio[best] <= limit) and all(row["ok"] for row in agreement.values())
    return document


def _difference(reference: Any, got: Any, manifest: dict[str, Any]) -> dict[str, Any]:
    """`max_rel` of our outputs to a peer's, and whether that is within the tolerance of the bundle's precision."""
    stage = precision.of(manifest).stage
    rows = [verify.compare(a, b, stage) for a, b in zip(reference, got, strict=True)]
    return {"max_rel": max(row["max_rel"] for row in rows), "ok": all(row["ok"] for row in rows)}


def show(documents: list[dict[str, Any]], options: argparse.Namespace) -> None:
    """Tables: the networks, every engine of each, memory, and the layers where they were measured."""
    console = Console() if sys.stdout.isatty() else Console(width=150)

    def put(title: str, columns: list[str], rows: list[list[Any]]) -> None:
        table = Table(*columns, title=title, title_justify="left")
        for row in rows:
            table.add_row(*["-" if cell is None else str(cell) for cell in row])
        console.print(table)

    put(
        f"{bench.machine()}, {options.threads} threads",
        ["network", "precision", *(f"ours / {peer}" for peer in options.against), "limit", "peak", "share", "ok"],
        [
            [d["model"], d["precision"], *d["ratio"].values(), d["limit"], d["results"][-1]["gflops"],
             d["results"][0]["share"], "yes" if d["ok"] else "no"]
            for d in documents
        ],
    )  # fmt: skip
    columns = ["engine", "p50_ms", "p90_ms", "p99_ms", "mean_ms", "sd_ms", "gflops", "share"]
    for d in documents:
        memory = {key: f"{value / 2**20:.1f} MiB" for key, value in d["memory"].items()}
        put(f"{d['model']}: {memory}", columns, [[row[column] for column in columns] for row in d["results"]])
        if "layers" in d:
            put(f"{d['model']}: distinct convolutions", list(d["layers"][0]), [list(r.values()) for r in d["layers"]])
        for peer, row in d["same_answer"].items():
            if not row["ok"]:
                console.print(f"{d['model']}: {peer} gives another answer, {row['max_rel']}")


if __name__ == "__main__":
    sys.exit(main())
