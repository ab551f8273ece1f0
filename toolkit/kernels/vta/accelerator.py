"""What VTA's families of kernels choose and emit for: a configuration on a board."""

from __future__ import annotations

from dataclasses import dataclass

from .boards import Board
from .config import Config

FASTER = "faster"
"""Whoever is estimated to be."""

DEPTHWISE = (FASTER, "vta", "host")
"""Who does depthwise and grouped convolutions."""


@dataclass(frozen=True)
class Accelerator:
    """A VTA as a bitstream on a board. Stands where an `Isa` stands for what CPUs and GPUs compute.

    Attributes:
        name: what people call it.
        distance: steps from one update of an accumulator to the next, at least.
        depthwise: who does depthwise and grouped convolutions, of `DEPTHWISE`.
    """

    name: str
    config: Config
    board: Board
    distance: int = 4
    depthwise: str = FASTER

    def __post_init__(self) -> None:
        if self.depthwise not in DEPTHWISE:
            raise ValueError(f"{self.name}: '{self.depthwise}' is none of {', '.join(DEPTHWISE)}")
        if self.distance < max(1, self.board.profile.distance):
            raise ValueError(f"{self.name}: {self.board.executes} needs a distance of {self.board.profile.distance}")

    @property
    def gpu(self) -> bool:
        """It has no grids of threads."""
        return False

    @property
    def uop_depth(self) -> int:
        """Micro-operations that the hardware holds, whatever the configuration says."""
        return min(self.config.uop_depth, self.board.profile.uop_depth or self.config.uop_depth)

    @property
    def acc_depth(self) -> int:
        """Accumulators in use: an ALU step names its source in as many bits as an input has."""
        return min(self.config.acc_depth, self.config.inp_depth)

    # -- where things lie in SRAM ------------------------------------------------------------------------------------
    def inp_room(self, contexts: int = 2) -> int:
        """Input tiles in each of so many contexts; one more holds the constant vector, at 0."""
        return (self.config.inp_depth - 1) // contexts

    def wgt_room(self, contexts: int = 2) -> int:
        """Weight tiles in each of so many contexts; one more, the last, is never written: resets name it."""
        return (self.config.wgt_depth - 1) // contexts

    def acc_room(self, contexts: int = 2) -> int:
        """Accumulators in each of so many contexts; `distance` more, the last, take steps that only pass time."""
        return (self.acc_depth - self.distance) // contexts

    @property
    def idle(self) -> int:
        """The first of the accumulators that nobody reads."""
        return self.acc_depth - self.distance
