"""Tasks: the layers of a network that have knobs, equal ones once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace

from ..kernels.elements import Addition, Rounding, Scaling
from ..kernels.spec import Conv, Spec, Stage, Vta, Window, applies
from ..kernels.vta.bound import shifts
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
    return isinstance(spec, (Conv, Vta)) or (isinstance(spec, Window) and not spec.quantized)


def plain(spec: Spec) -> Spec:
    """A spec without what makes no difference to its time: where tensors lie, and, of bytes, what the numbers of its
    scales and zero points are; of a VTA's, by how much an instruction shifts and clamps.
    """
    found = spec.canonical()
    if isinstance(found, Vta):
        return replace(found, stages=tuple(map(_plain, found.stages)))
    if not isinstance(found, Conv) or not found.quantized:
        return found
    how, addition = found.rounding, found.addition
    alike = None if how is None else Rounding(0, 0, 255, how.shift)
    if addition is not None and alike is not None:
        unaligned = None if addition.unaligned is None else (1.0, 1.0)
        inside = None if addition.inside is None else 0
        addition = Addition((0, 0), (0, 0), 1.0, replace(alike, shift=addition.rounding.shift), unaligned, inside)
    scaling = None if found.scaling is None or alike is None else Scaling(0, alike)
    return replace(found, rounding=alike, scaling=scaling, addition=addition, row_sets=1, column_sets=1)


def _plain(stage: Stage) -> Stage:
    """Shifts and clamps by as much as the same number of instructions can."""
    terms = tuple(replace(term, shift=_MOST * shifts(term.shift)) for term in stage.terms)
    lead, shift = (_MOST * shifts(amount) for amount in (stage.lead, stage.shift))
    low, high = (None if end is None else 0 for end in (stage.low, stage.high))
    return replace(stage, terms=terms, lead=lead, shift=shift, low=low, high=high)


_MOST = 15
"""By which one instruction shifts."""


def key_of(layer: Layer) -> str | None:
    """The key of a layer's task; None where it has no knobs."""
    return key(plain(layer.spec), _eligible(layer)) if tunable(layer.spec) else None


def _eligible(layer: Layer) -> bool:
    """Winograd's algorithm may compute it: some target's, of bytes where the shape allows it at all."""
    spec = layer.spec
    if layer.op != "conv" or not isinstance(spec, Conv) or spec.tiled:
        return False
    return applies(spec) if spec.quantized else True


def tasks_of(layers: Iterable[Layer]) -> list[Task]:
    """The tasks among the layers of a network as `lower.lower.layers_for` gives them, in order of appearance."""
    found: dict[tuple[Spec, bool], list[str]] = {}
    for layer in layers:
        if tunable(layer.spec):
            name = layer.nodes[-1] if layer.nodes else layer.value
            found.setdefault((plain(layer.spec), _eligible(layer)), []).append(name)
    return [Task(spec, eligible, len(names), tuple(names)) for (spec, eligible), names in found.items()]
