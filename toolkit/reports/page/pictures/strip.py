"""One inference from left to right: blocks, their layers, and the kernel calls of these."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import groupby

from .. import drawing
from ..layers import Layer
from ..markup import Markup, tag
from ..network import Network
from ..pieces import ms, percent, several
from .blocks import level, words

_WIDTH, _ROW, _LEFT, _TOP = 1100, 26, 62, 4
_LETTER = 6.6
"""Pixels of a letter, to know which names fit."""


def strip(layers: Sequence[Layer], network: Network | None) -> Markup:
    """The picture; every layer must have been timed."""
    total = sum(layer.ms or 0 for layer in layers) or 1.0
    x = drawing.Scale(0, total, _LEFT, _WIDTH - 2)
    starts: list[tuple[Layer, float, float]] = []
    at = 0.0
    for layer in layers:
        starts.append((layer, at, at + (layer.ms or 0)))
        at = starts[-1][2]
    slowest = max(layer.ms or 0 for layer in layers)
    rows = [
        ("blocks", _blocks(starts, network, x, total)),
        ("layers", [_cell(x, a, b, 1, f"h{level(b - a, slowest)}", layer.name, words(layer, total))
                    for layer, a, b in starts]),
        ("kernels", list(_kernels(starts, x))),
    ]  # fmt: skip
    bottom = _TOP + len(rows) * _ROW
    names = [drawing.text(_LEFT - 6, _TOP + i * _ROW + 17, name, "tick", "end") for i, (name, _) in enumerate(rows)]
    ticks = drawing.below(x, bottom)
    unit = drawing.text((_LEFT + _WIDTH) / 2, bottom + 33, "ms, each kernel call timed alone", "tick", "middle")
    cells = [tag("g", cell) for _, cell in rows]
    told = f"{ms(total)} of kernel calls, {several(len(layers), 'layer')} in a row"
    label = f"One inference: {told}. The table has the numbers."
    return drawing.picture(_WIDTH, bottom + 38, label, names, cells, ticks, unit)


def _cell(x: drawing.Scale, a: float, b: float, row: int, class_: str, name: str, told: Iterable[str]) -> Markup:
    left, width = x(a), max(x(b) - x(a), 0.3)
    inner = [drawing.hover(*told)]
    top = _TOP + row * _ROW
    label = name if (width - 6) / _LETTER >= len(name) else ""
    box = drawing.rect(left, top, width, _ROW - 3, f"cell {class_}")
    return tag("g", inner, box, drawing.text(left + 3, top + 16, label, "name") if label else None)


def _blocks(
    starts: Sequence[tuple[Layer, float, float]], network: Network | None, x: drawing.Scale, total: float
) -> list[Markup]:
    if network is None:
        return []
    titles = {
        network.boxes[number].layer: block.title
        for block in network.blocks
        for number in block.boxes
        if network.boxes[number].layer
    }
    found = []
    last = ""
    runs = groupby(starts, lambda start: titles.get(start[0], "input and output"))
    for number, (title, run) in enumerate(runs):
        parts = list(run)
        a, b = parts[0][1], parts[-1][2]
        told = [title, f"{ms(b - a)}, {percent((b - a) / total)}", several(len(parts), "layer")]
        found.append(_cell(x, a, b, 0, f"part{number % 2}", title if title != last else "", told))
        last = title
    return found


def _kernels(starts: Sequence[tuple[Layer, float, float]], x: drawing.Scale) -> Iterable[Markup]:
    kinds: dict[str, int] = {}
    for layer, first, last in starts:
        at = first
        parts = sum(step["ms"] or 0 for step in layer.steps) or 1.0
        for step in layer.steps:
            # Medians of parts do not add up to the median of their sum: the layer's width is shared among them.
            end = at + (last - first) * (step["ms"] or 0) / parts
            kind = kinds.setdefault(step["op"], len(kinds))
            told = [step["layer"], f"{step['op']} by {step.get('family') or 'no family'}", ms(step["ms"])]
            yield _cell(x, at, end, 2, f"kind{kind % 6}", step["op"], told)
            at = end
