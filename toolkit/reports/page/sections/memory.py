"""Memory: the arena over time, and weights by layer."""

from __future__ import annotations

from collections.abc import Iterable

from ..facts import Facts
from ..markup import Markup
from ..pictures.arena import arena, live, lives
from ..pictures.columns import columns
from ..pieces import code, figure, folded, heading, many, note, paragraph, percent, several, size, table
from .base import Section

_LARGEST = 10


def content(facts: Facts) -> Iterable[Markup]:
    """See `Section.content`."""
    yield heading("Activations")
    yield from _arena(facts)
    yield heading("Weights")
    yield from _weights(facts)
    if facts.manifest.get("plans"):
        yield heading("Plans")
        yield from _plans(facts)


def _plans(facts: Facts) -> Iterable[Markup]:
    """Of a bundle for several numbers of images."""
    memory, others = facts.manifest["memory"], facts.manifest["plans"]
    yield paragraph(
        f"The bundle holds {several(1 + len(others), 'plan')}, each for another number of images at once, on one file "
        f"of weights: {size(memory.get('shared_bytes', 0))} of {size(memory['weights_bytes'])} are read by all. "
        "What this page says elsewhere is of the first."
    )
    rows = [(facts.batch, len(facts.plan["steps"]), size(memory["arena_bytes"]))]
    for row, plan in zip(others, facts.plan["plans"], strict=True):
        rows.append((row["batch"], len(plan["steps"]), size(row["memory"]["arena_bytes"])))
    yield table("The plans of the bundle", ("images at once", "kernel calls", "arena"), rows, right=(0, 1, 2))


def _arena(facts: Facts) -> Iterable[Markup]:
    total = facts.manifest["memory"]["arena_bytes"]
    rows = lives(facts.plan["placements"])
    if not rows or not total:
        yield note("There is no arena: the network keeps nothing between two kernel calls.")
        return
    used = live(rows)
    slices, inplace = (sum(row.kind == kind for row in rows) for kind in ("slice", "inplace"))
    apart = sum(row["bytes"] for row in facts.plan["placements"])
    yield paragraph(
        f"Every value is at a fixed place in one arena of {size(total)}; each in memory of its own would take "
        f"{size(apart)}. At the fullest wave {size(max(used))} are in use, {percent(max(used) / total)} of the "
        f"arena. {several(slices, 'value')} {'is' if slices == 1 else 'are'} written as a slice of a larger one, "
        f"which makes concats free, and {several(inplace, 'value')} over the addend of a residual add."
    )
    told = (
        "Across: waves, one after the other. Upwards: bytes of the arena. A box is a value, from the wave that "
        "writes it to the last that reads it; dashed boxes are slices of the memory below them, shaded ones lie "
        "over what was there. From the plan: nothing here was measured."
    )
    yield figure(arena(rows, total), told, scrolls="The arena over time")
    words = {"own": "-", "root": "shared by parts", "slice": "slice of ", "inplace": "over "}
    body = [
        (code(row.value), size(row.high - row.low), row.low, f"{row.first} to {row.last}", words[row.kind] + row.shares)
        for row in rows
    ]
    columns_ = ("value", "size", "offset", "waves", "shares")
    yield folded(f"All {several(len(rows), 'place')}", table("Places in the arena", columns_, body, right=(1, 2, 3)))


def _weights(facts: Facts) -> Iterable[Markup]:
    packed = facts.manifest["memory"]["weights_bytes"]
    rows = [row for row in facts.inspected.get("layers") or () if row["parameters"]]
    if not rows:
        yield paragraph(f"{size(packed)}, packed for the target. {facts.inspected.get('not_read', '')}")
        return
    total = facts.inspected["parameters"] or 1
    yield paragraph(
        f"{many(facts.inspected['parameters'])} numbers in the ONNX, {size(packed)} as packed for the target: "
        "kernels are laid out for vectors, channels filled up to whole blocks, and Winograd's kernels are larger "
        "than those they came from."
    )
    each, unit = (1e6, "M numbers") if max(row["parameters"] for row in rows) >= 1e6 else (1e3, "k numbers")
    drawn = [(row["layer"], row["parameters"] / each, _of_all(row["parameters"], total)) for row in rows]
    label = f"Weights of {several(len(rows), 'layer')}; the table has the largest."
    yield figure(columns(drawn, label, unit), "Numbers by layer, before packing.", scrolls="Weights by layer")
    largest = sorted(rows, key=lambda row: -row["parameters"])[:_LARGEST]
    body = [
        (code(row["layer"]), row["op"], many(row["parameters"]), percent(row["parameters"] / total)) for row in largest
    ]
    yield table("The layers with the most weights", ("layer", "operator", "numbers", "share"), body, right=(2, 3))


def _of_all(count: int, total: int) -> str:
    return f"{many(count)} numbers, {percent(count / total)}"


SECTION = Section("memory", "What memory does it take?", content)
