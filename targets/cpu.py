"""CPUs: kernels through TVM's LLVM, linked with the C runtime into a library that needs neither TVM nor Python."""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inception_deploy.errors import DeployError, UsageError, nearest
from inception_deploy.kernels.isa import ISAS, Isa, stand_in
from inception_deploy.kernels.spec import Conv, Spec

from . import lacking_packages
from .base import Progress, Target
from .precision import Precision, rows
from .precision import names as precision_names

if TYPE_CHECKING:
    from typing_extensions import Self


def host_features() -> frozenset[str]:
    """What this machine's CPU can do, in /proc/cpuinfo's names; empty where that file does not exist."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return frozenset()
    for line in text.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            found = frozenset(value.split())
            return found if _tiles_permitted() else frozenset(f for f in found if not f.startswith("amx"))
    return frozenset()


@cache
def _tiles_permitted() -> bool:
    """Linux lets processes use the state of x86's tiles: arch_prctl(ARCH_GET_XCOMP_SUPP), bit XTILEDATA."""
    if platform.machine() != "x86_64":
        return False
    supported = ctypes.c_uint64()
    done = ctypes.CDLL(None).syscall(158, 0x1021, ctypes.byref(supported)) == 0
    return done and bool(supported.value >> 18 & 1)


def lacking(isa: Isa) -> list[str]:
    """The features of `isa` that this machine lacks; the machine's own name where it is another kind of machine."""
    if platform.machine() != isa.machine:
        return [isa.machine]
    return sorted(set(isa.features) - host_features())


@dataclass(frozen=True)
class Cpu(Target):
    """A CPU with one of the instruction sets of `kernels.isa`.

    Attributes:
        embed: the weights are linked into the library, the archive and the program.
    """

    embed: bool = field(default=False, kw_only=True)

    def describe(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "variant": self.isa.name,
            "machine": self.isa.machine,
            "triple": self.isa.triple,
            "mcpu": self.isa.mcpu,
            "features": list(self.isa.features),
            **({"embed": True} if self.embed else {}),
        }

    @property
    def precisions(self) -> list[str]:
        kin = [isa for isa in ISAS if isa.kind == self.kind]
        return [name for name in precision_names() if any(isa.has(row.needs) for isa in kin for row in rows(name))]

    def serves(self, row: Precision) -> bool:
        return any(isa.has(row.needs) for isa in self._choice())

    def computing(self, row: Precision) -> Self:
        able = [isa for isa in self._choice() if isa.has(row.needs)]
        return replace(self, precision=row, isa=max(able, key=lambda isa: isa.worth(row.needs)))

    def _choice(self) -> list[Isa]:
        """The instruction sets that the name leaves to choose from: its own, or those of this machine."""
        kin = [isa for isa in ISAS if isa.kind == self.kind]
        return [self.isa] if ":" in self.name else [isa for isa in kin if not lacking(isa)] or kin[:1]

    @property
    def scheme_by_default(self) -> str:
        # the whole range of weights takes two instructions more where sums of bytes saturate
        saturates = any(dot.pairs and dot.first == "uint8" for dot in self.at("int8").isa.dots[:1])
        return "float-scale-reduced" if saturates else super().scheme_by_default

    def refusal(self, name: str) -> DeployError:
        needs = {row.needs for row in rows(name)}
        able = [isa for isa in ISAS if isa.kind == self.kind and any(map(isa.has, needs))]
        if not able:
            return super().refusal(name)
        allowed = [f"{isa.kind}:{isa.name}" for isa in able]
        message = f"target {self.name} does not compute in '{name}'"
        if ":" in self.name or platform.machine() != able[0].machine:
            return UsageError(f"{message}; {allowed[0]} does", kind="precision", got=name, allowed=allowed)
        short = ", ".join(lacking(able[0]))
        return DeployError(
            f"{message} here: this machine lacks {short}; --target {allowed[0]} builds for one that has it",
            kind="target", got=short, allowed=allowed,
        )  # fmt: skip

    def needs(self) -> str:
        boards = f" ({', '.join(self.isa.boards)})" if self.isa.boards else ""
        return f"{self.isa.machine}, {self.isa.mcpu} or newer{boards}"

    def embedding(self) -> Self:
        return replace(self, embed=True)

    def unbuildable(self) -> str | None:
        return lacking_packages("tvm", "ziglang")

    def prepared(self) -> AbstractContextManager[None]:
        from .link import prepared

        return prepared(self.isa.triple) if self.programs else nullcontext()

    def missing(self) -> str | None:
        short = lacking(self.isa)
        return f"this machine ({platform.machine()}) lacks {', '.join(short)}" if short else None

    def winograd(self, spec: Spec) -> tuple[int, int] | None:
        from inception_deploy.kernels.bytes import winograd as integers
        from inception_deploy.kernels.vector import winograd as reals

        if not isinstance(spec, Conv):
            return None
        return integers.pays(spec, self.isa) if spec.quantized else reals.pays(spec, lanes=self.isa.lanes)

    def winograd_options(self, spec: Spec) -> list[tuple[int, int]]:
        from inception_deploy.kernels.bytes import winograd as integers
        from inception_deploy.kernels.vector import winograd as reals

        if not isinstance(spec, Conv):
            return []
        return integers.options(spec, self.isa) if spec.quantized else reals.options(spec)

    def build_all(self, plans: Sequence[Any], folder: Path, progress: Progress | None = None) -> list[str]:
        from . import cpu_library, program
        from .library import write_library
        from .objects import compile_kernels

        kernels = {symbol: kernel for plan in plans for symbol, kernel in plan.kernels.items()}
        objects = compile_kernels(kernels.values(), self.tvm_target(), progress)
        (plan, parts), *others = [(plan, [cpu_library.part(plan, objects)]) for plan in plans]
        machine: Any = {"triple": self.isa.triple, "features": self.isa.features, "embed": self.embed}
        library = write_library(plan, parts, folder, others=others, **machine)
        more = program.write_program(plan, parts, folder, others=others, **machine) if self.programs else []
        return [*library, *more]


