"""`compare` as a page: bundles beside each other, from the command's document alone; nothing is measured here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Any

from ... import artifact
from . import frame
from .markup import Child, Markup, tag
from .pictures.intervals import Row, intervals
from .pieces import bar, code, figure, folded, mark, ms, note, paragraph, percent, several, size, table, tiles


def write(document: Mapping[str, Any], destination: Path) -> None:
    """Write the page of a comparison that was just measured.

    Args:
        document: of ``compare``.

    Raises:
        DeployError: it cannot be written there.
    """
    when = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    with artifact.atomic_file(destination) as file:
        file.write_text(render(document, when), encoding="utf-8")


def render(document: Mapping[str, Any], when: str) -> str:
    """The page.

    Args:
        document: of ``compare``.
        when: it was measured.
    """
    names = short([row["bundle"] for row in document["bundles"]])
    parts = [
        frame.Part(name, title, list(content(document, names)))
        for name, title, content in (
            ("agree", "Do they give the same?", _agree),
            ("speed", "How fast is each?", _speed),
            ("accuracy", "How accurate is each?", _accuracy),
            ("size", "What does each take?", _sizes),
            ("made", "What is different about them?", _made),
        )
    ]
    count = len(document["bundles"])
    first = names[document["bundles"][0]["bundle"]]
    second = names[document["bundles"][1]["bundle"]]
    title = f"{first} and {second if count == 2 else f'{count - 1} others'}"
    subtitle = f"{count} bundles on {document['machine']}; the first is what the others are held against"
    top = [tag("h1", title), tag("p", subtitle), tiles(_summary(document, names))]
    return frame.page(f"Comparison: {title}", top, parts, when)


def short(paths: Sequence[str]) -> dict[str, str]:
    """A name for each path: its last part, with as much before it as tells it from the others."""
    parts = [PurePath(path).parts for path in paths]
    names = {}
    for path, own in zip(paths, parts, strict=True):
        alike = [
            sum(
                1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(reversed(own), reversed(other), strict=False))
            )
            for other in parts
            if other != own
        ]
        names[path] = str(PurePath(*own[-1 - max(alike, default=0) :]))
    return names


def _against(document: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The pairs with the first bundle."""
    rows: list[Mapping[str, Any]] = document["pairs"][: len(document["bundles"]) - 1]
    return rows


def _summary(document: Mapping[str, Any], names: Mapping[str, str]) -> list[tuple[Child, Child]]:
    """What a reader wants to know first."""
    rows: list[tuple[Child, Child]] = []
    if document["conditions"]:
        held = len(document["failed"])
        verdict = mark(not held, "passed", "failed")
        rows.append(
            (verdict, several(len(document["conditions"]), "condition") + (f", {held} of them held" if held else ""))
        )
    first = names[document["bundles"][0]["bundle"]]
    for pair in _against(document)[:3]:
        who = names[pair["b"]] if len(document["bundles"]) > 2 else ""
        for key, what in (("ratio_p50", "time"), ("ratio_bytes", "size")):
            if pair[key] is not None:
                rows.append((f"{pair[key]:.2f}", f"of the {what} of {first}" + (f": {who}" if who else "")))
        if pair["same_top1"] is not None:
            rows.append((percent(pair["same_top1"]), "the same best class" + (f": {who}" if who else "")))
        if pair["drop_points"] is not None:
            rows.append((f"{pair['drop_points']:+.2f}", "points of top-1 lost" + (f": {who}" if who else "")))
    return rows


def _agree(document: Mapping[str, Any], names: Mapping[str, str]) -> Iterable[Markup]:
    seen = document["inputs"]
    yield paragraph(f"All were shown the same {several(seen['count'], 'input')}: {seen['source']}.")
    rows: list[Sequence[Child]] = [
        (names[pair["b"]], names[pair["a"]], _real(pair["max_abs"]), _real(pair["max_rel"]), _real(pair["cosine"], 9),
         percent(pair["same_top1"]))
        for pair in document["pairs"] if pair["not_compared"] is None
    ]  # fmt: skip
    columns = ("bundle", "against", "largest difference", "relative", "cosine", "same best class")
    if rows:
        yield table("The first outputs, pair by pair", columns, rows, right=(2, 3, 4, 5))
        yield note("Relative is to the largest output of the one that it is held against.")
    for pair in document["pairs"]:
        if pair["not_compared"]:
            yield note(f"{names[pair['b']]} and {names[pair['a']]} were not compared: {pair['not_compared']}.")
    for row in document["bundles"]:
        if row["not_run"]:
            yield note(f"{names[row['bundle']]} does not run here, its outputs are onnxruntime's: {row['not_run']}.")
    for pair in document["pairs"]:
        if pair["apart"]:
            caption = (
                f"Pictures with another best class in {names[pair['b']]} than in {names[pair['a']]}, the first ones"
            )
            body = [(code(row["picture"]), row["a"], row["b"]) for row in pair["apart"]]
            inner = table(caption, ("picture", names[pair["a"]], names[pair["b"]]), body)
            yield folded(f"Where {names[pair['b']]} and {names[pair['a']]} see something else", inner)
    judged = [
        (code(row["expression"]), names[row["bundle"]], _figures(row["values"]),
         mark(not row["holds"], "passed", "failed"))
        for row in document["conditions"]
    ]  # fmt: skip
    if judged:
        caption = "Conditions that were to make the comparison fail (--fail-if)"
        yield table(caption, ("fails if", "bundle", "it has", "verdict"), judged)


