"""Where the time goes: the network as a picture, the timeline, the roofline, and every layer in numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..facts import Facts
from ..layers import Layer
from ..markup import Child, Markup, tag
from ..network import Network
from ..pictures.blocks import blocks, legend
from ..pictures.roofline import points, roofline
from ..pictures.strip import strip
from ..pictures.waves import waves
from ..pieces import bar, code, figure, folded, heading, many, ms, note, paragraph, percent, several, table
from .base import Section

_SLOWEST = 15


def content(facts: Facts) -> Iterable[Markup]:
    """See `Section.content`."""
    total = facts.total_ms
    if total is None:
        yield paragraph(f"No layer was timed: {facts.missing.get('profile', 'it cannot run here')}.")
    else:
        yield paragraph(
            f"Every kernel call was timed alone, on {several(facts.threads, 'thread')}, in {facts.runs} runs on "
            f"random numbers; the figures are medians. Together they are {ms(total)}{_whole(facts, total)}."
        )
    yield from _picture(facts)
    if total is not None:
        yield heading("One inference, from left to right")
        name = "One inference, from left to right"
        yield figure(
            strip(facts.layers, facts.network), "Widths are times. Rest on a part for its numbers.", scrolls=name
        )
        yield heading("Waves over threads")
        told = (
            "Kernel calls of one wave do not depend on each other and share the threads; between waves all threads "
            "wait. A call's height is its part of the threads if they are shared by work: it follows from the "
            "single times and was not observed."
        )
        yield figure(waves(facts.inspected["steps"], facts.threads), told, scrolls="Waves over threads")
        yield from _waiting(facts.inspected.get("waiting"))
        yield from _roofline(facts, total)
        yield from _slowest(facts.layers, total)
    yield from _operators(facts)
    rows = [_row(layer, total) for layer in facts.layers]
    yield folded(
        f"All {several(len(rows), 'layer')}",
        table("All layers, in the order in which they run", _COLUMNS, rows, right=(2, 3, 4, 5, 6, 7)),
    )


def _waiting(found: Mapping[str, Any] | None) -> Iterable[Markup]:
    """What was observed of the threads in whole inferences: how long each waits, and where they lose most."""
    if not found:
        return
    shares = ", ".join(map(percent, found["idle"]))
    yield paragraph(
        f"Observed in whole inferences: of {ms(found['ms'])} in {several(found['phases'], 'phase')} the threads wait "
        f"{shares}, the caller's first."
    )
    rows = [(code(row["name"]), ms(row["ms"]), ms(row["idle_ms"])) for row in found["worst"]]
    yield folded(
        "Where threads wait most",
        table(
            "Phases by what all threads together wait", ("first kernel call of", "takes", "waiting"), rows, right=(1, 2)
        ),
    )


def _whole(facts: Facts, total: float) -> str:
    """How the sum of the calls compares with an inference, and what can be said of the difference."""
    if not facts.latency:
        return ""
    whole = facts.latency[0]["p50_ms"]
    told = f"; a whole inference takes {ms(whole)}"
    if whole > total:
        return f"{told}, more than its parts: the machine was busier, or its caches colder, when that was measured"
    return f"{told}: side by side, the calls of a wave wait for each other less"


def _picture(facts: Facts) -> Iterable[Markup]:
    yield heading("The network")
    if facts.network is None or not facts.network.blocks:
        yield note(f"There is no picture: {facts.missing.get('network', 'the graph has no layers')}.")
        return
    slowest = max((layer.ms or 0 for layer in facts.layers), default=0)
    shown = "darker is slower" if slowest else "none was timed"
    yield paragraph(
        f"{_counted(facts.network)}, from left to right and from above to below. A box is a layer, {shown}; a line "
        "is a tensor; the dot above a block is what the block before it gave. Rest on a box for its numbers."
    )
    if slowest:
        yield legend(slowest)
    yield tag("ol", blocks(facts.network, facts.total_ms), class_="blocks")


def _counted(network: Network) -> str:
    joins = sum(box.layer is None for box in network.boxes)
    layers = several(len(network.boxes) - joins, "layer")
    free = f", {several(joins, 'concat')} that cost{'s' if joins == 1 else ''} nothing" if joins else ""
    return f"{layers} in {several(len(network.blocks), 'block')}{free}"


def _roofline(facts: Facts, total: float) -> Iterable[Markup]:
    yield heading("Against the machine's limits")
    if facts.limits is None:
        yield note(f"They were not measured: {facts.missing.get('limits', 'it cannot run here')}.")
        return
    picture = roofline(facts.network.boxes, facts.limits, total) if facts.network else None
    if picture is None or facts.network is None:
        yield note(f"There is no layer to place below them: {facts.missing.get('network', 'none multiplies')}.")
        return
    told = [
        f"The limits were measured here, now: {facts.limits.how}. A point is a layer, its area the layer's time. "
        "What it must move at least is computed: each input, weight and result once; what is small comes from "
        "caches, which are faster than memory. Multiply-adds are those of the direct convolution: Winograd's "
        "algorithm does fewer, so its layers may stand above the limit."
    ]
    above = sum(
        speed > facts.limits.gmacs and "Winograd" not in layer.op for layer, _, speed in points(facts.network.boxes)
    )
    own = facts.limits.of == ("bytes" if facts.manifest.get("integers") else facts.manifest["precision"])
    if above and own:
        told.append(
            f" {several(above, 'layer')} without Winograd above it: the machine was busier when it was measured."
        )
    if not own:
        told.append(
            f" The limit is that of {facts.limits.of} in vectors; {facts.manifest['precision']} has a higher one."
        )
    yield figure(picture, "".join(told), scrolls="Roofline")


_COLUMNS = ("layer", "what", "MACs", "G / s", "median", "fastest", "slowest", "share")


def _row(layer: Layer, total: float | None) -> Sequence[Child]:
    speed = f"{layer.macs / layer.ms / 1e6:.0f}" if layer.macs and layer.ms else "-"
    runs = layer.runs_ms
    return (
        code(layer.name), f"{layer.op} ({layer.families})", many(layer.macs) if layer.macs else "-", speed,
        ms(layer.ms),
        ms(min(runs)) if runs else "-", ms(max(runs)) if runs else "-",
        percent(layer.ms / total if layer.ms is not None and total else None),
    )  # fmt: skip


def _slowest(layers: Sequence[Layer], total: float) -> Iterable[Markup]:
    yield heading("The slowest layers")
    rows = sorted(layers, key=lambda layer: -(layer.ms or 0))[:_SLOWEST]
    most = max((max(layer.runs_ms) for layer in rows), default=0.0)
    body = [(*_row(layer, total), _spread(layer.runs_ms, most)) for layer in rows]
    caption = f"The slowest {several(len(rows), 'layer')}, with the spread over the runs"
    yield table(caption, (*_COLUMNS, ""), body, right=(2, 3, 4, 5, 6, 7))


def _spread(runs: Sequence[float], most: float) -> Markup:
    """From the fastest to the slowest run, with a mark at the median."""
    low, middle, high = (100 * value / (most or 1.0) for value in (min(runs), sorted(runs)[len(runs) // 2], max(runs)))
    band = tag("i", style=f"left:{low:.1f}%;width:{max(high - low, 0.8):.1f}%")
    return tag("span", band, tag("b", style=f"left:{middle:.1f}%"), class_="bar spread", aria_hidden="true")


def _operators(facts: Facts) -> Iterable[Markup]:
    yield heading("By operator")
    rows: dict[str, list[float]] = {}
    for step in facts.inspected["steps"]:
        row = rows.setdefault(step["op"], [0, 0, 0.0])
        row[0] += 1
        row[1] += step["macs"]
        row[2] += step["ms"] or 0.0
    total = sum(time for *_, time in rows.values())
    body = [
        (op.replace("_", " "), f"{calls:.0f}", many(macs) if macs else "-", ms(time) if total else "-",
         percent(time / total) if total else "-", bar(time / total if total else 0))
        for op, (calls, macs, time) in sorted(rows.items(), key=lambda row: (-row[1][2], -row[1][1], row[0]))
    ]  # fmt: skip
    yield table("Time by kind of kernel call", ("kind", "calls", "MACs", "time", "share", ""), body, right=(1, 2, 3, 4))


SECTION = Section("time", "Where does the time go?", content)
