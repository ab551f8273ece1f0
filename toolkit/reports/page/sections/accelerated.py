"""What a VTA does of the network, and an estimate of how long: against its bound, by layer, over time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..facts import Facts
from ..markup import Markup
from ..pictures.timeline import timeline
from ..pieces import bar, figure, heading, ms, note, paragraph, percent, several, size, table, tiles
from .base import Section


def content(facts: Facts) -> Iterable[Markup]:
    """See `Section.content`."""
    vta = facts.inspected.get("vta")
    if vta is None:
        return
    least = max(1, vta["bound"])
    mhz = vta["cycles"] / max(vta["ms"], 1e-9) / 1e3
    yield paragraph(
        f"{vta['macs_percent']:g} % of the multiply-adds are done by the VTA, in {several(len(vta['steps']), 'step')} "
        f"of {several(vta['streams'], 'stream')}, {vta['instructions']:,} instructions. The times below are an "
        f"estimate of a cycle model for {vta['board']} at {mhz:g} MHz, without its host; no board was asked."
    )
    yield tiles(
        [
            (ms(vta["ms"]), f"estimated on {vta['board']}"),
            (f"{vta['frames_per_second']:,.0f}" if vta["frames_per_second"] else "-", "frames a second, estimated"),
            (f"{vta['cycles'] / least:.3f}", "cycles over what the layers take at least"),
            (percent(vta["gemm_utilization"]), "of the cycles GEMM multiplies"),
        ]
    )
    yield heading("Over time")
    caption = "How busy each engine is, from the first instruction to the last; darker is busier."
    yield figure(timeline(vta["timeline"], vta["ms"]), caption, scrolls="Timeline of the engines")
    yield heading("Layer by layer")
    yield _steps(vta, mhz)
    yield note(
        "At least: the larger of GEMM's steps with the leanest epilogue, and the bytes that must be moved over the "
        "bus. A layer may take less than that where its inputs are loaded while the one before it computes."
    )
    yield heading("Waiting and moving")
    rows = [(f"{row['engine']} waits for {row['cause']}", f"{row['cycles']:,}", percent(row["cycles"] / vta["cycles"]))
            for row in vta["stalls"]]  # fmt: skip
    yield table("Cycles in which an engine waited", ("", "cycles", "of all"), rows, right=(1, 2))
    moved = [(name, size(count)) for name, count in vta["moved"].items()]
    total = ("together", size(sum(vta["moved"].values())))
    yield table("Bytes moved, by memory", ("", ""), [*moved, total, ("of which must be", size(vta["compulsory"]))],
                right=(1,))  # fmt: skip
    if vta["kept"]:
        yield heading("What stays on the host")
        kept = [(row["node"], row["op"], row["reason"]) for row in vta["kept"]]
        yield table("Quantized layers that the host computes", ("layer", "operator", "why"), kept)
    if vta["compared"]:
        yield heading("The VTA or its host")
        both = [
            (row["node"], row["op"], *(ms(row[part]) for part in ("vta", "host", "crossing")),
             "VTA" if row["device"] == "vta" else "host")
            for row in vta["compared"]
        ]  # fmt: skip
        columns = ("layer", "operator", "VTA", "host", "handed over", "done by")
        yield table("Depthwise and grouped convolutions, estimated", columns, both, right=(2, 3, 4))
    if vta["siblings"]:
        yield heading("One step or several")
        families = [
            (", ".join(row["nodes"]), ms(row["apart"]), "-" if row["together"] is None else ms(row["together"]),
             row["reason"] or "as one")
            for row in vta["siblings"]
        ]  # fmt: skip
        titles = ("layers", "apart", "as one", "done")
        yield table("Convolutions of the same pixels, estimated", titles, families, right=(1, 2))


def _steps(vta: Mapping[str, Any], mhz: float) -> Markup:
    slowest = max((row["cycles"] for row in vta["steps"]), default=1) or 1
    rows = [
        (row["name"], row["op"], f"{row['macs'] / 1e6:.1f}", f"{row['cycles']:,}", bar(row["cycles"] / slowest),
         f"{row['bound']:,}", f"{row['cycles'] / max(1, row['bound']):.2f}", ms(row["cycles"] / mhz / 1e3))
        for row in vta["steps"]
    ]  # fmt: skip
    columns = ("layer", "operator", "million multiply-adds", "cycles", "", "at least", "ratio", "estimated")
    return table("Steps of the VTA", columns, rows, right=(2, 3, 5, 6, 7))


SECTION = Section("vta", "What does the accelerator do?", content)
