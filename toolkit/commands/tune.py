"""`tune`: search for faster kernels of a network, into a database that `export --tuned` builds from."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from inception_deploy.errors import UsageError
from inception_deploy.progress import Progress

from .base import Command, Outcome, add_device, add_source, add_threads, line, network_of, positive, sequence, table

_ROWS = 20


def _arguments(parser: argparse.ArgumentParser) -> None:
    add_source(parser)
    parser.add_argument(
        "--trials",
        required=True,
        type=positive("--trials"),
        metavar="N",
        help="choices to judge, of all layers together",
    )
    parser.add_argument(
        "--precision",
        metavar="P",
        help="whose kernels: fp32, int8, fp16 or bf16, as the target has them (default: int8 for a quantized ONNX and "
        "for vta, otherwise fp32)",
    )
    parser.add_argument(
        "--scheme",
        metavar="S",
        help="of int8 (default: the target's); a float network is quantized on random pictures, as times do not depend "
        "on its scales",
    )
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="DB",
        help="the database: a folder that keeps every result",
    )
    parser.add_argument("--resume", action="store_true", help="go on with the database that stands at --output")
    parser.add_argument(
        "--tracker", type=_address, metavar="HOST:PORT", help="measure on devices that this RPC tracker of TVM knows"
    )
    parser.add_argument("--key", metavar="K", help="the devices' key at the tracker")
    add_device(parser)
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
        precision=options.precision,
        scheme=options.scheme,
        trials=options.trials,
        resume=options.resume,
        tracker=options.tracker,
        key=options.key,
        device=options.device,
        threads=options.threads,
        progress=progress,
        **network_of(options),
    )
    rows = document["layers"]
    shown = table(
        ("task", "layers", "default ms", "share %", "tried", "best / default", "kept"),
        [
            (r["task"], r["count"], r["default_ms"], 100 * r["share"], r["choices"], r["ratio"], _kept(r))
            for r in sorted(rows, key=lambda r: -r["share"])[:_ROWS]
        ],
        right=range(1, 6),
    )
    rest = f"... and {len(rows) - _ROWS} more\n" if len(rows) > _ROWS else ""
    precision = f"--precision {options.precision} " if options.precision else ""
    text = (
        f"{rest}\n{document['trials']} trials, {document['records']} records in {document['database']}; "
        f"{_gained(document)}\n"
        f"build from it: inception-deploy export --model {options.model} --target {options.target} "
        f"{precision}--tuned {options.output} ..."
    )
    return Outcome(document, sequence(shown, line(text)))


def _kept(row: Mapping[str, Any]) -> str:
    return "" if row["ratio"] == 1 else "yes" if row["kept"] else "no: not faster in the network"


def _gained(document: Mapping[str, Any]) -> str:
    """What the tuning came to."""
    better, kept, before, after = (document[name] for name in ("better", "kept", "before_ms", "after_ms"))
    took = f"{after:.2f} ms instead of {before:.2f}"
    if document["measured"] == "model":
        cycles, least = (document[name] for name in ("before_cycles", "bound_cycles"))
        took += f", an estimate: {document['after_cycles']} cycles instead of {cycles}, at least {least}"
    elif document["measured"] != "network":
        return f"{better} kernels are faster; the sum of the layers takes {took}"
    if not kept:
        alone = f"{better} kernels were faster alone, none in the network" if better else "no kernel was faster"
        return f"{alone}: it keeps its defaults, {before:.2f} ms"
    return f"the network keeps {kept} of {better} faster kernels and takes {took} ({after / before - 1:+.1%})"


COMMAND = Command(
    "tune",
    "search for faster kernels of a network",
    "inception-deploy tune --model irv2 --target cpu --trials 64 -o irv2.db\n"
    "inception-deploy tune --model googlenet --precision int8 --trials 64 -o googlenet-int8.db\n"
    "inception-deploy tune --model irv2 --target cuda:sm_90 --precision fp16 --trials 200 -o irv2-h100.db\n"
    "inception-deploy tune --model resnet18 --target vta:pynq --trials 200 -o resnet18-pynq.db\n"
    "inception-deploy tune --model mobilenet_v1 --target rpi4 --trials 200 -o pi.db --device ssh://pi@raspberrypi.local\n"
    "inception-deploy tune --model v4 --target arm:cortex-a72 -o pi.db --trials 500 --tracker 10.0.0.2:9190 --key pi4",
    _arguments,
    _execute,
)
