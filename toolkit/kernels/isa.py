"""What kernels are generated for: a row each. A new instruction set is a row here, and one in `dots` for every
instruction of it that kernels name.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .arm import FCVTNS, VMLA
from .cards import Card, card_of
from .dots import (
    BFMMLA,
    DOTS,
    SADALP,
    SADALP_ANY,
    SDOT,
    SMLAL,
    SMMLA,
    TDPBF16PS,
    VMLAL,
    VPDPBUSD,
    VPDPBUSD_256,
    VPDPWSSD,
    VPDPWSSD_256,
    VPMADDUBSW,
    VPMADDWD,
    Dot,
    Tile,
)
from .elements import BRAIN, HALF, PAIRS, TF32, TILED

KINDS = ("cpu", "arm", "cuda")

HALF_VECTORS = "halves in vectors"
"""What a row of `targets.precision` needs that computes in fp16 on a CPU."""

BRAIN_SQUARES = "squares of bfloat16"
"""And in bfloat16, without tiles."""


@dataclass(frozen=True)
class Isa:
    """An instruction set, or an architecture of GPUs. One that contradicts itself cannot be made.

    Attributes:
        name: what follows the colon of a target.
        kind: of the target: ``cpu``, ``arm`` or ``cuda``.
        lanes, registers: floats in a vector register, and how many of those there are (of a thread, on a GPU).
        features: what a CPU must have, as /proc/cpuinfo spells it; checked before a bundle is run.
        dots: instructions that multiply small integers, the best first; one for weights of more than 8 bits is among
            them.
        tiles: instructions that multiply matrix tiles, in registers of their own or in vectors.
        multiply: what adds products of floats, of `arm.MULTIPLY`, where LLVM's choice is a worse one.
        narrow: what makes bytes of floats in vectors of four at once, of `arm.NARROW`; empty where nothing does.
        floats: how tensor cores multiply fp32, `elements.PAIRS` or `TF32`; empty where multiply-adds do.
        card: the GPU that kernels are first cut for; None of a CPU.
        boards: other names of the target: what people call a machine with it.
        stands_for: cores and boards that have its instructions, and no kernels of their own.
        machine: what `platform.machine()` says of hosts that run it.
        mtriple, mcpu, mattr: LLVM's.
        triple: the linker's.
    """

    name: str
    kind: str
    lanes: int
    registers: int
    features: tuple[str, ...] = ()
    dots: tuple[Dot, ...] = ()
    tiles: tuple[Tile, ...] = ()
    multiply: str = ""
    narrow: str = ""
    floats: str = ""
    card: Card | None = None
    boards: tuple[str, ...] = ()
    stands_for: tuple[str, ...] = ()
    machine: str = ""
    mtriple: str = ""
    triple: str = ""
    mcpu: str = ""
    mattr: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"{self.name}: there is no kind of target '{self.kind}'; there are {', '.join(KINDS)}")
        if self.lanes not in (1, 4, 8, 16):
            raise ValueError(f"{self.name}: a block of 16 channels is no whole number of vectors of {self.lanes}")
        if self.registers < 16:
            raise ValueError(f"{self.name}: {self.registers} registers are too few for a tile of sums")
        if not self.gpu and not all((self.machine, self.mtriple, self.triple, self.mcpu)):
            raise ValueError(f"{self.name}: a CPU has machine, mtriple, triple and mcpu")
        rows: tuple[Dot | Tile, ...] = (*self.dots, *self.tiles)
        for row in rows:
            if lacking := set(row.features) - set(self.features):
                raise ValueError(f"{self.name}: {row.name} needs {', '.join(sorted(lacking))}, which it has not")
        for dot in self.dots:
            if dot.lanes % self.lanes or dot.name not in DOTS:
                raise ValueError(f"{self.name}: {dot.name} has {dot.lanes} lanes, a vector has {self.lanes}")

    @property
    def gpu(self) -> bool:
        """Kernels are launched as grids of threads."""
        return self.kind == "cuda"

    @property
    def of_card(self) -> Card:
        """The GPU that kernels are first cut for. ValueError of a CPU."""
        if self.card is None:
            raise ValueError(f"{self.name} is no GPU")
        return self.card

    @property
    def tiled(self) -> tuple[str, ...]:
        """The elements that it multiplies tiles of, which lie in blocks as wide as they are."""
        return TILED if any(tile.element in TILED for tile in self.tiles) else ()

    def has(self, need: str) -> bool:
        """It has what a row of `targets.precision` needs."""
        newer = self.gpu and int(self.name.removeprefix("sm_")) >= OLDEST_BRAIN
        known = {"tiles": bool(self.tiled), "integers": bool(self.dots) or self.gpu}
        of_gpus = {**dict.fromkeys(("exact", HALF), self.gpu), **dict.fromkeys((BRAIN, PAIRS, TF32), newer)}
        known[HALF_VECTORS] = self.kind == "arm" and "asimdhp" in self.features
        known[BRAIN_SQUARES] = any(tile.element == BRAIN for tile in self.tiles)
        return {**known, **of_gpus}.get(need, not need)

    def worth(self, need: str) -> int:
        """How many products an instruction of what a row of `targets.precision` needs adds up."""
        every = (dot.lanes * dot.depth for dot in self.dots if not dot.pairs)
        return max(every, default=0) if need == "integers" else 0


OLDEST_BRAIN = 80
"""The first GPU whose tensor cores multiply bfloat16 and TF32; before it there are fp16 and bytes."""

_AVX2 = ("avx2", "fma", "f16c", "bmi1", "bmi2", "abm", "movbe")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_HALVES = ("asimddp", "asimdhp")
_SERVER = (*_HALVES, "i8mm", "bf16")
_PLAIN = (SADALP, SADALP_ANY)
_NO_SVE = ("-sve",)  # kernels are written for NEON's vectors, and only Neoverse V1 has longer ones
_AMX = ("amx_bf16", "amx_tile", "avx512_bf16")


def _x86(name: str, level: str, lanes: int, registers: int, features: tuple[str, ...], **more: Any) -> Isa:
    """An x86-64 CPU under Linux, of a level of the psABI."""
    code: dict[str, Any] = {"machine": "x86_64", "mtriple": "x86_64-unknown-linux-gnu", "triple": "x86_64-linux-gnu"}
    return Isa(name, "cpu", lanes, registers, features, mcpu=f"x86-64-{level}", **code, **more)


def _aarch64(core: str, dots: tuple[Dot, ...], *features: str, **more: Any) -> Isa:
    """A 64-bit ARM core under Linux; each has smlal besides."""
    code: dict[str, Any] = {"machine": "aarch64", "mtriple": "aarch64-unknown-linux-gnu", "triple": "aarch64-linux-gnu"}
    code |= {"mcpu": core, "narrow": FCVTNS}
    return Isa(core, "arm", 4, 32, ("asimd", *features), dots=(*dots, SMLAL), **code, **more)


def named(text: str) -> Isa | None:
    """The CPU that a board's name, or a core's alone, is of: ``rpi4`` and ``cortex-a72``; None where it is neither."""
    return next((isa for isa in ISAS if isa.kind == "arm" and text in (isa.name, *isa.boards)), None)


def stand_in(text: str) -> Isa | None:
    """The CPU whose code a core or a board without kernels of its own runs; None where it is not known either."""
    return next((isa for isa in ISAS if text in isa.stands_for), None)


def gpu(arch: str, card: Card | None = None) -> Isa:
    """NVIDIA GPUs of an architecture, e.g. ``sm_90``, as its compiler has it. A thread has no vectors.

    Args:
        card: one of them; None for the one that stands for all (`cards.card_of`).
    """
    return Isa(arch, "cuda", 1, 255, card=card or card_of(arch))


ISAS: tuple[Isa, ...] = (
    _x86("avx512", "v4", 16, 32, _AVX512),
    _x86("avx2", "v3", 8, 16, _AVX2, dots=(VPMADDUBSW, VPMADDWD)),
    _x86("avx512-vnni", "v4", 16, 32, (*_AVX512, "avx512_vnni"), mattr=("+avx512vnni",), dots=(VPDPBUSD, VPDPWSSD)),
    _x86("avx512-amx", "v4", 16, 32, (*_AVX512, *_AMX), mattr=("+amx-bf16", "+amx-tile", "+avx512bf16"),
         tiles=(TDPBF16PS,)),
    _x86("avx-vnni", "v3", 8, 16, (*_AVX2, "avx_vnni"), mattr=("+avxvnni",), dots=(VPDPBUSD_256, VPDPWSSD_256)),
    _aarch64("cortex-a72", _PLAIN, boards=("rpi4",), stands_for=("cortex-a57", "cortex-a73", "jetson-nano")),
    _aarch64("cortex-a53", _PLAIN, boards=("rpi3", "zynqmp"), stands_for=("cortex-a34", "cortex-a35", "rpi-zero2")),
    _aarch64("cortex-a55", (SDOT,), *_HALVES, stands_for=("cortex-a65",)),
    _aarch64("cortex-a76", (SDOT,), *_HALVES, boards=("rpi5",), stands_for=("cortex-a75", "cortex-a77")),
    _aarch64("cortex-a78", (SDOT,), *_HALVES, boards=("jetson-orin",),
             stands_for=("cortex-a78ae", "cortex-a78c", "cortex-x1")),
    _aarch64("apple-m1", (SDOT,), *_HALVES, stands_for=("apple-m2", "apple-m3", "apple-m4")),
    _aarch64("neoverse-n1", (SDOT,), *_HALVES, boards=("graviton2",), stands_for=("neoverse-e1",)),
    _aarch64("neoverse-n2", (SMMLA, SDOT), *_SERVER, tiles=(BFMMLA,), mattr=_NO_SVE,
             stands_for=("cortex-a510", "cortex-a710", "cortex-a715", "cortex-x2", "cortex-x3", "neoverse-n3")),
    _aarch64("neoverse-v1", (SMMLA, SDOT), *_SERVER, tiles=(BFMMLA,), boards=("graviton3",), mattr=_NO_SVE),
    _aarch64("neoverse-v2", (SMMLA, SDOT), *_SERVER, tiles=(BFMMLA,), boards=("graviton4",), mattr=_NO_SVE,
             stands_for=("cortex-x4", "neoverse-v3")),
    Isa("cortex-a9", "arm", 4, 16, ("neon",), dots=(VMLAL,), multiply=VMLA, boards=("pynq-z1",), machine="armv7l",
        mtriple="armv7-unknown-linux-gnueabihf", triple="arm-linux-gnueabihf", mcpu="cortex-a9", mattr=("+neon",),
        stands_for=("cortex-a7", "cortex-a12", "cortex-a15", "cortex-a17", "rpi2")),
    *map(gpu, ("sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120")),
)  # fmt: skip
"""`cpu` without a suffix takes the one of its kind that this machine has all features of, that has what the way of
computing needs, and that is worth most to it; of several the first. `arm` takes the first; `cuda` builds for several.
Of the GPUs these are the better known ones; any other that the compiler at hand knows is taken as well.
"""
