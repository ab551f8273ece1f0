"""`run`: a bundle on pictures or on a tensor."""

from __future__ import annotations

import argparse
from pathlib import Path

from inception_deploy.progress import Progress

from .base import Command, Outcome, add_bundle, add_threads, line, positive, sequence, table

RUNTIMES = ("compiled", "onnxruntime")


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle(parser)
    given = parser.add_mutually_exclusive_group(required=True)
    given.add_argument(
        "--image",
        nargs="+",
        type=Path,
        default=[],
        metavar="FILE",
        help="JPEG or PNG files, prepared as the network wants them",
    )
    given.add_argument(
        "--input", type=Path, metavar="FILE.npy", help="the network's input: float32, (N, C, H, W), already prepared"
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
    add_threads(parser)


def _execute(options: argparse.Namespace, progress: Progress) -> Outcome:
    from inception_deploy.reports.run import run
    from inception_deploy.runtime import bundle

    progress.stage("load")
    with bundle.open(options.bundle) as opened:
        document = run(
            opened,
            pictures=options.image,
            tensor=options.input,
            runtime=options.runtime,
            top_k=options.top_k,
            labels=options.labels,
            output=options.output,
            threads=options.threads,
        )
    tops = document["top"] if not document["top"] or isinstance(document["top"][0], list) else [document["top"]]
    names = [str(path) for path in options.image] or [f"row {index}" for index in range(len(tops))]
    shows = [line(f"{document['runtime']}: {document['latency_ms']:.2f} ms")]
    for name, top in zip(names, tops, strict=False):
        rows = [(entry["index"], entry["label"], entry["score"]) for entry in top]
        shows += [line(f"\n{name}"), table(("class", "label", "score"), rows, right=(0, 2))]
    return Outcome(document, sequence(*shows))


COMMAND = Command(
    "run",
    "run a bundle on pictures or on a tensor",
    "inception-deploy run irv2-cpu --image photo.jpg --top-k 3\n"
    "inception-deploy run irv2-cpu --input x.npy --runtime onnxruntime --output logits.npy",
    _arguments,
    _execute,
)