def names(kind: str) -> list[str]:
    """The kind alone, and with each instruction set."""
    return [kind, *(f"{kind}:{isa.name}" for isa in ISAS if isa.kind == kind)]


_ANY_CORE = "every 64-bit core runs what is built for arm:cortex-a53"


def parse(kind: str, suffix: str) -> Cpu:
    """`cpu`, `cpu:avx2`, `arm:cortex-a72`, ...

    Raises:
        UsageError: no such instruction set. DeployError: `cpu` on a machine that has none of them.
    """
    isas = {isa.name: isa for isa in ISAS if isa.kind == kind}
    name = f"{kind}:{suffix}" if suffix else kind
    if suffix and suffix not in isas:
        known = {name: isa.name for isa in isas.values() for name in (isa.name, *isa.boards)}
        near = list(dict.fromkeys(known[name] for name in nearest(suffix, known)))
        hint = f"; did you mean {' or '.join(f'{kind}:{n}' for n in near)}?" if near else ""
        if kind == "arm":
            older = stand_in(suffix)
            # which core has whose instructions no spelling tells
            hint = f"; {suffix} runs what is built for arm:{older.name}" if older else f"{hint or ';'} {_ANY_CORE}"
        raise UsageError(f"there is no target '{name}'{hint}", kind="target", got=name, allowed=names(kind))
    if suffix:
        return Cpu(name, isas[suffix])
    if kind == "arm":
        return Cpu(name, next(iter(isas.values())))
    for isa in isas.values():
        if not lacking(isa):
            return Cpu(name, isa)
    raise DeployError(
        f"no kernels are generated for this machine ({platform.machine()})",
        kind="target",
        got=platform.machine(),
        allowed=[f"{kind}:{n} needs {', '.join(isa.features)}" for n, isa in isas.items()],
    )
