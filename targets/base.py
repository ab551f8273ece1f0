"""What a target is: a frozen value that cannot be built wrong, and that lowering, building and reporting ask
everything of.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from inception_deploy.errors import DeployError, UsageError
from inception_deploy.kernels.isa import Isa
from inception_deploy.kernels.spec import Spec

from .precision import MULTIPLY_ADDS, Precision, names, rows

if TYPE_CHECKING:
    from typing_extensions import Self

    from inception_deploy.kernels.table import Found
    from inception_deploy.kernels.vta.accelerator import Accelerator
    from inception_deploy.quantize.scheme import Choices

Progress = Callable[[int, int, str], None]
"""Called as `progress(done, total, what)` during a long step."""


@dataclass(frozen=True)
class Target(ABC):
    """A machine to compile for.

    Attributes:
        name: as the user writes it, e.g. ``cpu:avx512``.
        isa: what its kernels are generated for.
        precision: what it computes in.
        in_fp32: nodes of the network that are computed in fp32 where that is in 16 bits.
        programs: bundles for CPUs hold ``run_model`` and its like too.
    """

    name: str
    isa: Isa
    precision: Precision = field(default=MULTIPLY_ADDS, kw_only=True)
    in_fp32: frozenset[str] = field(default=frozenset(), kw_only=True)
    programs: bool = field(default=True, kw_only=True)

    several: ClassVar[bool] = True
    """A bundle for it can hold several plans."""

    @property
    def kind(self) -> str:
        """``cpu``, ``arm`` or ``cuda``: what the table of graph passes is keyed by."""
        return self.isa.kind

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What the manifest says of the target; `targets.described` reads `kind` and `variant` again."""

    @abstractmethod
    def needs(self) -> str:
        """What a machine must have to run the bundles, in a few words."""

    @abstractmethod
    def unbuildable(self) -> str | None:
        """Why bundles for this target cannot be built on this machine; None where they can."""

    def prepared(self) -> AbstractContextManager[None]:
        """As long as it lasts, what `build` needs and what takes long the first time is made beside other work."""
        return nullcontext()

    @abstractmethod
    def missing(self) -> str | None:
        """Why bundles for this target cannot run on this machine; None where they can."""

    def at(self, name: str) -> Self:
        """This target, computing in a precision the best way it can.

        Raises:
            UsageError: (kind ``precision``) it does not compute in that.
            DeployError: (kind ``target``) this machine, which the target stands for, does not.
        """
        for row in rows(name):
            if self.serves(row):
                return self.computing(row)
        raise self.refusal(name)

    def serves(self, row: Precision) -> bool:
        """It has kernels for that way of computing, on this machine where it stands for this machine."""
        return not row.needs

    def computing(self, row: Precision) -> Self:
        """This target, computing so; `serves` it."""
        return replace(self, precision=row)

    def configured(self, name: str, file: Path) -> Self:
        """This target with another configuration of its hardware, and the name that the user gave it.

        Raises:
            UsageError: (kind ``target``) its hardware has none.
            DeployError: the file is no configuration, or an impossible one.
        """
        message = f"target {self.name} has no configuration to be read from {file}"
        raise UsageError(message, kind="target", got=name, allowed=f"{self.name}, or vta:...@FILE.json")

    def embedding(self) -> Self:
        """This target, whose libraries hold their weights themselves.

        Raises:
            UsageError: (kind ``usage``) they take them from a file alone.
        """
        message = f"--embed is for cpu and arm; for {self.name} the weights stay a file"
        raise UsageError(message, kind="usage", got=self.name, allowed="cpu or arm, or no --embed")

    def refusal(self, name: str) -> DeployError:
        """Why it does not compute in a precision."""
        message = f"target {self.name} does not compute in '{name}'"
        return UsageError(message, kind="precision", got=name, allowed=self.precisions)

    @property
    def precisions(self) -> list[str]:
        """What `at` takes, here or on another machine of its kind."""
        return [name for name in names() if any(self.serves(row) for row in rows(name))]

    @property
    def precision_by_default(self) -> str | None:
        """What it computes in where nobody says; None for int8 of a quantized network, and fp32 of any other."""
        return None

    @property
    def scheme_by_default(self) -> str:
        """How a network is quantized for it where nobody says: a name of `quantize.scheme.SCHEMES`."""
        return "float-scale"

    def check_scheme(self, name: str) -> None:
        """UsageError (kind ``scheme``) where it cannot compute a network that is quantized so."""
        from inception_deploy.quantize.scheme import scheme

        scheme(name)

    def choices_by_default(self) -> Choices:
        """The switches of a quantization for it."""
        from inception_deploy.quantize.scheme import Choices

        return Choices()

    @property
    def element(self) -> str:
        """What float activations are kept in, of `kernels.elements.ELEMENTS`."""
        return self.precision.element

    @property
    def integers(self) -> bool:
        """A quantized network is computed in its integers. Without, in floats that hold the same numbers."""
        return self.precision.integers

    @property
    def only_bytes(self) -> bool:
        """It has no kernels of quantized numbers of 16 bits."""
        return self.isa.gpu or self.accelerator is not None

    @property
    def sixteen(self) -> bool:
        """Its integer kernels know quantized numbers of 16 bits, too."""
        return self.integers and not self.only_bytes

    @property
    def byte_offset(self) -> int:
        """How much lower than they lie its kernels take the bytes of a convolution (`dots.Dot.offset`)."""
        return self.isa.dots[0].offset if self.isa.dots else 0

    @property
    def host_offset(self) -> int:
        """The same of an accelerator's host."""
        return self.byte_offset

    # -- asked by lowering -------------------------------------------------------------------------------------------
    @property
    def device(self) -> str:
        """The device of the steps; of those of the host, where there is an accelerator beside it."""
        return "cuda" if self.isa.gpu else "cpu"

    @property
    def accelerator(self) -> Accelerator | None:
        """The VTA beside the device."""
        return None

    def machine(self, spec: Spec) -> Isa | Accelerator:
        """What computes a spec."""
        return self.isa

    def family(self, spec: Spec) -> Found:
        """The kernels that compute a spec. DeployError ``kernel`` where there are none."""
        from inception_deploy.kernels.table import find

        return find(spec, self.machine(spec))

    def schedule(self, spec: Spec) -> Any:
        """The schedule for a spec."""
        machine: Any = self.machine(spec)
        return self.family(spec).family.choose(spec, machine)

    def units(self, spec: Spec, schedule: Any) -> int:
        """Work units of the kernel."""
        return self.family(spec).family.units(spec, schedule)

    def pack_weight(self, weight: np.ndarray, spec: Spec, schedule: Any) -> np.ndarray:
        """A convolution's weight `[O, I, r, s]` (channels in their slots) in the kernel's order."""
        return self.family(spec).family.pack(weight, spec, schedule)

    def winograd(self, spec: Spec) -> tuple[int, int] | None:
        """Outputs of a Winograd tile, where that is faster for a convolution; None where it is computed directly."""
        return None

    def winograd_options(self, spec: Spec) -> list[tuple[int, int]]:
        """The Winograd tiles that tuning may choose from."""
        return []

    # -- asked by tuning ---------------------------------------------------------------------------------------------
    @property
    def modelled(self) -> bool:
        """The time of what is tuned follows from a model, the same every time; otherwise it is measured."""
        return False

    def judge(self) -> dict[str, Any]:
        """What the times of kernels hold for: code for another machine, or another model of one, has others."""
        return self.tvm_target()

    def tvm_target(self) -> dict[str, Any]:
        """TVM's description of a GPU, or of a CPU, which may be an accelerator's host."""
        target: dict[str, Any] = {"kind": "llvm", "mtriple": self.isa.mtriple, "mcpu": self.isa.mcpu}
        if self.isa.mattr:
            target["mattr"] = list(self.isa.mattr)
        return target

    # -- the work ----------------------------------------------------------------------------------------------------
    def build(self, plan: Any, folder: Path, progress: Progress | None = None) -> list[str]:
        """Compile a Plan; gives the names of the files written into `folder`."""
        return self.build_all([plan], folder, progress)

    @abstractmethod
    def build_all(self, plans: Sequence[Any], folder: Path, progress: Progress | None = None) -> list[str]:
        """`build` of the plans of one network for several numbers of images, the fewest first.

        Raises:
            UsageError: (kind ``batch``) it takes one.
        """

    def check_several(self, plans: int) -> None:
        """UsageError (kind ``batch``) where a bundle for it holds fewer plans than that."""
        if plans > 1 and not self.several:
            message = f"a bundle for {self.name} holds one plan, not {plans}"
            raise UsageError(message, kind="batch", got=plans, allowed="--batch N; several for cpu, arm and cuda")
