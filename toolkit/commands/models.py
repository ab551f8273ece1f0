"""`models`: the networks of the zoo."""

from __future__ import annotations

import argparse

from inception_deploy.progress import Progress

from .base import Command, Outcome, table


def _arguments(parser: argparse.ArgumentParser) -> None:
    """None: the table is short enough to show whole."""


def _execute(options: argparse.Namespace, progress: Progress) -> Outcome:
    from inception_deploy import models

    specs = models.specs()
    document = [
        {
            "name": spec.name,
            "aliases": list(spec.aliases),
            "input": list(spec.input),
            "parameters": spec.parameters,
            "macs": spec.macs,
            "top1": spec.top1,
            "weights": spec.weights_source,
            "options": {option.name: option.help for option in spec.options},
        }
        for spec in specs
    ]
    rows = [
        (s.name, ", ".join(s.aliases), "x".join(map(str, s.input)), f"{s.parameters:,}", f"{s.macs / 1e9:.4f}", s.top1)
        for s in specs
    ]
    columns = ("name", "aliases", "input", "parameters", "GMACs", "top-1 %")
    return Outcome(document, table(columns, rows, right=(3, 4, 5)))


COMMAND = Command("models", "list the networks of the zoo", "inception-deploy models --json", _arguments, _execute)
