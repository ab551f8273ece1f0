"""`bench`: latency side by side, in interleaved rounds."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inception_deploy.errors import UsageError
from inception_deploy.progress import Progress

from .base import (
    Command,
    Outcome,
    Show,
    add_device,
    add_driver,
    add_network,
    add_threads,
    line,
    positive,
    sequence,
    table,
)

_BUNDLE_RUNS, _TORCH_RUNS = 30, 10
_FIGURES = ("p50_ms", "p90_ms", "p99_ms", "mean_ms", "sd_ms")


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", nargs="*", type=Path, metavar="BUNDLE", help="bundles to time, taking turns")
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
    many = "also measure images a second of S handles at once, each with --threads (default: the cores shared out)"
    parser.add_argument("--streams", type=positive("--streams", 1024), metavar="S", help=many)
    add_threads(parser)
    add_driver(parser)
    add_device(parser)
    add_network(parser)


def _engines(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _execute(options: argparse.Namespace, progress: Progress) -> Outcome:
    if bool(options.bundle) == bool(options.model):
        raise UsageError(
            "bench takes bundles, or --model with --framework torch", kind="usage", allowed="one of the two"
        )
    documents = [_torch(options, progress)] if options.model else _bundles(options, progress)
    return Outcome(documents[0] if len(documents) == 1 else documents, _show(documents))


def _bundles(options: argparse.Namespace, progress: Progress) -> list[dict[str, Any]]:
    from inception_deploy import bench

    zoo_only = {"--framework": options.framework, "--backward": options.backward or None, "--width": options.width,
                "--num-classes": options.num_classes, "--input-size": options.input_size}  # fmt: skip
    for flag, value in zoo_only.items():
        if value is not None:
            raise UsageError(f"{flag} goes with --model, a bundle has its own", kind="usage", got=flag)
    return bench(
        *options.bundle,
        against=options.against,
        runs=options.runs or _BUNDLE_RUNS,
        threads=options.threads,
        driver=options.driver,
        device=options.device,
        streams=options.streams,
        batch=options.batch,
        progress=progress,
    )


def _torch(options: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    from inception_deploy import bench_torch

    if options.device is not None:
        raise UsageError("--device goes with bundles, not with --model", kind="usage", got=options.device)
    if options.framework is None:
        raise UsageError("--model needs --framework", kind="usage", got=options.model, allowed=["torch"])
    if options.against or options.streams:
        message = "--against and --streams go with bundles, not with --model"
        raise UsageError(message, kind="usage", got=options.against or options.streams)
    if isinstance(options.batch, tuple):
        raise UsageError("--model takes one --batch", kind="usage", got=list(options.batch), allowed="--batch N")
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


def _show(documents: Sequence[dict[str, Any]]) -> Show:
    """One table of all bundles and engines; a bundle's precision, and the ONNX that an engine computed, stand in it."""
    first = documents[0]
    several = len(documents) > 1
    there = [line(_told(document["device"])) for document in documents if "device" in document]
    heads = dict.fromkeys(f"{document['model']}, batch {_batches(document)}" for document in documents)
    head = f"{'; '.join(heads)}; {first['threads']} threads, {first['results'][0]['runs']} rounds, {first['machine']}"
    dynamic = any("plans" in document for document in documents)
    rows = []
    for document in documents:
        if "bundle" in document:
            name = f"{document['bundle']} in {document['precision']}"
            rows.append([name, *[""] * len(_FIGURES), "", "", document["ratio_to_first"]])
        for plan in _plans(document):
            batch = f", batch {plan['batch']}" if "plans" in document else ""
            for row in plan["results"]:
                engine = f"{row['engine']} on {row['onnx']}" if "onnx" in row else row["engine"]
                rate = 1e3 * plan["batch"] / row["p50_ms"] if row["p50_ms"] else ""
                ratio = plan["ratio"].get(row["engine"], "")
                rows.append([f"  {engine}{batch}", *(row[figure] for figure in _FIGURES), rate, ratio, ""])
    figures = [figure.replace("_", " ") for figure in _FIGURES]
    columns = ["engine", *figures, "images/s", "ours / theirs", "to the first"]
    shows = [True] * (1 + len(_FIGURES)) + [dynamic, True, several]
    columns, *rows = ([cell for cell, shown in zip(row, shows, strict=True) if shown] for row in (columns, *rows))
    shown = [line(head), table(columns, rows, right=range(1, len(columns))), *there]
    if any("throughput" in document for document in documents):
        shown += [line(""), _rates(documents)]
    return sequence(*shown)


def _rates(documents: Sequence[dict[str, Any]]) -> Show:
    """Images a second of every bundle and engine."""
    rows = [
        (
            document["bundle"],
            *(row[key] for key in ("engine", "batch", "streams", "threads", "images_per_second", "sd")),
        )
        for document in documents
        for plan in _plans(document)
        for row in plan["throughput"]
    ]
    columns = ("bundle", "engine", "batch", "streams", "threads of each", "images/s", "sd")
    return table(columns, rows, right=range(2, 7))


def _batches(document: dict[str, Any]) -> str:
    """The numbers of images of its plans."""
    return ", ".join(str(plan["batch"]) for plan in _plans(document))


def _plans(document: dict[str, Any]) -> list[dict[str, Any]]:
    """What was measured of each plan of a bundle, of which the document is the first."""
    return [document, *document.get("plans", [])]


def _told(device: dict[str, Any]) -> str:
    """What a device said of itself, before and after."""
    figures = [(device[name], device[f"{name}_after"], unit) for name, unit in (("clock_mhz", "MHz"), ("celsius", "C"))]
    known = [f"{before:g} {unit} before, {after:g} after" for before, after, unit in figures if before and after]
    return "; ".join(known) or "the device tells neither clock nor temperature"


COMMAND = Command(
    "bench",
    "time bundles, next to each other and to other engines",
    "inception-deploy bench irv2-cpu --against onnxruntime --runs 50 --threads 2\n"
    "inception-deploy bench irv2-cpu irv2-int8 --against onnxruntime\n"
    "inception-deploy bench irv2-cpu --streams 4 --threads 1 --against openvino\n"
    "inception-deploy bench irv2-rpi4 --device ssh://pi@raspberrypi.local --runs 100\n"
    "inception-deploy bench --model vgg16 --framework torch --backward",
    _arguments,
    _execute,
)
