"""Columns and dots over layers in the network's order: weights, errors, ranges."""

from __future__ import annotations

from collections.abc import Sequence

from .. import drawing
from ..markup import Markup, tag

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 1000, 260, 56, 990, 22, 222


def columns(rows: Sequence[tuple[str, float, str]], label: str, unit: str, what: str = "layers") -> Markup:
    """A column a row: (name, value, what a pointer is told); `what` the rows are."""
    y = drawing.Scale(0, max(value for _, value, _ in rows) or 1.0, _BOTTOM, _TOP)
    step = (_RIGHT - _LEFT) / len(rows)
    drawn = [
        drawing.rect(
            _LEFT + i * step, y(value), max(step * 0.85, 0.5), _BOTTOM - y(value), "column", drawing.hover(name, told)
        )
        for i, (name, value, told) in enumerate(rows)
    ]
    frame = drawing.axes(None, y, _LEFT, _RIGHT, _BOTTOM, across=f"{what}, in the network's order", up=unit)
    return drawing.picture(_WIDTH, _HEIGHT, label, frame, drawn)


def errors(rows: Sequence[tuple[str, float, float, str]], fall: str | None, label: str) -> Markup:
    """Decibels by layer: a line for what has gone wrong so far, dots for the layer alone.

    Args:
        rows: (layer, so far, alone, what a pointer is told).
        fall: the layer to mark.
    """
    values = [value for _, total, own, _ in rows for value in (total, own)]
    x = drawing.Scale(0, max(1, len(rows) - 1), _LEFT + 8, _RIGHT - 8)
    y = drawing.Scale(min(0.0, *values), max(values) * 1.05 + 1, _BOTTOM, _TOP)
    marks = [
        tag("circle", drawing.hover(name, told), cx=x(i), cy=y(own), r=3.5, class_="point own")
        for i, (name, _, own, told) in enumerate(rows)
    ]
    marks += [
        tag("circle", drawing.hover(name, told), cx=x(i), cy=y(total), r=3, class_="point total")
        for i, (name, total, _, told) in enumerate(rows)
    ]
    marked = []
    for i, (name, *_) in enumerate(rows):
        if name == fall:
            anchor = "end" if i > len(rows) / 2 else "start"
            side = x(i) - 6 if anchor == "end" else x(i) + 6
            marked = [drawing.line(x(i), _TOP, x(i), _BOTTOM, "fall"),
                      drawing.text(side, _TOP + 10, f"falls here: {name}", "tick strong", anchor)]  # fmt: skip
    frame = drawing.axes(None, y, _LEFT, _RIGHT, _BOTTOM, across="layers, in the network's order", up="SQNR, dB")
    way = drawing.path([(x(i), y(total)) for i, (_, total, _, _) in enumerate(rows)], "way")
    return drawing.picture(_WIDTH, _HEIGHT, label, frame, way, marks, marked)
