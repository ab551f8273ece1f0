"""Driver libraries of a VTA: the simulator as one, and ours for Zynq boards (`csrc/vta_zynq.c`)."""

from __future__ import annotations

import platform as platform_
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inception_deploy import artifact
from inception_deploy.errors import UsageError
from inception_deploy.kernels.isa import ISAS, Isa
from inception_deploy.kernels.vta import boards, profiles
from inception_deploy.kernels.vta import config as configurations
from inception_deploy.kernels.vta.boards import Board
from inception_deploy.kernels.vta.config import Config
from inception_deploy.kernels.vta.profiles import Profile
from inception_deploy.targets.link import CSRC, compile_c, link_shared, platform

from . import simulator

LIBRARY = "libvta.so"
"""The driver that a board's library takes where none is named, beside its weights."""

SOURCES = ("vta_zynq.c", "vta_memory.c")
"""The parts of `csrc` that our driver for boards is."""

FUNCTIONS = (
    *("VTADeviceAlloc", "VTADeviceFree", "VTADeviceRun", "VTAMemAlloc", "VTAMemFree", "VTAMemGetPhyAddr"),
    *("VTAMemCopyFromHost", "VTAMemCopyToHost", "VTAFlushCache", "VTAInvalidateCache"),
)
"""The functions of a driver library, `csrc/vta_driver.h`."""


def build(
    destination: Path,
    *,
    board_name: str | None = None,
    profile_name: str | None = None,
    config: Path | None = None,
    machine: str | None = None,
) -> dict[str, Any]:
    """Write a driver library: of a board, or the simulator as one.

    Args:
        board_name: of `boards.BOARDS`: our driver for it.
        profile_name: of `profiles.PROFILES`: the simulator, as that hardware.
        config: of the simulator; upstream's where None.
        machine: that loads it, as ``uname -m`` says; the board's processor's, or this one, where None.

    Returns:
        ``file``, ``machine``, ``drives``: a board's name, or ``simulator (hls)``.

    Raises:
        UsageError: (kind ``vta``) no such board, profile or machine, or nothing to drive.
    """
    if (board_name is None) == (profile_name is None):
        message = "vta driver takes --board, or --simulate"
        raise UsageError(message, kind="vta", allowed="one of the two")
    row = None if board_name is None else boards.board(board_name)
    if row is not None and config is not None:
        message = "--config is the simulator's; a board has its bitstream's"
        raise UsageError(message, kind="vta", got="--config", allowed="--board without it")
    at = machine or (platform_.machine() if row is None else _isa(row.processor).machine)
    triples = {isa.machine: isa.triple for isa in ISAS if not isa.gpu}
    if at not in triples:
        raise UsageError(f"there are no libraries for '{at}'", kind="vta", got=at, allowed=sorted(triples))
    hardware = None if profile_name is None else profiles.profile(profile_name)
    configuration = Config() if config is None else configurations.load(config)
    with artifact.temporary() as folder:
        made = folder / destination.name  # a library says its name
        if row is not None:
            write(row, made, triples[at])
        if hardware is not None:
            write_simulator(configuration, hardware, made, triples[at])
        with artifact.atomic_file(destination) as partial:
            partial.write_bytes(made.read_bytes())
    drives = board_name or f"simulator ({profile_name})"
    return {"file": str(destination), "machine": at, "drives": drives}


def _isa(name: str) -> Isa:
    return next(isa for isa in ISAS if isa.name == name)


def write_simulator(
    config: Config, profile: Profile, destination: Path, triple: str, *, coherent: bool = False
) -> None:
    """A driver library, ``libvta_sim.so``, whose VTA is the simulator of that hardware. Why a stream goes wrong it
    writes to stderr. `coherent`: it sees memory that nobody has flushed, as a board does whose libraries flush nothing.
    """
    found = simulator.objects(config, profile, triple, coherent=coherent)
    common = compile_c((CSRC / "common.c").read_text(encoding="utf-8"), "common.c", triple)
    link([*found, common], destination, triple)


def write(board: Board, destination: Path, triple: str) -> None:
    """The driver library of a board, for its own processor."""
    link(objects(board, triple), destination, triple)


def objects(board: Board, triple: str, before: str = "") -> list[bytes]:
    """Its object files. `before`: C that stands before every source."""
    sources = {name: before + (CSRC / name).read_text(encoding="utf-8") for name in SOURCES}
    return [*(compile_c(text, name, triple) for name, text in sources.items()), wired(board, triple)]


def wired(board: Board, triple: str) -> bytes:
    """The object file that says where a board's registers are."""
    wires = board.wiring
    told = f"{{UINT64_C({wires.registers:#x}), {wires.blocks}u, UINT64_C({wires.bus_offset:#x})}}"
    return compile_c(f'#include "vta_zynq.h"\nconst vta_wiring vta_wired = {told};\n', "vta_wired.c", triple)


def link(objects: Sequence[bytes], destination: Path, triple: str, more: Sequence[str] = ()) -> None:
    """A driver library of object files. `more`: what it exports beside the ten functions."""
    sources = [compile_c((CSRC / name).read_text(encoding="utf-8"), name, triple) for name in platform(triple).sources]
    link_shared([*objects, *sources], [*FUNCTIONS, *more], destination, triple, dl=True)
