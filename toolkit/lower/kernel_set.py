"""What lowering asks of a target."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ..kernels.spec import Spec

if TYPE_CHECKING:
    from ..kernels.isa import Isa
    from ..kernels.table import Found
    from ..kernels.vta.accelerator import Accelerator


class KernelSet(Protocol):
    """Which kernels there are, with which schedule."""

    @property
    def name(self) -> str:
        """The target's name."""

    @property
    def device(self) -> str:
        """Who does the steps, or gives and takes what an accelerator's steps need: a name of `Step.device`."""

    @property
    def accelerator(self) -> Accelerator | None:
        """The VTA that does what it can, beside `device`."""

    def machine(self, spec: Spec) -> Isa | Accelerator:
        """What computes a spec."""

    def family(self, spec: Spec) -> Found:
        """The kernels that compute a spec."""

    def schedule(self, spec: Spec) -> Any:
        """The schedule for a spec."""

    def pack_weight(self, weight: np.ndarray, spec: Spec, schedule: Any) -> np.ndarray:
        """Weights `[O, I, r, s]` of a convolution in the kernel's order."""

    @property
    def integers(self) -> bool:
        """There are kernels that multiply bytes."""

    @property
    def sixteen(self) -> bool:
        """And some of quantized numbers of 16 bits."""

    @property
    def byte_offset(self) -> int:
        """How much lower than they lie those kernels take the bytes of a convolution."""

    @property
    def host_offset(self) -> int:
        """The same of the kernels of an accelerator's host."""

    @property
    def element(self) -> str:
        """What float activations are kept in: a name of `kernels.elements.ELEMENTS`."""

    @property
    def in_fp32(self) -> frozenset[str]:
        """Nodes that are computed in fp32, where `element` is a shorter one."""

    def winograd(self, spec: Spec) -> tuple[int, int] | None:
        """The tile of Winograd's algorithm to use for a convolution; None to compute it directly."""
