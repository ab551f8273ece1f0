"""`inspect`: what is inside a bundle or an ONNX file."""

from __future__ import annotations

import argparse
from pathlib import Path

from inception_deploy.progress import Progress

from .base import Command, Outcome, add_threads


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="BUNDLE|MODEL.onnx", help="a bundle folder or .zip, or an ONNX file")
    add_threads(parser)


def _execute(options: argparse.Namespace, progress: Progress) -> Outcome:
    from inception_deploy import inspect_

    document = inspect_.inspect(options.path, threads=options.threads, progress=progress)
    return Outcome(document, inspect_.show(document))


COMMAND = Command(
    "inspect",
    "show a network's branches, work, memory, placement and time per layer",
    "inception-deploy inspect irv2-cpu\ninception-deploy inspect model.onnx --json",
    _arguments,
    _execute,
)
