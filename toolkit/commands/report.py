"""`report`: a bundle as one self-contained HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path

from inception_deploy.progress import Progress

from .base import Command, Outcome, add_bundle, add_threads, line, positive

_RUNS = 30


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle(parser)
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE.html", help="the page to write")
    image = "a picture to classify (default: the one that every export is checked on)"
    parser.add_argument("--image", type=Path, metavar="FILE", help=image)
    parser.add_argument("--labels", type=Path, metavar="FILE", help="the names of the classes, one a line")
    engines = (
        "engines to time beside it, with commas, or none (default: those of onnxruntime,openvino,torch that are here)"
    )
    parser.add_argument("--against", type=_engines, metavar="ENGINES", help=engines)
    runs = f"runs of each engine (default: {_RUNS})"
    parser.add_argument("--runs", type=positive("--runs", 100_000), default=_RUNS, metavar="N", help=runs)
    accuracy = "labelled pictures, as `evaluate` takes them, or the .json that it printed with --json"
    parser.add_argument("--evaluate", type=Path, metavar="DIR|FILE", help=accuracy)
    seconds = "the .json that `export --json` printed: the seconds of its stages"
    parser.add_argument("--exported", type=Path, metavar="FILE.json", help=seconds)
    add_threads(parser)


def _engines(text: str) -> list[str]:
    return [] if text == "none" else [name.strip() for name in text.split(",") if name.strip()]


def _execute(options: argparse.Namespace, progress: Progress) -> Outcome:
    from inception_deploy import report

    document = report(
        options.bundle,
        options.output,
        image=options.image,
        labels=options.labels,
        evaluate=options.evaluate,
        exported=options.exported,
        against=options.against,
        runs=options.runs,
        threads=options.threads,
        progress=progress,
    )
    return Outcome(document, line(f"wrote {document['report']}"))


COMMAND = Command(
    "report",
    "measure a bundle and write all of its facts as one self-contained HTML page",
    "inception-deploy report irv2-cpu -o irv2.html",
    _arguments,
    _execute,
)
