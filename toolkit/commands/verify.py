"""`verify`: every stage of a bundle against the one before it."""

from __future__ import annotations

import argparse
from typing import Any

from inception_deploy.progress import Progress

from .base import Command, Outcome, Show, add_bundle, add_device, add_driver, add_threads, line, sequence, table


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_bundle(parser)
    add_threads(parser)
    add_driver(parser)
    add_device(parser)


def _execute(options: argparse.Namespace, progress: Progress) -> Outcome:
    from inception_deploy import judge, verify

    document = verify(
        options.bundle, threads=options.threads, driver=options.driver, device=options.device, progress=progress
    )
    columns = ("stage", "reference", "max abs", "max rel", "cosine", "same top-5", "allowed", "by", "ok", "")
    rows = [
        (judge.named(r), r["reference"], r["max_abs"], r["max_rel"], r["cosine"], r["top5_same"],
         r.get("allowed", r["tolerance"]), r.get("criterion", "fixed"), r["ok"],
         "recorded at export" if r.get("recorded") else "")
        for r in document["stages"]
    ]  # fmt: skip
    shows = [table(columns, rows, right=(2, 3, 4, 6))]
    shows += [line(told) for told in map(judge.note, document["stages"]) if told]
    if "layers" in document:
        shows += [line(""), *_layers(document)]
    shows += [line(f"{entry['stage']}: not checked: {entry['reason']}") for entry in document["not_run"]]
    return Outcome(document, sequence(*shows), ok=document["ok"])


def _layers(document: dict[str, Any]) -> list[Show]:
    """Where an int8 network loses what."""
    rows = [
        (row["layer"], row["op"], row["sqnr_db"], row["cosine"], row["own_db"], row["before_db"],
         "falls off here" if row["layer"] == document["first_fall"] else "")
        for row in document["layers"]
    ]  # fmt: skip
    columns = ("layer in int8", "op", "SQNR dB", "cosine", "alone dB", "inputs dB", "")
    fall = document["first_fall"]
    told = f"accuracy first falls off at {fall}" if fall else "no layer is far less exact than what it reads"
    return [table(columns, rows, right=(2, 3, 4, 5)), line(told)]


COMMAND = Command(
    "verify",
    "compare every stage of a bundle with the one before it",
    "inception-deploy verify irv2-cpu\ninception-deploy verify irv2-rpi4 --device ssh://pi@raspberrypi.local",
    _arguments,
    _execute,
)
