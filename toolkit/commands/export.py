"""`export`: from a network to a verified, compiled bundle."""

from __future__ import annotations

import argparse
from pathlib import Path

from inception_deploy.progress import Progress

from . import config
from .base import Command, Outcome, add_quantization, add_source, line, network_of, sequence, table, top1_of


def _arguments(parser: argparse.ArgumentParser) -> None:
    config.add_config(parser)
    add_source(parser)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        type=Path,
        metavar="DIR",
        help="the bundle to write; a name that ends in .zip makes one zip",
    )
    parser.add_argument(
        "--precision",
        metavar="P",
        help="fp32, fp16, bf16 or int8 (default: fp32; int8 where the model is a quantized ONNX)",
    )
    group = parser.add_argument_group("int8", "how a float model becomes int8; `quantize` has more to choose from")
    add_quantization(group)
    parser.add_argument(
        "--tuned", type=Path, metavar="DB", help="a database of tune, whose choices of kernels are taken"
    )
    shipped = "for cpu, do not take what the package knows of this machine's core (without --tuned it does)"
    parser.add_argument("--no-shipped-records", action="store_true", help=shipped)
    parser.add_argument("--no-verify", action="store_true", help="do not compare each stage with the one before it")
    parser.add_argument(
        "--keep-stages",
        action="store_true",
        help="keep the ONNX from before our graph passes and the layers after each lowering pass in the bundle",
    )
    parser.add_argument(
        "--keep-fp32",
        nargs="+",
        default=[],
        metavar="NODE",
        help="nodes, as the bundle's ONNX names them, that fp16, or bf16 of cuda and arm, computes in fp32; those that "
        "leave fp16's range on the pictures that the export is checked with are, without being named",
    )
    group.add_argument(
        "--require-int8",
        type=float,
        metavar="PERCENT",
        help="an error where less of the multiply-adds computes in integers (a warning is given below 90)",
    )
    alone = "compile nothing: the ONNX after our passes, quantized for int8; -o FILE.onnx makes that file alone"
    parser.add_argument("--onnx-only", action="store_true", help=alone)
    inside = "link the weights into model.so, model.a and run_model too, which then need no other file; for cpu and arm"
    parser.add_argument("--embed", action="store_true", help=inside)
    without = (
        "build no run_model, model.a and what goes with them: the first on a machine takes a minute, for a C library"
    )
    parser.add_argument("--no-program", action="store_true", help=without)
    served = "write a model repository for a server of others, with the bundle inside: triton"
    parser.add_argument("--serve", metavar="KIND", help=served)
    parser.add_argument("--force", action="store_true", help="replace what stands at --output")


@config.configurable
def _execute(options: argparse.Namespace, progress: Progress) -> Outcome:
    from inception_deploy import export

    document = export(
        output=options.output,
        precision=options.precision,
        calibration=options.calibration,
        scheme=options.scheme,
        effort=options.effort,
        sixteen_bit=options.sixteen_bit,
        images=options.images,
        max_drop=options.max_drop,
        evaluate=options.evaluate,
        tuned=options.tuned,
        shipped_records=not options.no_shipped_records,
        verified=not options.no_verify,
        keep_stages=options.keep_stages,
        keep_fp32=options.keep_fp32,
        require_int8=options.require_int8,
        onnx_only=options.onnx_only,
        embed=options.embed,
        program=not options.no_program,
        serve=options.serve,
        config=config.kept(options),
        force=options.force,
        progress=progress,
        **network_of(options),
    )
    stages = table(("stage", "seconds"), document["seconds"].items(), right=(1,))
    quantization = document.get("quantization") or {}
    gated = [line(f"\ntop-1 {top1_of(quantization)}")] if "top1" in quantization else []
    served = document.get("serve")
    wrote = f"{served['repository']} with {', '.join(served['models'])}" if served else document["bundle"]
    return Outcome(document, sequence(stages, *gated, line(f"\nwrote {wrote}")), ok=document["ok"])


COMMAND = Command(
    "export",
    "export, optimise, compile and verify a network into a bundle",
    "inception-deploy export --model irv2 --target cpu -o irv2-cpu\n"
    "inception-deploy export --model net.py:build --input-size 96 -o net.zip\n"
    "inception-deploy export --model irv2 --precision int8 --calibration photos/ -o irv2-int8\n"
    "inception-deploy export --model irv2 --onnx-only -o irv2.onnx\n"
    "inception-deploy export --model irv2 --batch 8 --serve triton -o irv2-triton\n"
    "inception-deploy export --config net.toml --model net.onnx -o net-cpu",
    _arguments,
    _execute,
)
