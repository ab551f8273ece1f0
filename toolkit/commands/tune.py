"""`tune`: search for faster kernels of a network by measuring, into a database that `export --tuned` builds from."""

from __future__ import annotations

import argparse
from pathlib import Path

from inception_deploy.errors import UsageError
from inception_deploy.progress import Progress

from .base import Command, Outcome, add_source, add_threads, line, network_of, positive, sequence, table

_ROWS = 20


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    parser.add_argument(
        "--trials",
        required=True,
        type=positive("--trials"),
        metavar="N",
        help="choices to measure, of all layers together",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="DB",
        help="the database: a folder that keeps every measurement",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the database that stands at --output")
    parser.add_argument(
        "--tracker", type=_address, metavar="HOST:PORT", help="measure on devices that this RPC tracker of TVM knows"
    )
    parser.add_argument("--key", metavar="K", help="the devices' key at the tracker")
    add_threads(parser)


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not host or not colon or not port.isdecimal() or not port.isascii() or not 1 <= int(port[:6]) <= 65535:
        raise UsageError(f"--tracker is '{text}'", kind="usage", got=text, allowed="HOST:PORT, e.g. 192.168.1.2:9190")
    return host, int(port)


def _execute(options: argparse.Namespace, progress: Progress) -> Outcome:
    from inception_deploy import tune

    if (options.tracker is None) != (options.key is None):
        raise UsageError("--tracker and --key go together", kind="usage", got="one of them", allowed="both, or neither")
    document = tune(
        output=options.output,
        trials=options.trials,
        resume=options.resume,
        tracker=options.tracker,
        key=options.key,
        threads=options.threads,
        progress=progress,
        **network_of(options),
    )
    rows = document["layers"]
    shown = table(
        ("task", "layers", "default ms", "share %", "tried", "best / default"),
        [
            (r["task"], r["count"], r["default_ms"], 100 * r["share"], r["choices"], r["ratio"])
            for r in sorted(rows, key=lambda r: -r["share"])[:_ROWS]
        ],
        right=range(1, 6),
    )
    rest = f"... and {len(rows) - _ROWS} more\n" if len(rows) > _ROWS else ""
    what = "the network" if document["measured"] == "network" else "the sum of the layers"
    text = (
        f"{rest}\n{document['trials']} trials, {document['records']} records in {document['database']}; {what} takes "
        f"{document['after_ms']:.2f} ms instead of {document['before_ms']:.2f}\n"
        f"build from it: inception-deploy export --model {options.model} --tuned {options.output} ..."
    )
    return Outcome(document, sequence(shown, line(text)))


COMMAND = Command(
    "tune",
    "search for faster kernels of a network by measuring",
    "inception-deploy tune --model irv2 --target cpu --trials 64 -o irv2.db\n"
    "inception-deploy tune --model v4 --target arm:cortex-a72 -o pi.db --trials 500 --tracker 10.0.0.2:9190 --key pi4",
    _arguments,
    _execute,
)
