"""A target whose decisions on weights do not depend on the number of images: what is decided first, holds."""

from __future__ import annotations

from typing import Any

from ..kernels.spec import Conv, Spec
from .kernel_set import KernelSet


class Alike:
    """A `KernelSet` that gives a convolution of the same weights, of another number of images, the same answers.

    Winograd's weights are others than the direct convolution's, and a schedule says in what order weights are packed:
    the first network's answers to both hold for those that follow, so that their weights are the same bytes.
    """

    def __init__(self, kernels: KernelSet) -> None:
        self._kernels = kernels
        self._settled = False
        self._winograd: dict[Spec, tuple[int, int] | None] = {}
        self._schedules: dict[Spec, Any] = {}
        self._packed: dict[tuple[Any, ...], dict[int, Any]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kernels, name)

    def settle(self) -> None:
        """The first network is lowered."""
        self._settled = True

    def winograd(self, spec: Spec) -> tuple[int, int] | None:
        """The first answer for such an image."""
        return self._winograd.setdefault(_of_an_image(spec), self._kernels.winograd(spec))

    def schedule(self, spec: Spec) -> Any:
        """Its own, unless it would pack a convolution's weights otherwise than the first network does: then the first
        one's for such an image. Winograd's products have other images there, in bands of other heights: their tiles are
        cut anew for the packing.
        """
        from ..kernels.vector.conv import repacked

        own = self._kernels.schedule(spec)
        if not isinstance(spec, Conv) or not hasattr(own, "vectors"):
            return own
        image, weights = _of_an_image(spec), (spec.channels, spec.out_channels, spec.kernel, spec.groups)
        if not self._settled:
            self._schedules.setdefault(image, own)
            self._packed.setdefault(weights, {}).setdefault(own.vectors, own)
            return own
        first, packed = self._schedules.get(image), self._packed.get(weights, {})
        if first is not None:
            return own if own.vectors == first.vectors else first
        return own if own.vectors in packed or not packed else repacked(spec, own, next(iter(packed)))


def _of_an_image(spec: Spec) -> Spec:
    """What is computed of one image, wherever images lie."""
    return spec.canonical().told(batch=1)
