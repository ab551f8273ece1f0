"""Tasks: the layers of a network that have knobs, equal ones once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields, replace
from enum import Enum
from typing import Any

from ..kernels.spec import Conv, Window, WindowOp, element_of
from ..kernels.spec_tiles import ConvTiles, Output
from ..lower.layers import Layer

KINDS: dict[str, type] = {"conv": Conv, "window": Window, "tiles": ConvTiles}
"""What can be tuned, by the name that databases know it by."""


@dataclass(frozen=True)
class Task:
    """A layer to find a choice for.

    spec: what it computes, with the strides of dense storage (where a tensor lies in memory does not matter here).
    eligible: its convolution may be computed by Winograd's algorithm.
    count: how many layers of the network are equal to it.
    layers: their names.
    """

    spec: Any
    eligible: bool
    count: int
    layers: tuple[str, ...]

    @property
    def key(self) -> str:
        """What identifies it in a database."""
        return key(self.spec, self.eligible)

    def __str__(self) -> str:
        return describe(self.spec)


def canonical(spec: Any) -> Any:
    """The spec with the strides of dense storage: 0, or an image's elements where there are several images."""
    changed: dict[str, Any] = {f.name: 0 for f in fields(spec) if f.name.endswith("_stride")}
    if isinstance(spec, ConvTiles):
        changed["split"] = tuple(map(canonical, spec.split))
    return replace(spec, **changed)


def key(spec: Any, eligible: bool) -> str:
    """A short digest of a canonical spec."""
    text = json.dumps([encode(spec), eligible], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def encode(spec: Any) -> dict[str, Any]:
    """The spec as JSON."""
    kind = next(name for name, cls in KINDS.items() if type(spec) is cls)
    values = {name: value.value if isinstance(value, Enum) else value for name, value in asdict(spec).items()}
    return {"kind": kind, **values}


def decode(document: dict[str, Any]) -> Any:
    """The spec that `encode` gave. KeyError, TypeError or ValueError for anything else."""
    values = _tuples(document)
    cls = KINDS[str(values.pop("kind"))]
    if cls is Window:
        values["op"] = WindowOp(values["op"])
    if cls is ConvTiles:
        values["split"] = tuple(Output(**_tuples(output)) for output in values["split"])
    return cls(**values)


def _tuples(document: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in document.items()}


def tasks_of(layers: Iterable[Layer]) -> list[Task]:
    """The tasks among the layers of a network as `lower.lower.layers_for` gives them, in order of appearance."""
    found: dict[tuple[Any, bool], list[str]] = {}
    for layer in layers:
        if type(layer.spec) in KINDS.values():
            name = layer.nodes[-1] if layer.nodes else layer.value
            eligible = layer.op == "conv" and isinstance(layer.spec, Conv)
            found.setdefault((canonical(layer.spec), eligible), []).append(name)
    return [Task(spec, eligible, len(names), tuple(names)) for (spec, eligible), names in found.items()]


def describe(spec: Any) -> str:
    """A few words for a person, e.g. ``1088-192 1x1 @17x17``."""
    kernel = "x".join(map(str, spec.kernel))
    step = f"/{spec.stride[0]}" if spec.stride != (1, 1) else ""
    size = f"@{spec.out_height}x{spec.out_width}"
    if isinstance(spec, Window):
        groups = f" in groups of {spec.group}" if spec.group > 1 else ""
        return f"{spec.op.value} {spec.blocks * element_of(spec.in_element).block} {kernel}{step} {size}{groups}"
    groups = f" in {spec.groups} groups" if spec.groups > 1 else ""
    add = " + add" if spec.add else ""
    tiles = " on tiles" if isinstance(spec, ConvTiles) else ""
    out = "+".join(str(o.channels) for o in spec.outputs) if isinstance(spec, ConvTiles) else spec.out_channels
    return f"{spec.channels * spec.groups}-{out} {kernel}{step} {size}{groups}{add}{tiles}"
