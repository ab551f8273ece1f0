"""What a target is: a frozen value that cannot be built wrong, and that lowering, building and reporting ask
everything of.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from inception_deploy.errors import UsageError

Progress = Callable[[int, int, str], None]
"""Called as `progress(done, total, what)` during a long step."""


@dataclass(frozen=True)
class Target(ABC):
    """A machine to compile for.

    Attributes:
        name: as the user writes it, e.g. ``cpu:avx512``.
    """

    name: str

    @property
    @abstractmethod
    def kind(self) -> str:
        """``cpu``, ``arm`` or ``cuda``: what the table of graph passes is keyed by."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What the manifest says of the target; `targets.described` reads `kind` and `variant` again."""

    @abstractmethod
    def needs(self) -> str:
        """What a machine must have to run the bundles, in a few words."""

    @abstractmethod
    def unbuildable(self) -> str | None:
        """Why bundles for this target cannot be built on this machine; None where they can."""

    @abstractmethod
    def missing(self) -> str | None:
        """Why bundles for this target cannot run on this machine; None where they can."""

    def at(self, precision: str) -> Target:
        """This target, computing in `precision`: ``fp32`` or ``int8``, if it says no more.

        Raises:
            UsageError: (kind ``precision``) it does not compute in that.
            DeployError: (kind ``target``) this machine, which the target stands for, does not.
        """
        if precision not in self.precisions:
            message = f"target {self.name} does not compute in '{precision}'"
            raise UsageError(message, kind="precision", got=precision, allowed=list(self.precisions))
        return self

    @property
    def precisions(self) -> tuple[str, ...]:
        """What `at` takes."""
        return "fp32", "int8"

    @property
    def element(self) -> str:
        """What float activations are kept in: ``float32``, ``bfloat16`` after ``at("bf16")``, or pairs of it
        (`kernels.spec.PAIR`) after ``at("fp32")`` where there are tiles to multiply those.
        """
        return "float32"

    @property
    def arithmetic(self) -> str:
        """How real numbers are multiplied, in a few words for a report."""
        return "fp32 multiply-adds"

    @property
    def more_exact(self) -> Target | None:
        """The same target and precision with slower arithmetic of smaller errors; None where there is none."""
        return None

    @property
    def integers(self) -> bool:
        """There are kernels for `kernels.spec_bytes`. Without them an int8 network is computed in float32."""
        return False

    # -- asked by lowering -------------------------------------------------------------------------------------------
    @abstractmethod
    def schedule(self, spec: Any) -> Any:
        """The schedule for a kernel spec."""

    @abstractmethod
    def units(self, spec: Any, schedule: Any) -> int:
        """Work units of the kernel."""

    def launch(self, spec: Any, schedule: Any) -> tuple[int, ...]:
        """Grid and block sizes on a GPU; () elsewhere."""
        return ()

    @abstractmethod
    def pack_weight(self, weight: np.ndarray, spec: Any, schedule: Any) -> np.ndarray:
        """A convolution's weight `[O, I, r, s]` (channels in their slots) in the kernel's order."""

    def winograd(self, spec: Any) -> tuple[int, int] | None:
        """Outputs of a Winograd tile, where that is faster for a convolution; None where it is computed directly."""
        return None

    # -- the work ----------------------------------------------------------------------------------------------------
    @abstractmethod
    def build(self, plan: Any, folder: Path, progress: Progress | None = None) -> list[str]:
        """Compile a Plan; gives the names of the files written into `folder`."""
