"""NVIDIA GPUs: kernels through TVM's CUDA code generator and NVIDIA's compiler, launched by a small C runtime through
the driver.

Building takes no GPU. A bundle holds machine code for each of the target's architectures, sm_80 and sm_90 by default.
"""

from __future__ import annotations

import ctypes
import platform
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inception_deploy.errors import UsageError
from inception_deploy.kernels.cards import CARDS, named
from inception_deploy.kernels.elements import PAIRS, TF32
from inception_deploy.kernels.isa import ISAS, gpu

from . import lacking_packages
from .base import Progress, Target
from .precision import Precision

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT = ("sm_80", "sm_90")
"""What `cuda` alone builds: A100 and its successors, and H100."""

KNOWN = tuple(isa.name for isa in ISAS if isa.gpu)
"""What `targets` lists; any other one that the compiler at hand knows is taken as well, from sm_75 on."""

_OLDEST = 75
_HOSTS = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}
_CAPABILITY = (75, 76)  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


@dataclass(frozen=True)
class Cuda(Target):
    """GPUs of one or more architectures.

    Attributes:
        archs: as NVIDIA's compiler names them, oldest first. `isa` is the oldest: what runs there runs on all, and
            what is cut for its card is good enough for the others.
    """

    archs: tuple[str, ...]

    def describe(self) -> dict[str, Any]:
        from .cuda_compile import OPTIONS, compiler

        return {
            "kind": self.kind,
            "variant": self.name.partition(":")[2] or ",".join(self.archs),
            "archs": list(self.archs),
            "card": self.isa.of_card.name,
            "compiler": compiler().name,
            "options": list(OPTIONS),
            "host": host_triple(),
        }

    def serves(self, row: Precision) -> bool:
        return all(gpu(arch).has(row.needs) for arch in self.archs)

    def computing(self, row: Precision) -> Self:
        return replace(
            self, precision=row, isa=replace(self.isa, floats=row.needs if row.needs in (PAIRS, TF32) else "")
        )

    def tvm_target(self) -> dict[str, Any]:
        return {"kind": "cuda", "arch": self.archs[0]}

    def judge(self) -> dict[str, Any]:
        return {"kind": "cuda", "archs": ",".join(self.archs), "card": self.isa.of_card.name}

    def needs(self) -> str:
        return f"an NVIDIA GPU of {' or '.join(self.archs)} and its driver"

    def unbuildable(self) -> str | None:
        from .cuda_compile import INSTALL, find

        if absent := lacking_packages("tvm", "ziglang"):
            return absent
        if platform.machine() not in _HOSTS:
            return f"the runtime for GPUs is not made for a host such as this ({platform.machine()})"
        found = find()
        if found is None:
            return f"needs NVIDIA's compiler: {INSTALL}"
        lacking = [arch for arch in self.archs if arch not in found.archs]
        return f"{found.name} does not compile for {', '.join(lacking)}" if lacking else None

    def missing(self) -> str | None:
        capability = device_capability()
        if isinstance(capability, str):
            return capability
        major, minor = capability
        from .cuda_library import version

        if any(version(arch)[0] == major and version(arch)[1] <= minor for arch in self.archs):
            return None
        return f"the GPU here is sm_{major}{minor}, which does not run code for {', '.join(self.archs)}"

    def build_all(self, plans: Sequence[Any], folder: Path, progress: Progress | None = None) -> list[str]:
        from .cuda_compile import compile_kernels
        from .cuda_library import write_library

        kernels = {symbol: kernel for plan in plans for symbol, kernel in plan.kernels.items()}
        cubins = compile_kernels(kernels.values(), self.archs, progress)
        return write_library(plans[0], cubins, folder, triple=host_triple(), others=plans[1:])


def host_triple() -> str:
    """The triple of the runtime: the build machine's."""
    return _HOSTS[platform.machine()]


def device_capability() -> tuple[int, int] | str:
    """Compute capability of the first visible GPU, or why there is none."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return "no NVIDIA driver (libcuda.so.1) on this machine"
    count, device = ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0 or count.value < 1:
        return "the NVIDIA driver finds no GPU"
    numbers = (ctypes.c_int(), ctypes.c_int())
    if driver.cuDeviceGet(ctypes.byref(device), 0) != 0:
        return "the NVIDIA driver does not open its first GPU"
    for number, attribute in zip(numbers, _CAPABILITY, strict=True):
        if driver.cuDeviceGetAttribute(ctypes.byref(number), attribute, device) != 0:
            return "the NVIDIA driver does not say what its first GPU is"
    return numbers[0].value, numbers[1].value


def names(kind: str) -> list[str]:
    """`cuda`, and with each of the better known architectures."""
    return [kind, *(f"{kind}:{arch}" for arch in KNOWN)]


def cards(kind: str) -> list[str]:
    """`cuda` with each of the cards that there is a row for."""
    return [f"{kind}:{card.name}" for card in CARDS]


def parse(kind: str, suffix: str) -> Cuda:
    """`cuda`, `cuda:sm_90`, `cuda:sm_80,sm_90`; `cuda:h200`, the architecture of a card, cut for that card.

    Raises:
        UsageError: something that is no architecture and no card, or an older one than sm_75.
    """
    if not suffix:
        return Cuda(kind, gpu(DEFAULT[0]), DEFAULT)
    if card := named(suffix):
        return Cuda(f"{kind}:{suffix}", gpu(card.arch, card), (card.arch,))
    archs = suffix.split(",")
    for arch in archs:
        if not re.fullmatch(r"sm_\d{2,3}", arch) or int(arch[3:]) < _OLDEST:
            reason = f"'{arch}' is not an architecture from sm_{_OLDEST} on, nor a card"
            message = f"there is no target '{kind}:{suffix}': {reason}"
            raise UsageError(message, kind="target", got=f"{kind}:{suffix}", allowed=[*names(kind), *cards(kind)])
    ordered = tuple(sorted(set(archs), key=lambda arch: int(arch[3:])))
    return Cuda(f"{kind}:{suffix}", gpu(ordered[0]), ordered)
