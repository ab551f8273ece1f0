"""How fast: latency beside every peer that is here, what it was measured on, and the seconds of the export."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ....bundles.engines import PEERS
from ..facts import Facts
from ..markup import Markup, tag
from ..pieces import bar, heading, ms, note, paragraph, several, table
from .base import Section


def content(facts: Facts) -> Iterable[Markup]:
    """See `Section.content`."""
    if facts.latency:
        yield from _latency(facts)
    else:
        yield paragraph(f"Nothing was timed: {facts.missing.get('latency', 'it cannot run here')}.")
    yield heading("The export")
    seconds = facts.exported.get("seconds") if facts.exported else None
    if seconds:
        whole = sum(seconds.values()) or 1.0
        rows = [(stage, f"{value:.2f}", bar(value / whole)) for stage, value in seconds.items()]
        yield table(
            "Seconds by stage of the export",
            ("stage", "seconds", ""),
            [*rows, ("together", f"{whole:.2f}", "")],
            right=(1,),
        )
    else:
        yield note(
            "How long it took is not in a bundle, whose bytes are the same on every run: ",
            tag("code", "report --exported FILE.json"), " takes what ", tag("code", "export --json"), " printed.",
        )  # fmt: skip


def _latency(facts: Facts) -> Iterable[Markup]:
    yield paragraph(
        f"Measured on {facts.machine}, {facts.when}, with {several(facts.threads, 'thread')} an engine and "
        f"{several(facts.batch, 'image')} an inference. Engines took turns, run by run, on the same random input, "
        "so that a change of the machine's mood meets all of them."
    )
    yield _table("Latency of one inference", facts.latency, facts.batch)
    for images, rows in facts.plans:
        yield _table(f"Latency of one inference of {several(images, 'image')}", rows, images)
    yield note("Images a second are the batch over the median: one inference after the other, not several at a time.")
    if facts.throughput:
        yield from _throughput(facts.throughput)
    if facts.simulated:
        yield note(f"Of this bundle {facts.simulated}.")
    away = [name for name in PEERS if name in facts.missing]
    if away:
        yield note("Not timed: ", "; ".join(f"{name}: {facts.missing[name]}" for name in away), ".")


def _throughput(measured: Sequence[Mapping[str, Any]]) -> Iterable[Markup]:
    """Several inferences at once."""
    ours = measured[0]["images_per_second"]
    fastest = max(row["images_per_second"] for row in measured) or 1.0
    rows = [
        (
            "this bundle" if row["engine"] == "compiled" else row["engine"],
            f"{row['images_per_second']:.4g}",
            bar(row["images_per_second"] / fastest, "" if row["engine"] == "compiled" else "peer"),
            f"{row['sd']:.2g}", row["rounds"],
            "1" if row["engine"] == "compiled" else f"{ours / row['images_per_second']:.3g}",
        )
        for row in measured
    ]  # fmt: skip
    first = measured[0]
    title = (
        f"Throughput of {several(first['streams'], 'stream')} at once, each with {several(first['threads'], 'thread')} "
        f"and {several(first['batch'], 'image')} an inference"
    )
    yield table(title, ("engine", "images / s", "", "deviation", "rounds", "ours / its"), rows, right=(1, 3, 4, 5))
    yield note(
        "For pictures that wait in a queue: ", tag("code", "bench --streams"), " measures other numbers of streams."
    )


def _table(title: str, measured: Sequence[Mapping[str, Any]], images: int) -> Markup:
    ours = measured[0]["p50_ms"]
    slowest = max(row["p50_ms"] for row in measured) or 1.0
    rows = [
        (
            _what(row),
            ms(row["p50_ms"]), bar(row["p50_ms"] / slowest, "" if row["engine"] == "compiled" else "peer"),
            ms(row["p90_ms"]), ms(row["p99_ms"]), ms(row["mean_ms"]), ms(row["sd_ms"]), row["runs"],
            f"{1e3 * images / row['p50_ms']:.4g}" if row["p50_ms"] else "-",
            "1" if row["engine"] == "compiled" else f"{ours / row['p50_ms']:.3g}" if row["p50_ms"] else "-",
        )
        for row in measured
    ]  # fmt: skip
    columns = ("engine", "median", "", "p90", "p99", "mean", "deviation", "runs", "images / s", "our time / its")
    return table(title, columns, rows, right=(1, 3, 4, 5, 6, 7, 8, 9))


def _what(row: Mapping[str, Any]) -> str:
    """What an engine computed."""
    if row["engine"] == "compiled":
        return "this bundle"
    return f"{row['engine']}, {row.get('onnx') or 'the fp32 module'}"


SECTION = Section("speed", "How fast is it?", content)
