"""What lowering asks of a target."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from ..kernels.spec import Conv


class KernelSet(Protocol):
    """Which schedule, how many units, how weights are packed."""

    @property
    def name(self) -> str:
        """The target's name."""

    def schedule(self, spec: Any) -> Any:
        """The schedule for a spec."""

    def units(self, spec: Any, schedule: Any) -> int:
        """Work units of the kernel."""

    def launch(self, spec: Any, schedule: Any) -> tuple[int, ...]:
        """Grid and block sizes on a GPU; () elsewhere."""

    def pack_weight(self, weight: np.ndarray, spec: Any, schedule: Any) -> np.ndarray:
        """Weights `[O, I, r, s]` of a convolution in the kernel's order."""

    @property
    def integers(self) -> bool:
        """There are kernels for `kernels.spec_bytes`."""

    @property
    def element(self) -> str:
        """What float activations are kept in: "float32", or "bfloat16" or pairs of it (then convolutions are
        `kernels.spec_tiles`'s).
        """

    def winograd(self, spec: Conv) -> tuple[int, int] | None:
        """The tile of Winograd's algorithm to use for a convolution; None to compute it directly."""
