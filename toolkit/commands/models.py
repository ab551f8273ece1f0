"""`models`: the networks of the zoo."""

from __future__ import annotations

import argparse

from inception_deploy.progress import Progress

from .base import Command, Outcome, table


def _arguments(parser: argparse.ArgumentParser) -> None:
    """None: the table is short enough to show whole."""


def _execute(options: argparse.Namespace, progress: Progress) -> Outcome:
    from inception_deploy import models

    document = models()
    rows = [
        (row["name"], ", ".join(row["aliases"]), "x".join(map(str, row["input"])), f"{row['parameters']:,}",
         f"{row['macs'] / 1e9:.4f}", row["top1"])
        for row in document
    ]  # fmt: skip
    columns = ("name", "aliases", "input", "parameters", "GMACs", "top-1 %")
    return Outcome(document, table(columns, rows, right=(3, 4, 5)))


COMMAND = Command("models", "list the networks of the zoo", "inception-deploy models --json", _arguments, _execute)
