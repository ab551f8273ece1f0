"""`bench`: latency side by side, in interleaved rounds."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from inception_deploy.errors import UsageError
from inception_deploy.progress import Progress

from .base import Command, Outcome, add_network, add_threads, line, positive, sequence, table

_BUNDLE_RUNS, _TORCH_RUNS = 30, 10


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", nargs="*", type=Path, metavar="BUNDLE", help="bundles to time")
    parser.add_argument(
        "--against",
        type=_engines,
        default=[],
        metavar="ENGINES",
        help="onnxruntime, openvino, torch (eager), torch-compile (needs a C++ compiler); several with commas",
    )
    parser.add_argument("--model", metavar="M", help="instead of a bundle: a network of the zoo, timed in --framework")
    parser.add_argument("--framework", choices=("torch",), help="what times --model")
    parser.add_argument(
        "--backward", action="store_true", help="with --framework torch: time forward and backward together too"
    )
    parser.add_argument(
        "--runs",
        type=positive("--runs", 100_000),
        metavar="N",
        help=f"rounds (default: {_BUNDLE_RUNS}; {_TORCH_RUNS} for torch)",
    )
    add_threads(parser)
    add_network(parser)


def _engines(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _execute(options: argparse.Namespace, progress: Progress) -> Outcome:
    if bool(options.bundle) == bool(options.model):
        raise UsageError(
            "bench takes bundles, or --model with --framework torch", kind="usage", allowed="one of the two"
        )
    documents = [_torch(options, progress)] if options.model else _bundles(options, progress)
    return Outcome(documents[0] if len(documents) == 1 else documents, sequence(*map(_show, documents)))


def _bundles(options: argparse.Namespace, progress: Progress) -> list[dict[str, Any]]:
    from inception_deploy.bundles import engines
    from inception_deploy.reports.bench import bench
    from inception_deploy.runtime import bundle

    zoo_only = {"--framework": options.framework, "--backward": options.backward or None, "--width": options.width,
                "--num-classes": options.num_classes, "--input-size": options.input_size}  # fmt: skip
    for flag, value in zoo_only.items():
        if value is not None:
            raise UsageError(f"{flag} goes with --model, a bundle has its own", kind="usage", got=flag)
    for name in options.against:
        engines.check_peer(name)
    documents = []
    for path in options.bundle:
        with bundle.open(path) as opened:
            documents.append(
                bench(
                    opened,
                    against=options.against,
                    runs=options.runs or _BUNDLE_RUNS,
                    threads=options.threads,
                    progress=progress,
                )
            )
    return documents


def _torch(options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    from inception_deploy.reports.bench import bench_torch

    if options.framework is None:
        raise UsageError("--model needs --framework", kind="usage", got=options.model, allowed=["torch"])
    if options.against:
        raise UsageError("--against goes with bundles, not with --model", kind="usage", got=options.against)
    return bench_torch(
        options.model,
        backward=options.backward,
        runs=options.runs or _TORCH_RUNS,
        threads=options.threads,
        batch=options.batch or 1,
        width=1.0 if options.width is None else options.width,
        num_classes=options.num_classes,
        input_size=options.input_size,
        progress=progress,
    )


def _show(document: dict[str, Any]) -> Any:
    head = f"{document['model']}, batch {document['batch']}, {document['threads']} threads, {document['machine']}"
    ratio = document["ratio"]
    columns = ("engine", "p50 ms", "p90 ms", "p99 ms", "mean ms", "sd ms", "runs", "ours / theirs")
    rows = [
        (
            r["engine"],
            r["p50_ms"],
            r["p90_ms"],
            r["p99_ms"],
            r["mean_ms"],
            r["sd_ms"],
            r["runs"],
            ratio.get(r["engine"], ""),
        )
        for r in document["results"]
    ]
    return sequence(line(head), table(columns, rows, right=range(1, 8)))


COMMAND = Command(
    "bench",
    "time bundles, next to other engines on the same input",
    "inception-deploy bench irv2-cpu --against onnxruntime --runs 50 --threads 2\n"
    "inception-deploy bench --model vgg16 --framework torch --backward",
    _arguments,
    _execute,
)
