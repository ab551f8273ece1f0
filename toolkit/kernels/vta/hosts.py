"""How long a board's own processor takes for a layer of bytes: an estimate, from documented figures.

No board was asked. Clocks, cores and memories are the makers'; what is made of them here is assumed, and named so.
"""

from __future__ import annotations

from dataclasses import dataclass

OF_PEAK = 0.5
"""What a processor gets of its memory's peak (assumed; the maker's table of a Zynq's controller has 75 % at best)."""

HANDED_OVER_MS = 0.05
"""That a stream less and a stream more take beside their bytes: registers, a poll, calls of the driver (assumed)."""


@dataclass(frozen=True)
class Host:
    """A board's processor.

    Attributes:
        cores: that take parts of a layer. mhz: of each. peak: megabytes a second of its memory.
        depthwise, grouped: multiply-adds that a core does a cycle in our kernels of bytes. They are those of an
            instruction, counted by benchmarks/arm/count.py (3x3 of 128 channels at 28x28, alone and in groups of 16);
            that a cycle is an instruction is assumed.
    """

    cores: int
    mhz: float
    peak: float
    depthwise: float
    grouped: float

    def __post_init__(self) -> None:
        if min(self.cores, self.mhz, self.peak, self.depthwise, self.grouped) <= 0:
            raise ValueError("a processor that does nothing in a second")

    def moved(self, size: float) -> float:
        """Milliseconds for so many bytes, read or written."""
        return size / (self.peak * OF_PEAK) / 1e3

    def computed(self, macs: int, rate: float, size: int) -> float:
        """Milliseconds of a layer of so many multiply-adds, so many a cycle, and bytes of inputs and outputs."""
        return max(macs / (self.cores * self.mhz * rate) / 1e3, self.moved(size))

    def crossed(self, size: int, *, flushed: bool) -> float:
        """Milliseconds for handing inputs to the processor and outputs back: the signs of all bytes are flipped, from
        one memory into another; where caches are `flushed`, each is written back or fetched again.
        """
        return self.moved((2 + flushed) * size) + HANDED_OVER_MS


_A9, _A53 = (0.37, 1.3), (0.8, 2.9)
"""`Host.depthwise` and `Host.grouped`."""

ZYNQ_7020 = Host(2, 650, 2 * 1050, *_A9)
"""PYNQ-Z1 and Z2: two Cortex-A9, 16 bits of DDR3-1050."""

CYCLONE_V = Host(2, 800, 4 * 800, *_A9)
"""DE10-Nano: two Cortex-A9, 32 bits of DDR3-800."""

ZU3 = Host(4, 1200, 4 * 2133, *_A53)
"""Ultra96: four Cortex-A53, 32 bits of LPDDR4-2133."""

ZU7 = Host(4, 1200, 8 * 2133, *_A53)
"""ZCU104: four Cortex-A53, 64 bits of DDR4-2133."""
