"""`vta`: streams of instructions for VTA, simulated and made readable; libraries that drive one."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from inception_deploy.errors import UsageError
from inception_deploy.progress import Progress

from .base import Command, Outcome, line, sequence, table


def _none(parser: argparse.ArgumentParser) -> None:
    """Its parts have all of them."""


def _simulate_arguments(parser: argparse.ArgumentParser) -> None:
    from inception_deploy.targets.vta import files

    configuration = "the hardware's configuration, as upstream's tools write it"
    own = "a bundle for a VTA, whose own stream is executed; instead of --config and --insns"
    parser.add_argument("--bundle", type=Path, metavar="BUNDLE", help=own)
    which = "which of the bundle's streams (default: 0, the first)"
    parser.add_argument("--stream", type=int, default=None, metavar="N", help=which)
    parser.add_argument("--config", type=Path, metavar="FILE.json", help=configuration)
    stream = "the instructions, 16 bytes each"
    parser.add_argument("--insns", type=Path, metavar="FILE", help=stream)
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


def _simulated(options: argparse.Namespace) -> dict[str, Any]:
    """The document of a bundle's stream, or of one in files."""
    how = {"profile_name": options.profile, "board_name": options.board, "trace": options.trace}
    files_given = {
        "--config": options.config, "--insns": options.insns, "--load": options.load, "--dump": options.dump
    }  # fmt: skip
    if options.bundle is not None:
        from inception_deploy.targets.vta import replay

        if wrong := [flag for flag, value in files_given.items() if value]:
            message = f"{wrong[0]} goes with files of instructions, and a bundle has its own"
            raise UsageError(message, kind="usage", got=wrong[0], allowed="--bundle without it")
        return replay.run(options.bundle, options.stream or 0, **how)
    from inception_deploy.targets.vta import files

    if options.config is None or options.insns is None or options.stream is not None:
        message = "vta simulate takes --config and --insns, or --bundle (and its --stream)"
        raise UsageError(message, kind="usage", allowed="one of the two")
    return files.run(options.config, options.insns, options.load, options.dump, **how)


def _simulate(options: argparse.Namespace, progress: Progress) -> Outcome:
    progress.stage("simulate")
    found = _simulated(options)
    of = f"stream {found['stream']} of {found['streams']}: " if "stream" in found else ""
    shows = [line(f"{of}{found['instructions']} instructions executed as {found['profile']}")]
    shows += [line(f"wrote {path}") for path in found.get("dumps", ())]
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
        if steps := found.get("steps"):
            shows.append(table(("step", "cycles"), [(step["name"], step["cycles"]) for step in steps], right=(1,)))
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


def _driver_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("output", type=Path, metavar="OUT.so", help="the library to write")
    board = "our driver for a board: pynq, ultra96, zcu104 or de10nano"
    parser.add_argument("--board", metavar="B", help=board)
    hardware = "the simulator as a driver, executing as hls, chisel or fsim"
    parser.add_argument("--simulate", metavar="P", help=hardware)
    configuration = "the simulated hardware's configuration (default: upstream's)"
    parser.add_argument("--config", type=Path, metavar="FILE.json", help=configuration)
    machine = "what loads it: x86_64, aarch64 or armv7l (default: the board's processor, or this machine)"
    parser.add_argument("--machine", metavar="M", help=machine)


def _driver(options: argparse.Namespace, progress: Progress) -> Outcome:
    from inception_deploy.targets.vta import driver

    progress.stage("driver")
    found = driver.build(
        options.output,
        board_name=options.board,
        profile_name=options.simulate,
        config=options.config,
        machine=options.machine,
    )
    return Outcome(found, line(f"wrote {found['file']} for {found['machine']}: drives {found['drives']}"))


_SIMULATE = Command(
    "simulate",
    "execute instructions on a simulated VTA, and stop where the hardware would go wrong",
    "inception-deploy vta simulate --config vta_config.json --insns instructions.bin --load input.bin@0x1000 "
    "--dump out.bin@0x3000:256\n"
    "inception-deploy vta simulate --bundle irv2-vta --board zcu104 --stats --trace timeline.json",
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

_DRIVER = Command(
    "driver",
    "write a driver library: of a board, or the simulator as one",
    "inception-deploy vta driver libvta.so --board pynq\n"
    "inception-deploy vta driver libvta_sim.so --simulate hls --machine armv7l",
    _driver_arguments,
    _driver,
)

COMMAND = Command(
    "vta",
    "simulate or disassemble instructions of the VTA accelerator, or write what drives one",
    _DISASSEMBLE.example,
    _none,
    _disassemble,
    parts=(_SIMULATE, _DISASSEMBLE, _DRIVER),
)
