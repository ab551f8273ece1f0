"""`quantize`: from a float32 ONNX to an int8 one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from inception_deploy.progress import Progress

from .base import (
    Command,
    Outcome,
    add_preprocessing,
    add_quantization,
    add_threads,
    line,
    preprocessing_of,
    sequence,
    table,
    top1_of,
)


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model", metavar="MODEL.onnx", help="a float32 ONNX; or a network of the zoo or a trained file, as for export"
    )
    add_quantization(parser)
    how = "how the pictures of --calibration become the network's input; the same as for export"
    add_preprocessing(parser.add_argument_group("preprocessing", how))
    parser.add_argument(
        "--method", metavar="M", help="how ranges are chosen: minmax, percentile, entropy, mse (where --effort begins)"
    )
    parser.add_argument("--percentile", type=float, default=99.99, metavar="P", help="for that method (default: 99.99)")
    parser.add_argument("-o", "--output", required=True, type=Path, metavar="OUT.onnx", help="the int8 ONNX to write")
    parser.add_argument(
        "--ranges", type=Path, metavar="FILE", help="read the ranges from this JSON, or write them there if it is new"
    )
    for name, values, what in (
        ("concat", ("shared", "own"), "one scale for all that a concat joins (default), or each its own"),
        (
            "add",
            ("aligned", "own", "accumulator"),
            "scales a power of two apart (default), each its own, or in the accumulator of the convolution before",
        ),
        (
            "average",
            ("window", "input", "own", "summed", "alike"),
            "the scale of an average pool: docs/quantization.md",
        ),
        ("moves", ("input", "own"), "max pools and flattens keep their input's scale (default), or have their own"),
    ):
        parser.add_argument(f"--{name}", choices=values, help=what)
    for name, what in (
        ("equalise", "even out the weights of neighbouring layers"),
        ("correct-bias", "take away the mean error of the rounded weights"),
        ("adaptive-rounding", "round weights by what their inputs are like"),
    ):
        parser.add_argument(
            f"--{name}", action=argparse.BooleanOptionalAction, help=f"{what} (default: as --effort finds)"
        )
    parser.add_argument("--force", action="store_true", help="replace what stands at --output")
    add_threads(parser)


def _execute(options: argparse.Namespace, progress: Progress) -> Outcome:
    from inception_deploy import quantize

    document = quantize(
        options.model,
        options.output,
        calibration=options.calibration,
        ranges=options.ranges,
        scheme=options.scheme or "float-scale",
        effort=options.effort or "normal",
        method=options.method,
        percentile=options.percentile,
        sixteen_bit=options.sixteen_bit,
        images=options.images,
        max_drop=options.max_drop,
        evaluate=options.evaluate,
        concat=options.concat,
        add=options.add,
        average=options.average,
        moves=options.moves,
        equalise=options.equalise,
        correct_bias=options.correct_bias,
        adaptive_rounding=options.adaptive_rounding,
        force=options.force,
        preprocessing=preprocessing_of(options),
        threads=options.threads,
        progress=progress,
    )
    return Outcome(document, sequence(*_shows(document)))


def _shows(document: dict[str, Any]) -> list[Any]:
    rows = [("scheme", document["scheme"]), ("calibrated on", f"{document['images']} pictures")]
    rows += [("repaired", text) for text in document["repairs"]]
    if document["held_back"]:
        rows.append(("measured on", f"{document['held_back']} pictures held back"))
    if wide := document["sixteen_bit"]:
        rows.append(("of 16 bits", ", ".join(wide[:8]) + ", ..." * (len(wide) > 8)))
    floats = document["float_nodes"]
    rows.append(("in float", ", ".join(floats[:8]) + (", ..." if len(floats) > 8 else "") if floats else "nothing"))
    if document["drop_points"] is not None:
        rows.append(("top-1", top1_of(document)))
    tried = [(one["candidate"], f"{one['sqnr_db']:.1f}", "kept" * one["kept"]) for one in document["candidates"]]
    shown = [line(""), table(("candidate", "dB", ""), tried, right=(1,))] if tried else []
    return [table(("", ""), rows), *shown, line(f"\nwrote {document['model']}")]


COMMAND = Command(
    "quantize",
    "turn a float32 ONNX into int8",
    "inception-deploy quantize model.onnx --calibration photos/ --scheme float-scale -o model.int8.onnx\n"
    "inception-deploy quantize digits_irv2.safetensors --calibration digits.npz --scheme power-of-two -o out.onnx",
    _arguments,
    _execute,
)
