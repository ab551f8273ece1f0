"""A target whose decisions on weights do not depend on the number of images: what is decided first, holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..kernels.spec import Conv, Spec
from .kernel_set import KernelSet

if TYPE_CHECKING:
    from ..kernels.table import Found


class Alike:
    """A `KernelSet` that gives a convolution of the same weights, of another number of images, the same answers.

    Winograd's weights are others than the direct convolution's, and a schedule says in what order weights are packed:
    the first network's answers to both hold for those that follow, so that their weights are the same bytes.
    """

    def __init__(self, kernels: KernelSet) -> None:
        self._kernels = kernels
        self._settled = False
        self._families: dict[Spec, Found] = {}
        self._winograd: dict[Spec, tuple[int, int] | None] = {}
        self._schedules: dict[Spec, Any] = {}
        self._packed: dict[tuple[Any, ...], dict[int, Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernels, name)

    def settle(self) -> None:
        """The first network is lowered."""
        self._settled = True

    def family(self, spec: Spec) -> Found:
        """The first answer for such an image, where kernels differ in how their weights lie."""
        own = self._kernels.family(spec)
        return self._families.setdefault(_of_an_image(spec), own) if isinstance(spec, Conv) else own

    def pack_weight(self, weight: np.ndarray, spec: Spec, schedule: Any) -> np.ndarray:
        """As the family does."""
        return self.family(spec).family.pack(weight, spec, schedule)

    def winograd(self, spec: Spec) -> tuple[int, int] | None:
        """The first answer for such an image."""
        return self._winograd.setdefault(_of_an_image(spec), self._kernels.winograd(spec))

    def schedule(self, spec: Spec) -> Any:
        """Its own, unless it would pack a convolution's weights otherwise than the first network does: then the first
        one's for such an image. Winograd's products have other images there, in bands of other heights: their tiles are
        cut anew for the packing.
        """
        own, family = self._kernels.schedule(spec), self.family(spec).family
        if not isinstance(spec, Conv):
            return own
        machine: Any = self._kernels.machine(spec)
        if self._kernels.family(spec).family is not family:
            own = family.choose(spec, machine)
        layout = family.layout(own)
        if layout is None:
            return own
        image, weights = _of_an_image(spec), (spec.channels, spec.out_channels, spec.kernel, spec.groups)
        if not self._settled:
            self._schedules.setdefault(image, own)
            self._packed.setdefault(weights, {}).setdefault(layout, own)
            return own
        first, packed = self._schedules.get(image), self._packed.get(weights, {})
        if first is None:
            return own if layout in packed or not packed else family.repacked(spec, machine, own, next(iter(packed)))
        if layout == family.layout(first):
            return own
        # a CPU's tile is as good for any number of images; a GPU's has to fill it
        return first if family.program is None else family.repacked(spec, machine, own, family.layout(first))


def _of_an_image(spec: Spec) -> Spec:
    """What is computed of one image, wherever images lie."""
    return spec.canonical().told(batch=1)
