"""Layers below the machine's two limits: how fast it computes, and how fast it reads."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ...peak import Limits
from .. import drawing
from ..layers import Layer
from ..markup import Markup, tag
from ..network import Box
from ..pieces import ms
from .blocks import words

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 1000, 400, 56, 990, 20, 352


def element_bytes(layer: Layer) -> int:
    """Of what most of a layer's numbers are."""
    first = layer.families
    return 1 if first.startswith("bytes.") else 4


def points(boxes: Sequence[Box]) -> list[tuple[Layer, float, float]]:
    """(layer, multiply-adds a byte that it must move at least, thousand million multiply-adds a second)."""
    return [
        (box.layer, box.layer.macs / (box.elements * element_bytes(box.layer)), box.layer.macs / box.layer.ms / 1e6)
        for box in boxes
        if box.layer and box.layer.macs and box.layer.ms and box.elements
    ]


def roofline(boxes: Sequence[Box], limits: Limits, total_ms: float) -> Markup | None:
    """The picture; None where no layer multiplies."""
    found = points(boxes)
    if not found:
        return None
    knee = limits.gmacs / limits.gbytes
    lowest_x = min(knee / 2, *(at for _, at, _ in found)) * 0.8
    x = drawing.Scale(lowest_x, max(knee * 4, *(at for _, at, _ in found)) * 1.3, _LEFT, _RIGHT, log=True)
    lowest = min(limits.gmacs / 2, *(speed for *_, speed in found))
    highest = max(limits.gmacs, *(speed for *_, speed in found))
    y = drawing.Scale(lowest * 0.7, highest * 1.5, _BOTTOM, _TOP, log=True)
    roof = [(x(x.first), y(x.first * limits.gbytes)), (x(knee), y(limits.gmacs)), (_RIGHT, y(limits.gmacs))]
    slowest = max(layer.ms or 0 for layer, *_ in found)
    marks = [
        tag("circle", drawing.hover(*words(layer, total_ms), f"{at:.3g} multiply-adds a byte"),
            cx=x(at), cy=y(speed), r=3 + 9 * ((layer.ms or 0) / slowest) ** 0.5, class_="point")
        for layer, at, speed in sorted(found, key=lambda one: -(one[0].ms or 0))
    ]  # fmt: skip
    half = math.sqrt(x.first * knee)
    names = [
        drawing.text(
            _RIGHT,
            y(limits.gmacs) - 6,
            f"{limits.gmacs:.0f} G multiply-adds of {limits.of} a second (measured)",
            "tick over",
            "end",
        ),
        drawing.text(
            x(half) + 10, y(half * limits.gbytes) + 12, f"{limits.gbytes:.0f} GB a second (measured)", "tick over"
        ),
    ]
    label = (
        f"Roofline: {len(found)} layers below {limits.gmacs:.0f} G multiply-adds and {limits.gbytes:.0f} GB a "
        f"second; the largest takes {ms(slowest)}. The table of all layers has the numbers."
    )
    frame = drawing.axes(
        x, y, _LEFT, _RIGHT, _BOTTOM, across="multiply-adds a byte moved at least", up="G multiply-adds / s"
    )
    return drawing.picture(_WIDTH, _HEIGHT, label, frame, drawing.path(roof, "roof"), marks, names)
