"""`run`: a bundle on pictures or on a tensor."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from inception_deploy.progress import Progress

from .base import Command, Outcome, Show, add_bundle, add_driver, add_threads, line, positive, sequence, table

RUNTIMES = ("compiled", "onnxruntime")


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle(parser)
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument(
        "--image",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE|FOLDER",
        help="pictures (JPEG, PNG, WebP, BMP, TIFF), or folders of them, prepared as the network wants them",
    )
    given.add_argument(
        "--input",
        type=Path,
        metavar="FILE.npy",
        help="the network's input: float32, (N, C, H, W), already prepared; of several inputs a .npz of them by name",
    )
    parser.add_argument(
        "--runtime",
        choices=RUNTIMES,
        default="compiled",
        help="the compiled library (default), or onnxruntime on the bundle's ONNX",
    )
    parser.add_argument(
        "--top-k", type=positive("--top-k"), default=5, metavar="K", help="how many classes to name (default: 5)"
    )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="the names of the classes, one a line (default: ImageNet's for 1000 classes)",
    )
    parser.add_argument("--output", type=Path, metavar="FILE.npy", help="write the first output there, float32, raw")
    parser.add_argument("--allow-nan", action="store_true", help="take inputs that hold a NaN or an infinity")
    add_threads(parser)
    add_driver(parser)


def _execute(options: argparse.Namespace, progress: Progress) -> Outcome:
    from inception_deploy import run

    document = run(
        options.bundle,
        options.input if options.input is not None else options.image,
        runtime=options.runtime,
        top_k=options.top_k,
        labels=options.labels,
        output=options.output,
        allow_nan=options.allow_nan,
        threads=options.threads,
        driver=options.driver,
        progress=progress,
    )
    head = line(f"{document['runtime']}: {document['latency_ms']:.2f} ms")
    if not document["top"]:
        shapes = ", ".join(f"{row['name']} {row['dtype']} {row['shape']}" for row in document["outputs"])
        return Outcome(document, sequence(head, line(shapes)))
    if len(document["inputs"]) == 1:
        rows = [(entry["index"], entry["label"], entry["score"]) for entry in document["top"]]
        shown = table(("class", "label", "score"), rows, right=(0, 2))
        return Outcome(document, sequence(head, line(f"\n{document['inputs'][0]}"), shown))
    return Outcome(document, sequence(head, line(""), _a_line_each(document)))


def _a_line_each(document: dict[str, Any]) -> Show:
    """The best class of each picture; ``--json`` has the others."""
    rows = [
        (name, *((top[0]["index"], top[0]["label"], top[0]["score"]) if top else (None, None, None)))
        for name, top in zip(document["inputs"], document["top"], strict=True)
    ]
    return table(("picture", "class", "label", "score"), rows, right=(1, 3))


COMMAND = Command(
    "run",
    "run a bundle on pictures or on a tensor",
    "inception-deploy run irv2-cpu --image photo.jpg --top-k 3\n"
    "inception-deploy run irv2-cpu --image photos/ --json\n"
    "inception-deploy run irv2-cpu --input x.npy --runtime onnxruntime --output logits.npy",
    _arguments,
    _execute,
)
