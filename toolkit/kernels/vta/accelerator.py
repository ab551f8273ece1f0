"""What VTA's families of kernels choose and emit for: a configuration on a board."""

from __future__ import annotations

from dataclasses import dataclass

from .boards import Board
from .config import Config


@dataclass(frozen=True)
class Accelerator:
    """A VTA as a bitstream on a board. Stands where an `Isa` stands for what CPUs and GPUs compute.

    Attributes:
        name: what people call it.
        distance: steps from one update of an accumulator to the next, at least.
    """

    name: str
    config: Config
    board: Board
    distance: int = 4

    def __post_init__(self) -> None:
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
    @property
    def inp_half(self) -> int:
        """Input tiles in each of two contexts; one more holds the constant vector, at 0."""
        return (self.config.inp_depth - 1) // 2

    @property
    def wgt_half(self) -> int:
        """Weight tiles in each of two contexts; one more, the last, is never written: resets name it."""
        return (self.config.wgt_depth - 1) // 2

    @property
    def acc_half(self) -> int:
        """Accumulators in each of two contexts; `distance` more, the last, take steps that only pass time."""
        return (self.acc_depth - self.distance) // 2

    def inp_base(self, context: int) -> int:
        """The first input tile of a context."""
        return 1 + context * self.inp_half

    def wgt_base(self, context: int) -> int:
        """The first weight tile of a context."""
        return context * self.wgt_half

    def acc_base(self, context: int) -> int:
        """The first accumulator of a context."""
        return context * self.acc_half
