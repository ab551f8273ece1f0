"""A dot a row on one scale, with a line from one figure to another: latency and its tail, accuracy and its interval."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .. import drawing
from ..markup import Markup, tag

_WIDTH, _ROW, _LEFT, _RIGHT, _TOP = 760, 30, 170, 740, 8
_LETTERS = 24


@dataclass(frozen=True)
class Row:
    """One line of the picture.

    Attributes:
        value: where its dot is; low, high: the ends of its line.
        told: what a pointer is told.
    """

    name: str
    value: float
    low: float
    high: float
    told: str


def intervals(rows: Sequence[Row], label: str, unit: str, *, ends: tuple[float, float] | None = None) -> Markup:
    """The picture.

    Args:
        ends: of the scale; from 0 to the largest where None.
    """
    first, last = ends or (0.0, max(row.high for row in rows) * 1.05 or 1.0)
    x = drawing.Scale(first, last, _LEFT, _RIGHT)
    bottom = _TOP + _ROW * len(rows)
    drawn = []
    for index, row in enumerate(rows):
        y = _TOP + _ROW * (index + 0.5)
        drawn.append(
            tag(
                "g",
                drawing.hover(row.name, row.told),
                drawing.line(x(row.low), y, x(row.high), y, "range"),
                tag("circle", cx=x(row.value), cy=y, r=5, class_="point total"),
                drawing.text(_LEFT - 10, y + 4, drawing.shortened(row.name, _LETTERS), "", "end"),
            )
        )
    grid = [drawing.line(x(value), _TOP, x(value), bottom, "grid") for value in x.ticks(10)]
    across = drawing.text((_LEFT + _RIGHT) / 2, bottom + 33, unit, "tick", "middle")
    return drawing.picture(_WIDTH, bottom + 38, label, grid, drawing.below(x, bottom), drawn, across)
