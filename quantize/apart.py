"""What one scale cannot hold: tensors that meet in a Concat with ranges so far apart that the smaller would be lost."""

from __future__ import annotations

from collections.abc import Mapping

from .histogram import Histogram
from .structure import Layer, Structure

FURTHEST = 256.0
"""How many times wider one range may be than another. Beyond, all of the narrower lies within one step of 8 bits."""


def apart(structure: Structure, histograms: Mapping[str, Histogram]) -> dict[str, float]:
    """The names of the Concats that join such tensors and of the layers that read what they make, each with how many
    times wider the widest range is. They stay float: whatever scale the joined tensor had, a part of it would be zero.
    """
    found: dict[str, float] = {}
    for layer in structure.layers:
        ratio = _ratio(layer, histograms) if layer.kind == "concat" else 0.0
        if ratio > FURTHEST:
            readers = [other for other in structure.layers if set(other.inputs) & set(layer.outputs)]
            found |= {one.name: ratio for one in (layer, *readers)}
    return found


def _ratio(layer: Layer, histograms: Mapping[str, Histogram]) -> float:
    """How many times the widest range of a layer's inputs is the narrowest that is not nothing."""
    seen = [histograms[value.name or ""] for value in layer.inputs if (value.name or "") in histograms]
    reach = [max(-one.low, one.high) for one in seen]
    reach = [one for one in reach if one > 0]
    return max(reach) / min(reach) if reach else 0.0
