"""Which core this machine has, by the numbers of CPUID: kernels that were measured on one are told apart by it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True)
class Core:
    """A microarchitecture.

    Attributes:
        name: what files of measurements are named after.
        vendor, family, models: as /proc/cpuinfo spells them; of models, first and last of each range.
    """

    name: str
    vendor: str
    family: int
    models: tuple[tuple[int, int], ...]


CORES: tuple[Core, ...] = (
    Core("zen2", "AuthenticAMD", 23, ((0x30, 0x3F), (0x60, 0x7F), (0x90, 0x9F))),
    Core("zen3", "AuthenticAMD", 25, ((0x00, 0x0F), (0x20, 0x5F))),
    Core("zen4", "AuthenticAMD", 25, ((0x10, 0x1F), (0x60, 0x7F), (0xA0, 0xAF))),
    Core("skylake-server", "GenuineIntel", 6, ((0x55, 0x55),)),
    Core("ice-lake-server", "GenuineIntel", 6, ((0x6A, 0x6A), (0x6C, 0x6C))),
    Core("alder-lake", "GenuineIntel", 6, ((0x97, 0x97), (0x9A, 0x9A))),
    Core("sapphire-rapids", "GenuineIntel", 6, ((0x8F, 0x8F),)),
)
"""Numbers as LLVM's `lib/TargetParser/Host.cpp` knows them."""


def here(cpuinfo: Path = CPUINFO) -> str | None:
    """The name of this machine's core; None where it is none of the table, or the file says nothing."""
    try:
        text = cpuinfo.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    lines = (line.partition(":") for line in text.split("\n\n", 1)[0].splitlines())
    first = {key.strip(): value.strip() for key, _, value in lines}
    try:
        vendor, family, model = first["vendor_id"], int(first["cpu family"]), int(first["model"])
    except (KeyError, ValueError):
        return None
    for core in CORES:
        if (core.vendor, core.family) == (vendor, family) and any(a <= model <= b for a, b in core.models):
            return core.name
    return None