def _speed(document: Mapping[str, Any], names: Mapping[str, str]) -> Iterable[Markup]:
    timed = [row for row in document["bundles"] if row["p50_ms"] is not None]
    if not timed:
        yield paragraph("Nothing was timed: no bundle runs on this machine.")
        return
    yield paragraph(
        f"Measured on {document['machine']} with {several(document['threads'], 'thread')} each. The bundles took "
        f"turns, call by call, {several(document['runs'], 'round')}, on the same numbers, so that a change of the "
        "machine's mood meets all of them."
    )
    slowest = max(row["p99_ms"] for row in timed)
    ratios = {pair["b"]: pair["ratio_p50"] for pair in _against(document)}
    rows = [
        (names[row["bundle"]], ms(row["p50_ms"]), bar(row["p50_ms"] / slowest), ms(row["p90_ms"]), ms(row["p99_ms"]),
         ms(row["mean_ms"]), ms(row["sd_ms"]), row["batch"],
         f"{1e3 * row['batch'] / row['p50_ms']:.4g}" if row["p50_ms"] else "-",
         "1" if row is document["bundles"][0] else _real(ratios.get(row["bundle"])))
        for row in timed
    ]  # fmt: skip
    columns = ("bundle", "median", "", "p90", "p99", "mean", "deviation", "batch", "images / s", "time / first's")
    yield table("Latency of one inference", columns, rows, right=(1, 3, 4, 5, 6, 7, 8, 9))
    drawn = [
        Row(
            names[row["bundle"]],
            row["p50_ms"],
            row["p50_ms"],
            row["p99_ms"],
            f"{ms(row['p50_ms'])}, p99 {ms(row['p99_ms'])}",
        )
        for row in timed
    ]
    label = f"Latency of {several(len(drawn), 'bundle')}; the table has the numbers."
    told = "Dots: the median. Lines: to the 99th percentile."
    yield figure(intervals(drawn, label, "ms an inference"), told, scrolls="Latency")
    yield note("The last column is of one image, whatever the batch; the first bundle's is 1.")


def _accuracy(document: Mapping[str, Any], names: Mapping[str, str]) -> Iterable[Markup]:
    known = [row for row in document["bundles"] if row["top1"] is not None]
    if not known:
        why = document["inputs"]["unlabelled"]
        yield paragraph(f"It was not measured: {why}. ", code("--data"), " takes labelled pictures.")
        return
    lost = {pair["b"]: pair["drop_points"] for pair in _against(document)}
    rows = [
        (names[row["bundle"]], f"{row['top1']:.2f} %", "{:.2f} to {:.2f} %".format(*row["top1_interval"]),
         f"{row['top5']:.2f} %", "-" if lost.get(row["bundle"]) is None else f"{lost[row['bundle']]:+.2f}")
        for row in known
    ]  # fmt: skip
    columns = ("bundle", "top-1", "95 % interval", "top-5", "points lost")
    yield table(f"Accuracy on {document['inputs']['count']} labelled pictures", columns, rows, right=(1, 2, 3, 4))
    drawn = []
    for row in known:
        low, high = row["top1_interval"]
        told = f"{row['top1']:.2f} % ({low:.2f} to {high:.2f})"
        drawn.append(Row(names[row["bundle"]], row["top1"], low, high, told))
    low = min(row.low for row in drawn)
    label = f"Top-1 of {several(len(drawn), 'bundle')}; the table has the numbers."
    told = "Dots: top-1. Lines: where it lies at 95 %, by Wilson's score; the same pictures were shown to all."
    ends = (max(0.0, low - 0.1 * (100 - low)), 100.0)
    yield figure(intervals(drawn, label, "top-1, percent", ends=ends), told, scrolls="Accuracy")


def _sizes(document: Mapping[str, Any], names: Mapping[str, str]) -> Iterable[Markup]:
    largest = max(row["bytes"] for row in document["bundles"])
    rows = [
        (names[row["bundle"]], size(row["bytes"]), bar(row["bytes"] / largest), size(row["weights_bytes"]),
         size(row["arena_bytes"]), size(row["memory_bytes"]))
        for row in document["bundles"]
    ]  # fmt: skip
    columns = ("bundle", "bundle, all files", "", "packed weights", "activations", "both, at run time")
    yield table("Bytes", columns, rows, right=(1, 3, 4, 5))


def _made(document: Mapping[str, Any], names: Mapping[str, str]) -> Iterable[Markup]:
    rows = [
        (code(row["what"]), *("-" if value is None else str(value) for value in row["values"]))
        for row in document["differences"]
    ]
    if not rows:
        yield paragraph("Nothing: their manifests say the same.")
        return
    yield paragraph("What their manifests say differently, but for the digests of files and the ranges of tensors.")
    yield table(
        "Entries that are not the same", ("entry", *(names[row["bundle"]] for row in document["bundles"])), rows
    )


def _figures(values: Mapping[str, float | None]) -> str:
    return ", ".join(f"{name} {_real(value)}" for name, value in values.items())


def _real(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}g}"
