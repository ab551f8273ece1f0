"""The network, block by block: boxes are layers, coloured by their time; lines are tensors."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .. import drawing
from ..layered import draw
from ..layers import Layer
from ..markup import Child, Markup, tag
from ..network import Block, Box, Network
from ..pieces import many, ms, percent

_WIDTH, _HEIGHT, _GAP, _BETWEEN, _LANE = 96, 36, 8, 20, 8
_MARGIN, _ENTRY = 4, 10
LEVELS = 5
"""Shades; the square root of a time is what they divide equally, so that one slow layer leaves the others some."""


def blocks(network: Network, total_ms: float | None) -> list[Markup]:
    """A list item a block, in the network's order."""
    slowest = max((box.layer.ms or 0 for box in network.boxes if box.layer), default=0)
    return [_block(block, network, total_ms, slowest) for block in network.blocks]


def level(time: float | None, slowest: float) -> int | None:
    """The shade of a time: 1 to `LEVELS`; None where nothing was measured."""
    return None if time is None or slowest <= 0 else max(1, min(LEVELS, math.ceil(LEVELS * math.sqrt(time / slowest))))


def _block(block: Block, network: Network, total_ms: float | None, slowest: float) -> Markup:
    boxes = [network.boxes[number] for number in block.boxes]
    places = {number: 1 + position for position, number in enumerate(block.boxes)}
    # What comes from outside, the box before the block, stands above it as a dot.
    reads = [[], *([places.get(other, 0) for other in box.reads] or [0] for box in boxes)]
    plan = draw(reads, width=_WIDTH, height=_HEIGHT, gap=_GAP, between=_BETWEEN, lane=_LANE)
    up = _HEIGHT - _ENTRY
    lines = [_line(x1, y1 - up, x2, y2 - up) for x1, y1, x2, y2 in plan.lines]
    x, y = plan.boxes[0]
    dot = tag("circle", cx=x + _WIDTH / 2, cy=y + _HEIGHT - up - 4, r=3.5, class_="entry")
    drawn = [
        _box(box, x, y - up, total_ms, slowest, last=box is boxes[-1])
        for box, (x, y) in zip(boxes, plan.boxes[1:], strict=True)
    ]
    width, height = plan.width + 2 * _MARGIN, plan.height - up + 2 * _MARGIN
    shifted = tag("g", *lines, dot, drawn, transform=f"translate({_MARGIN} {_MARGIN})")
    times = [box.layer.ms for box in boxes if box.layer and box.layer.ms is not None]
    told = f"{ms(sum(times))}, {percent(sum(times) / total_ms if total_ms else 0)}" if times else _work(boxes)
    picture = drawing.picture(width, height, f"{block.title}: {told}. {_spoken(boxes)}", shifted, class_="net")
    return tag("li", tag("p", tag("b", block.title), tag("span", told)), picture)


def _spoken(boxes: Sequence[Box]) -> str:
    """A block in words."""
    parts = [f"{box.name}, {box.label}{', ' + ms(box.layer.ms) if box.layer and box.layer.ms is not None else ''}"
             for box in boxes]  # fmt: skip
    return "; ".join(parts)


def _work(boxes: Sequence[Box]) -> str:
    return f"{many(sum(box.layer.macs for box in boxes if box.layer))} multiply-adds"


def _line(x1: float, y1: float, x2: float, y2: float) -> Markup:
    if abs(x1 - x2) < 0.5:
        return drawing.line(x1, y1, x2, y2, "edge")
    middle = (y1 + y2) / 2
    way = f"M{x1:.1f} {y1:.1f}C{x1:.1f} {middle:.1f} {x2:.1f} {middle:.1f} {x2:.1f} {y2:.1f}"
    return tag("path", d=way, class_="edge")


def _box(box: Box, x: float, y: float, total_ms: float | None, slowest: float, *, last: bool) -> Markup:
    layer = box.layer
    shape = "x".join(map(str, box.shape))
    middle = x + _WIDTH / 2
    if layer is None:
        told = drawing.hover(box.name, f"{box.label} to {shape}", "no kernel: its parts are written where they belong")
        return tag(
            "g", told,
            drawing.line(middle, y, middle, y + 8, "edge"),
            None if last else drawing.line(middle, y + _HEIGHT - 8, middle, y + _HEIGHT, "edge"),
            drawing.rect(x, y + 8, _WIDTH, _HEIGHT - 16, "box free", rx=8),
            drawing.text(middle, y + _HEIGHT / 2 + 4, box.label, "name", "middle"),
        )  # fmt: skip
    shade = level(layer.ms, slowest)
    second = ms(layer.ms) if layer.ms is not None else f"{many(layer.macs)} MAC"
    content: list[Child] = [
        drawing.hover(*words(layer, total_ms), f"gives {shape}"),
        drawing.rect(x, y, _WIDTH, _HEIGHT, f"box h{shade}" if shade else "box", rx=4),
        drawing.text(middle, y + 15, drawing.shortened(box.label, 15), "name", "middle"),
        drawing.text(middle, y + 29, second, "time", "middle"),
    ]
    return tag("g", content)


def words(layer: Layer, total_ms: float | None) -> list[str]:
    """What is known of a layer, a line a fact."""
    lines = [layer.name, f"{layer.op} by {layer.families}"]
    if layer.ms is not None:
        lines.append(f"{ms(layer.ms)} ({ms(min(layer.runs_ms))} to {ms(max(layer.runs_ms))})")
        lines[-1] += f", {percent(layer.ms / total_ms)}" if total_ms else ""
    if layer.macs:
        speed = f", {layer.macs / layer.ms / 1e6:.0f} G a second" if layer.ms else ""
        lines.append(f"{many(layer.macs)} multiply-adds{speed}")
    return lines


def legend(slowest: float) -> Markup:
    """What the shades mean."""
    steps = [
        tag("span", tag("i", class_=f"swatch h{shade}"), f"to {ms(slowest * (shade / LEVELS) ** 2)}")
        for shade in range(1, LEVELS + 1)
    ]
    return tag("p", *steps, tag("span", tag("i", class_="swatch free"), "a join that costs nothing"), class_="legend")
