"""Kernel calls grouped by the layer that they do the work of: Winograd's three, a layer's bands."""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

_PART = re.compile(r"(:\d+)?:(data|products)$")
"""What lowering puts behind a value's name for a part of the work on it (`lower.by_winograd`)."""


@dataclass(frozen=True, eq=False)
class Layer:
    """Steps that compute one value.

    Attributes:
        number: its place among the layers.
        name: what people call it.
        steps: rows of `inspect`'s ``steps``, in order.
    """

    number: int
    name: str
    steps: tuple[Mapping[str, Any], ...]

    @property
    def nodes(self) -> tuple[str, ...]:
        """The nodes of the ONNX that it does the work of."""
        return tuple(dict.fromkeys(node for step in self.steps for node in step["layers"]))

    @cached_property
    def op(self) -> str:
        """What most of its work is, in words."""
        main = max(self.steps, key=lambda step: (step["macs"], bool(step["layers"]), step["ms"] or 0))
        winograd = any(step["op"].startswith("winograd") for step in self.steps)
        return f"{main['op'].replace('_', ' ')}{', Winograd' if winograd else ''}"

    @property
    def macs(self) -> int:
        """Multiply-adds."""
        return sum(step["macs"] for step in self.steps)

    @property
    def families(self) -> str:
        """The families of its kernels."""
        return ", ".join(dict.fromkeys(step.get("family") or step["op"] for step in self.steps))

    @cached_property
    def runs_ms(self) -> tuple[float, ...]:
        """Milliseconds of each run; none where nothing was measured."""
        times = [step.get("runs_ms") for step in self.steps]
        return tuple(map(sum, zip(*times, strict=True))) if all(times) else ()

    @cached_property
    def ms(self) -> float | None:
        """The median of the runs; None where nothing was measured."""
        return statistics.median(self.runs_ms) if self.runs_ms else None


def layers_of(steps: Sequence[Mapping[str, Any]]) -> tuple[Layer, ...]:
    """The layers of a plan, in the order of their first steps."""
    grouped: dict[str, list[Mapping[str, Any]]] = {}
    for step in steps:
        grouped.setdefault(_PART.sub("", step["output"]), []).append(step)
    found = []
    for number, (value, rows) in enumerate(grouped.items()):
        named = [step["layers"][-1] for step in rows if step["layers"]]
        found.append(Layer(number, named[-1] if named else value, tuple(rows)))
    return tuple(found)
