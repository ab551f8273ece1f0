"""`evaluate`: the accuracy of a bundle on labelled pictures."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inception_deploy.progress import Progress

from .base import Command, Outcome, Show, add_bundle, add_driver, add_threads, line, positive, sequence, table

_ROWS, _FEW = 20, 12


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle(parser)
    data = "a folder with a folder of pictures a class; a .csv of files and classes, or a folder with one; an .npz"
    parser.add_argument("data", type=Path, metavar="DIR|FILE.npz|FILE.csv", help=data)
    engines = "compiled, onnxruntime, or both with a comma (default: both, where they can run here)"
    parser.add_argument("--runtime", type=_names, default=[], metavar="ENGINES", help=engines)
    parser.add_argument("--csv", type=Path, metavar="FILE.csv", help="the table of files and classes, of DIR")
    rules = (
        "what the names of classes are: label, wnid (n01440764, ImageNet's), number, or order (the place among the "
        "sorted names, as torchvision numbers folders); default: the first that knows all of them"
    )
    parser.add_argument("--classes", metavar="RULE", help=rules)
    labels = "the names of the network's classes, one a line (default: the bundle's, or ImageNet's for 1000 classes)"
    parser.add_argument("--labels", type=Path, metavar="FILE", help=labels)
    few = "take only N pictures, spread evenly"
    parser.add_argument("--images", type=positive("--images", 1 << 30), metavar="N", help=few)
    workers = "threads that read and prepare pictures (default: every core this process may use)"
    parser.add_argument("--workers", type=positive("--workers", 1024), metavar="N", help=workers)
    lines = "write what was found of each picture, a JSON line each"
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.jsonl", help=lines)
    parser.add_argument("--resume", action="store_true", help="go on with --output where a stopped evaluation left it")
    add_threads(parser)
    add_driver(parser)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _execute(options: argparse.Namespace, progress: Progress) -> Outcome:
    from inception_deploy import evaluate

    document = evaluate(
        options.bundle,
        options.data,
        runtime=options.runtime,
        csv=options.csv,
        classes=options.classes,
        labels=options.labels,
        images=options.images,
        workers=options.workers,
        output=options.output,
        resume=options.resume,
        threads=options.threads,
        driver=options.driver,
        progress=progress,
    )
    for row in document["not_run"]:
        progress.note(f"{row['engine']} is left out: {row['reason']}")
    head = (
        f"{document['model']} in {document['precision']}, {document['images']} pictures of "
        f"{len(document['per_class'])} classes (by {document['classes_by']})"
    )
    shown = [line(head), _engines(document["engines"])]
    first = document["engines"][0]["engine"]
    if len(document["per_class"]) <= _FEW:
        shown += [line(f"\nwhat {first} took for what"), _matrix(document)]
    else:
        shown += [line(""), _worst(document["per_class"]), line(""), _confused(document["confusion"])]
    return Outcome(document, sequence(*shown))


def _engines(rows: Sequence[dict[str, Any]]) -> Show:
    columns = ("engine", "top-1 %", "95 % interval", "top-5 %", "images/s", "same top-1 %")
    cells = [
        (
            row["engine"],
            f"{row['top1']:.2f}",
            "{:.2f} to {:.2f}".format(*row["top1_interval"]),
            f"{row['top5']:.2f}",
            f"{row['images_per_second']:.1f}",
            f"{100 * row['same_top1']:.2f}",
        )
        for row in rows
    ]
    return table(columns, cells, right=range(1, len(columns)))


def _matrix(document: dict[str, Any]) -> Show:
    """All of a small confusion: a row a class, a column what it was taken for."""
    per_class, confusion = document["per_class"], document["confusion"]
    shown = sorted({row["class"] for row in per_class} | {row["predicted"] for row in confusion})
    counts = {(row["class"], row["predicted"]): row["images"] for row in confusion}
    rows = []
    for row in per_class:
        wrong = sum(number for (wanted, _), number in counts.items() if wanted == row["class"])
        here = counts | {(row["class"], row["class"]): row["images"] - wrong}
        taken = [here.get((row["class"], column)) or "" for column in shown]
        rows.append([row["label"], row["images"], f"{row['top1']:.1f}", *taken])
    columns = ["class", "pictures", "top-1 %", *map(str, shown)]
    return table(columns, rows, right=range(1, len(columns)))


def _worst(per_class: Sequence[dict[str, Any]]) -> Show:
    worst = sorted(per_class, key=lambda row: (row["top1"], row["class"]))[:_ROWS]
    rows = [(row["class"], row["label"], row["images"], f"{row['top1']:.1f}", f"{row['top5']:.1f}") for row in worst]
    return table(("class", "worst classes", "pictures", "top-1 %", "top-5 %"), rows, right=(0, 2, 3, 4))


def _confused(confusion: Sequence[dict[str, Any]]) -> Show:
    rows = [(row["label"], row["predicted_label"], row["images"]) for row in confusion[:_ROWS]]
    return table(("most confused", "taken for", "pictures"), rows, right=(2,))


COMMAND = Command(
    "evaluate",
    "measure a bundle's accuracy on labelled pictures",
    "inception-deploy evaluate irv2-int8 imagenet/val --images 1000\n"
    "inception-deploy evaluate digits-int8 examples/data/digits_heldout.npz\n"
    "inception-deploy evaluate net-cpu photos/ --csv labels.csv -o predicted.jsonl --resume",
    _arguments,
    _execute,
)
