"""`vta`: streams of instructions for VTA, simulated and made readable."""

from __future__ import annotations

import argparse
from pathlib import Path

from inception_deploy.progress import Progress

from .base import Command, Outcome, line, sequence, table


def _none(parser: argparse.ArgumentParser) -> None:
    """Its parts have all of them."""


def _simulate_arguments(parser: argparse.ArgumentParser) -> None:
    from inception_deploy.targets.vta import files

    configuration = "the hardware's configuration, as upstream's tools write it"
    parser.add_argument("--config", type=Path, required=True, metavar="FILE.json", help=configuration)
    stream = "the instructions, 16 bytes each"
    parser.add_argument("--insns", type=Path, required=True, metavar="FILE", help=stream)
    before = "a file that lies in DRAM at a byte address; may be given several times"
    parser.add_argument(
        "--load", type=files.parse_load, action="append", default=[], metavar="FILE@0xADDR", help=before
    )
    after = "bytes of DRAM that are written to a file afterwards; may be given several times"
    form = "OUT@0xADDR:LENGTH"
    parser.add_argument("--dump", type=files.parse_dump, action="append", default=[], metavar=form, help=after)
    hardware = "what executes it: hls (pynq, ultra96, zcu104; default), chisel (de10nano), fsim (upstream's simulator)"
    parser.add_argument("--profile", metavar="P", help=hardware)
    time = "estimate the time on a board: pynq, ultra96, zcu104 or de10nano"
    parser.add_argument("--board", metavar="B", help=time)
    timeline = "write the estimated timeline, for Perfetto or chrome://tracing"
    parser.add_argument("--trace", type=Path, metavar="FILE.json", help=timeline)
    parser.add_argument("--stats", action="store_true", help="print what was executed and moved")


def _simulate(options: argparse.Namespace, progress: Progress) -> Outcome:
    from inception_deploy.targets.vta import files

    progress.stage("simulate")
    found = files.run(
        options.config,
        options.insns,
        options.load,
        options.dump,
        profile_name=options.profile,
        board_name=options.board,
        trace=options.trace,
    )
    shows = [line(f"{found['instructions']} instructions executed as {found['profile']}")]
    shows += [line(f"wrote {path}") for path in found["dumps"]]
    if timing := found.get("timing"):
        shares = f"GEMM multiplies in {timing['gemm_utilization']:.1%} of them"
        told = f"estimate for {timing['board']}: {timing['cycles']} cycles, {timing['ms']:.4g} ms; {shares}"
        shows.append(line(told))
        shows += [line(f"{s['engine']} waits {s['cycles']} cycles: {s['cause']}") for s in timing["stalls"]]
    if options.stats:
        rows = [(name.replace("_", " "), found[name]) for name in ("gemm_steps", "reset_steps", "alu_steps")]
        rows += [
            (f"bytes {'stored' if memory == 'out' else 'loaded'}: {memory}", n) for memory, n in found["bytes"].items()
        ]
        shows.append(table(("what", "count"), rows, right=(1,)))
    return Outcome(found, sequence(*shows))


def _disassemble_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("instructions", type=Path, metavar="FILE", help="the instructions, 16 bytes each")
    parser.add_argument("--uops", type=Path, metavar="FILE", help="micro-operations to list too, 4 bytes each")
    configuration = "the hardware's configuration, which decides the width of indices (default: upstream's)"
    parser.add_argument("--config", type=Path, metavar="FILE.json", help=configuration)


def _disassemble(options: argparse.Namespace, progress: Progress) -> Outcome:
    from inception_deploy.targets.vta import files

    lines = files.disassemble(options.instructions, options.uops, options.config)
    return Outcome(lines, sequence(*(line(text) for text in lines)))


_SIMULATE = Command(
    "simulate",
    "execute instructions on a simulated VTA, and stop where the hardware would go wrong",
    "inception-deploy vta simulate --config vta_config.json --insns instructions.bin --load input.bin@0x1000 "
    "--dump out.bin@0x3000:256",
    _simulate_arguments,
    _simulate,
)

_DISASSEMBLE = Command(
    "disassemble",
    "print instructions, one a line",
    "inception-deploy vta disassemble instructions.bin --uops uop.bin",
    _disassemble_arguments,
    _disassemble,
)

COMMAND = Command(
    "vta",
    "simulate or disassemble instructions of the VTA accelerator",
    _DISASSEMBLE.example,
    _none,
    _disassemble,
    parts=(_SIMULATE, _DISASSEMBLE),
)
