"""`report`: a bundle as one self-contained HTML page."""

from __future__ import annotations

import argparse
from pathlib import Path

from inception_deploy.progress import Progress

from .base import Command, Outcome, add_bundle, add_threads, line


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle(parser)
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="FILE.html", help="the page to write")
    add_threads(parser)


def _execute(options: argparse.Namespace, progress: Progress) -> Outcome:
    from inception_deploy import report

    document = report(options.bundle, options.output, threads=options.threads, progress=progress)
    return Outcome(document, line(f"wrote {document['report']}"))


COMMAND = Command(
    "report",
    "write a bundle's facts as one self-contained HTML page",
    "inception-deploy report irv2-cpu -o irv2.html",
    _arguments,
    _execute,
)
