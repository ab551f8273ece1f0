"""The DRAM that a stream is simulated in: pieces of a flat byte-addressed space, and what is known of each."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from inception_deploy.errors import DeployError

NEVER = 2**32 - 1
"""The epoch of what nothing has written."""

REACH = 1 << 36
"""The address behind the last that an instruction can name: 2^32 elements of 16 bytes."""


@dataclass
class Region:
    """A contiguous piece.

    Attributes:
        address: of its first byte.
        data: uint8, its content.
        stored: uint32 a granule: the number of the STORE that wrote it, 0 for what was there before, or `NEVER`.
        read: uint32 ``[granules, 2]``: the last read by the load engine, and by the compute engine.
    """

    address: int
    data: NDArray[np.uint8]
    stored: NDArray[np.uint32]
    read: NDArray[np.uint32]

    @property
    def end(self) -> int:
        """The address behind it."""
        return self.address + len(self.data)


@dataclass
class Dram:
    """All pieces, by their addresses, none touching another.

    Attributes:
        granule: bytes that are written at once, at least: what is known is known of so many.
    """

    granule: int
    regions: list[Region] = field(default_factory=list)

    @classmethod
    def of(cls, contents: Iterable[tuple[int, bytes]], spaces: Iterable[tuple[int, int]], granule: int) -> Dram:
        """DRAM with `contents` (address and bytes), and room to write in: `spaces` (address and length).

        Raises:
            DeployError: (kind ``vta``) contents overlap, are empty or lie outside of the address space.
        """
        filled = sorted(contents)
        wanted = [(address, address + len(data)) for address, data in filled]
        wanted += [(address, address + length) for address, length in spaces]
        for start, end in wanted:
            if not 0 <= start < end <= REACH:
                message = f"no buffer can lie at 0x{start:x} and have {end - start} bytes"
                raise DeployError(message, kind="vta", got=hex(start), allowed=f"within 0 to 0x{REACH:x}, not empty")
        for (first, data), (second, _) in itertools.pairwise(filled):
            if first + len(data) > second:
                message = f"the contents at 0x{first:x} and at 0x{second:x} overlap"
                raise DeployError(message, kind="vta", got=[hex(first), hex(second)], allowed="separate buffers")
        dram = cls(granule)
        for start, end in _merged(wanted, granule):
            granules = -(-(end - start) // granule)
            fresh = np.zeros(end - start, np.uint8)
            stored = np.full(granules, NEVER, np.uint32)
            dram.regions.append(Region(start, fresh, stored, np.zeros((granules, 2), np.uint32)))
        for address, data in filled:
            region = dram.region(address)
            at = address - region.address
            region.data[at : at + len(data)] = np.frombuffer(data, np.uint8)
            region.stored[at // granule : -(-(at + len(data)) // granule)] = 0
        return dram

    def region(self, address: int) -> Region:
        """The piece that holds an address. KeyError where none does."""
        for region in self.regions:
            if region.address <= address < region.end:
                return region
        raise KeyError(address)

    def read(self, address: int, length: int) -> bytes:
        """Bytes that lie in one piece."""
        region = self.region(address)
        at = address - region.address
        return region.data[at : at + length].tobytes()


def _merged(spans: list[tuple[int, int]], granule: int) -> list[tuple[int, int]]:
    """Spans that touch or overlap become one. Each starts at a multiple of `granule`, so that granules are whole."""
    found: list[tuple[int, int]] = []
    for start, end in sorted((start // granule * granule, end) for start, end in spans):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found
