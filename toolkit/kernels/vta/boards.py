"""Boards that VTA runs on, as rows: what the cycle model, the compiler and the driver need to know of each.

Clocks and buses are upstream's; latencies and overheads were not measured on a board: they are assumptions, named so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from inception_deploy.errors import UsageError

from .hosts import CYCLONE_V, ZU3, ZU7, ZYNQ_7020, Host
from .profiles import PROFILES, Profile


@dataclass(frozen=True)
class Wiring:
    """How a board's processor reaches its VTA. Source: upstream's drivers and its table of addresses.

    Attributes:
        registers: the physical address of the first block of registers.
        blocks: 4 for fetch, load, compute and store, each of a page; 1 for one block.
        bus_offset: from a physical address to the one that the VTA uses.
        flushed: its driver flushes caches; otherwise the VTA sees what is in them.
    """

    registers: int
    blocks: int = 4
    bus_offset: int = 0
    flushed: bool = True


@dataclass(frozen=True)
class Board:
    """One board with upstream's bitstream.

    Attributes:
        name: as ``--board`` takes it.
        executes: the profile of its hardware.
        mhz: of the accelerator.
        bus_bytes: that its DRAM bus moves in a cycle, for all engines together.
        gemm_interval, alu_interval: cycles from one step of GEMM, of ALU, to the next.
        overhead: cycles that an instruction takes beside its work (assumed).
        latency: cycles until the first bytes of a transfer arrive (assumed).
        row_latency: cycles that each row of a transfer adds (assumed).
        drain: cycles that each pass over the micro-operations adds, where the pipeline empties between two (assumed).
        processor: its own, a name of `kernels.isa.ISAS`. wiring: to it. host: how fast it is (assumed).
    """

    name: str
    executes: str
    mhz: float
    bus_bytes: int
    gemm_interval: int = 1
    alu_interval: int = 2
    overhead: int = 20
    latency: int = 48
    row_latency: int = 24
    drain: int = 0
    processor: str = "cortex-a9"
    wiring: Wiring = Wiring(0x43C00000)
    host: Host = ZYNQ_7020

    def __post_init__(self) -> None:
        if self.executes not in PROFILES:
            raise ValueError(f"board {self.name} executes as {self.executes}, which is no profile")
        if min(self.mhz, self.bus_bytes, self.gemm_interval, self.alu_interval) <= 0:
            raise ValueError(f"board {self.name} does nothing in a cycle")
        if min(self.overhead, self.latency, self.row_latency, self.drain) < 0:
            raise ValueError(f"board {self.name} takes less than no time")

    @property
    def profile(self) -> Profile:
        """What executes its instructions."""
        return PROFILES[self.executes]

    def milliseconds(self, cycles: int) -> float:
        """How long so many cycles take."""
        return cycles / self.mhz / 1e3


BOARDS: Mapping[str, Board] = {
    board.name: board
    for board in (
        Board("pynq", "hls", 100, 8),
        Board("ultra96", "hls", 333, 16, processor="cortex-a53", wiring=Wiring(0xA0000000), host=ZU3),
        Board("zcu104", "hls", 333, 16, processor="cortex-a53", wiring=Wiring(0xA0000000), host=ZU7),
        Board(
            "de10nano", "chisel", 100, 8, alu_interval=1,
            wiring=Wiring(0xFF220000, blocks=1, bus_offset=0x80000000, flushed=False),
            host=CYCLONE_V,
        ),
    )
}  # fmt: skip
"""By name."""


def board(name: str) -> Board:
    """The row of that name. UsageError where there is none."""
    if name not in BOARDS:
        raise UsageError(f"there is no VTA board '{name}'", kind="vta", got=name, allowed=list(BOARDS))
    return BOARDS[name]
