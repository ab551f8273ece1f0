"""What lowering asks of a target."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ..kernels.spec import Spec


class KernelSet(Protocol):
    """Which schedule, how many units, how weights are packed."""

    @property
    def name(self) -> str:
        """The target's name."""

    @property
    def device(self) -> str:
        """Who does the steps: a name of `Step.device`."""

    def schedule(self, spec: Spec) -> Any:
        """The schedule for a spec."""

    def units(self, spec: Spec, schedule: Any) -> int:
        """Work units of the kernel."""

    def pack_weight(self, weight: np.ndarray, spec: Spec, schedule: Any) -> np.ndarray:
        """Weights `[O, I, r, s]` of a convolution in the kernel's order."""

    @property
    def integers(self) -> bool:
        """There are kernels that multiply bytes."""

    @property
    def element(self) -> str:
        """What float activations are kept in: a name of `kernels.elements.ELEMENTS`."""

    def winograd(self, spec: Spec) -> tuple[int, int] | None:
        """The tile of Winograd's algorithm to use for a convolution; None to compute it directly."""
