"""Tasks: the layers of a network that have knobs, equal ones once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass

from ..kernels.spec import Conv, Spec, Window
from ..lower.layers import Layer


@dataclass(frozen=True)
class Task:
    """A layer to find a choice for.

    Attributes:
        spec: what it computes, with the strides of dense storage (where a tensor lies in memory does not matter here).
        eligible: its convolution may be computed by Winograd's algorithm.
        count: how many layers of the network are equal to it.
        layers: their names.
    """

    spec: Spec
    eligible: bool
    count: int
    layers: tuple[str, ...]

    @property
    def key(self) -> str:
        """What identifies it in a database."""
        return key(self.spec, self.eligible)

    def __str__(self) -> str:
        return self.spec.describe()


def key(spec: Spec, eligible: bool) -> str:
    """A short digest of a canonical spec."""
    text = json.dumps([spec.encode(), eligible], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def tunable(spec: Spec) -> bool:
    """There are knobs to search."""
    return isinstance(spec, Conv | Window) and not spec.quantized


def tasks_of(layers: Iterable[Layer]) -> list[Task]:
    """The tasks among the layers of a network as `lower.lower.layers_for` gives them, in order of appearance."""
    found: dict[tuple[Spec, bool], list[str]] = {}
    for layer in layers:
        if tunable(layer.spec):
            name = layer.nodes[-1] if layer.nodes else layer.value
            eligible = layer.op == "conv" and isinstance(layer.spec, Conv) and not layer.spec.tiled
            found.setdefault((layer.spec.canonical(), eligible), []).append(name)
    return [Task(spec, eligible, len(names), tuple(names)) for (spec, eligible), names in found.items()]
