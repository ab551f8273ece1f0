"""`targets`: what can be built and run on this machine."""

from __future__ import annotations

import argparse

from inception_deploy.progress import Progress

from .base import Command, Outcome, table


def _arguments(parser: argparse.ArgumentParser) -> None:
    """None."""


def _execute(options: argparse.Namespace, progress: Progress) -> Outcome:
    from inception_deploy import targets

    document = targets()
    rows = [(row["name"], row["needs"], row["builds"], row["runs"], row["reason"]) for row in document]
    return Outcome(document, table(("name", "needs", "builds here", "runs here", "why not"), rows))


COMMAND = Command(
    "targets",
    "list the targets and whether they can be built and run here",
    "inception-deploy targets",
    _arguments,
    _execute,
)
