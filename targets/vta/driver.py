"""Driver libraries of a VTA: the simulator as one, and ours for Zynq boards (`csrc/vta_zynq.c`)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from inception_deploy.kernels.vta.boards import Board
from inception_deploy.kernels.vta.config import Config
from inception_deploy.kernels.vta.profiles import Profile
from inception_deploy.targets.link import CSRC, compile_c, link_shared, platform

from . import simulator

LIBRARY = "libvta.so"
"""The driver that a board's library takes where none is named, beside its weights."""

FUNCTIONS = (
    *("VTADeviceAlloc", "VTADeviceFree", "VTADeviceRun", "VTAMemAlloc", "VTAMemFree", "VTAMemGetPhyAddr"),
    *("VTAMemCopyFromHost", "VTAMemCopyToHost", "VTAFlushCache", "VTAInvalidateCache"),
)
"""The functions of a driver library, `csrc/vta_driver.h`."""


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
    wires = board.wiring
    told = f"{{UINT64_C({wires.registers:#x}), {wires.blocks}u, UINT64_C({wires.bus_offset:#x})}}"
    sources = {name: before + (CSRC / name).read_text(encoding="utf-8") for name in ("vta_zynq.c", "vta_memory.c")}
    sources["vta_wired.c"] = f'#include "vta_zynq.h"\nconst vta_wiring vta_wired = {told};\n'
    return [compile_c(text, name, triple) for name, text in sources.items()]


def link(objects: Sequence[bytes], destination: Path, triple: str, more: Sequence[str] = ()) -> None:
    """A driver library of object files. `more`: what it exports beside the ten functions."""
    sources = [compile_c((CSRC / name).read_text(encoding="utf-8"), name, triple) for name in platform(triple).sources]
    link_shared([*objects, *sources], [*FUNCTIONS, *more], destination, triple, dl=True)
