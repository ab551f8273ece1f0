"""`compare`: bundles beside each other, as a table and a page, and conditions that make it fail."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from inception_deploy.progress import Progress

from .base import Command, Outcome, Show, add_driver, add_threads, line, positive, sequence, table

_RUNS = 30


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundles", nargs="+", type=Path, metavar="BUNDLE", help="two or more; the first is the measure")
    data = "pictures to compare on, with classes or without: as `evaluate` takes them (default: crops of a photo)"
    parser.add_argument("--data", type=Path, metavar="DIR|FILE.npz|FILE.csv", help=data)
    parser.add_argument("--csv", type=Path, metavar="FILE.csv", help="the table of files and classes, of DIR")
    rules = "what the names of classes are: label, wnid, number or order (default: the first that knows all of them)"
    parser.add_argument("--classes", metavar="RULE", help=rules)
    labels = "the names of the networks' classes, one a line (default: the bundle's, or ImageNet's for 1000 classes)"
    parser.add_argument("--labels", type=Path, metavar="FILE", help=labels)
    few = "take only N pictures, spread evenly"
    parser.add_argument("--images", type=positive("--images", 1 << 30), metavar="N", help=few)
    rounds = f"rounds of the measurement of speed, taking turns (default: {_RUNS})"
    parser.add_argument("--runs", type=positive("--runs", 100_000), default=_RUNS, metavar="N", help=rounds)
    condition = (
        "exit with 1 where this holds for a bundle against the first, e.g. 'latency > 1.05' or 'same_top1 < 0.99'; of "
        "latency, size, memory (ratios), max_rel, cosine, same_top1, drop (points), top1, p50_ms; may be given several "
        "times"
    )
    parser.add_argument("--fail-if", action="append", default=[], metavar="EXPR", help=condition)
    page = "write all of it as one self-contained HTML page, too"
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.html", help=page)
    add_threads(parser)
    add_driver(parser)


def _execute(options: argparse.Namespace, progress: Progress) -> Outcome:
    from inception_deploy import compare

    document = compare(
        *options.bundles,
        data=options.data,
        csv=options.csv,
        classes=options.classes,
        labels=options.labels,
        images=options.images,
        runs=options.runs,
        fail_if=options.fail_if,
        output=options.output,
        threads=options.threads,
        driver=options.driver,
        progress=progress,
    )
    seen = document["inputs"]
    head = (
        f"{seen['count']} inputs of {seen['source']}, {document['threads']} threads, {document['runs']} rounds taking "
        f"turns, {document['machine']}"
    )
    shown = [line(head), _bundles(document), line(""), _pairs(document)]
    for row in document["bundles"]:
        if row["not_run"]:
            shown.append(line(f"{row['bundle']} is not timed, its outputs are onnxruntime's: {row['not_run']}"))
    shown += [line(f"{row['b']}: {row['not_compared']}") for row in document["pairs"] if row["not_compared"]]
    if options.data is not None and not seen["labelled"]:
        shown.append(line(f"no accuracy: {seen['unlabelled']}"))
    for row in document["failed"]:
        values = ", ".join(f"{name} {value:.4g}" for name, value in row["values"].items())
        shown.append(line(f"failed: {row['expression']} for {row['bundle']} ({values})"))
    if document["page"]:
        shown.append(line(f"wrote {document['page']}"))
    return Outcome(document, sequence(*shown), ok=document["ok"])


def _bundles(document: dict[str, Any]) -> Show:
    labelled = any(row["top1"] is not None for row in document["bundles"])
    columns = ["bundle", "precision", "target", "batch", "p50 ms", "MB", "memory MB"]
    rows = []
    for row in document["bundles"]:
        sizes = [f"{row[name] / 1e6:.2f}" for name in ("bytes", "memory_bytes")]
        told = row["top1"] is not None
        known = [f"{row['top1']:.2f}", "{:.2f} to {:.2f}".format(*row["top1_interval"])] if told else [None, None]
        accuracy = known if labelled else []
        rows.append([row["bundle"], row["precision"], row["target"], row["batch"], row["p50_ms"], *sizes, *accuracy])
    columns += ["top-1 %", "95 % interval"] if labelled else []
    return table(columns, rows, right=range(3, len(columns)))


def _pairs(document: dict[str, Any]) -> Show:
    columns = ("against", "bundle", "max rel", "cosine", "same top-1 %", "latency", "size", "memory", "points lost")
    rows = [
        (
            row["a"],
            row["b"],
            row["max_rel"],
            row["cosine"],
            None if row["same_top1"] is None else f"{100 * row['same_top1']:.2f}",
            *(row[f"ratio_{name}"] for name in ("p50", "bytes", "memory")),
            row["drop_points"],
        )
        for row in document["pairs"]
    ]
    return table(columns, rows, right=range(2, len(columns)))


COMMAND = Command(
    "compare",
    "compare bundles: outputs, speed, size, memory, accuracy",
    "inception-deploy compare irv2-cpu irv2-int8 -o compared.html\n"
    "inception-deploy compare net-1 net-2 --data labelled/ --fail-if 'latency > 1.05' --fail-if 'drop > 0.5'",
    _arguments,
    _execute,
)
