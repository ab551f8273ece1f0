"""Does it work: every stage against the one before it, a photo, and accuracy where it was measured."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from .... import judge
from ..facts import Facts, Photo
from ..markup import Child, Markup, tag
from ..pieces import bar, code, figure, folded, heading, many, mark, note, paragraph, percent, table
from .base import Section

_MATRIX = 20
"""Classes of a confusion matrix that a page has room for."""


def content(facts: Facts) -> Iterable[Markup]:
    """See `Section.content`."""
    yield from _stages(facts)
    yield heading("A photo")
    if facts.photo:
        yield _photo(facts.photo, facts)
    else:
        yield note(f"None was classified: {facts.missing.get('photo', 'it cannot run here')}.")
    yield from _accuracy(facts)


def _stages(facts: Facts) -> Iterable[Markup]:
    rows: list[Sequence[Child]] = []
    for row in facts.verified["stages"]:
        noise = row.get("noise")
        allowed = row.get("allowed", row["tolerance"])
        by, stage = row.get("criterion", "fixed"), judge.named(row)
        rows.append(
            (stage, row["reference"], _real(row["max_abs"]), _real(row["max_rel"]), f"{_real(allowed)} ({by})",
             "not needed" if noise is None else _real(noise), _real(row["cosine"], 6),
             mark(row["top5_same"], "yes", "no"), ", ".join(row.get("inputs") or ()) or "-", mark(row["ok"]))
        )  # fmt: skip
    if not rows:
        yield paragraph("Nothing was checked: exported with ", tag("code", "--no-verify"), ".")
    else:
        yield paragraph(
            "At export, each stage was compared with the one before it. An error above the fixed tolerance is let "
            "through only where the noise of rounding, measured on the network itself, explains it."
        )
        columns = (
            "stage",
            "against",
            "max abs",
            "max rel",
            "allowed",
            "noise",
            "cosine",
            "same top-5",
            "inputs",
            "verdict",
        )
        yield table("Stages checked at export", columns, rows, right=(2, 3, 4, 5, 6))
    yield from (note(told) for told in map(judge.note, facts.verified["stages"]) if told)
    yield from (note(f"{entry['stage']}: not checked: {entry['reason']}") for entry in facts.verified["not_run"])


def _real(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}g}"


def _photo(photo: Photo, facts: Facts) -> Markup:
    source = f"data:image/jpeg;base64,{base64.b64encode(photo.jpeg).decode()}"
    image = tag("img", src=source, alt=f"The classified picture, {photo.name}", loading="lazy")
    rows = [(f"{guess.label}", guess.index, percent(guess.score), bar(guess.score or 0)) for guess in photo.guesses]
    told: list[Child] = []
    if facts.untrained:
        told.append(note("The weights are random numbers, so these classes mean nothing."))
    elif not photo.own:
        told.append(note("It is the photo that every export is checked on; --image shows the network another one."))
    if rows:
        told.append(table("The best classes", ("class", "number", "probability", ""), rows, right=(1, 2)))
    else:
        told.append(note("The output is not a row of classes."))
    caption = photo.name if photo.own else f"{photo.name} by danielbuechele, CC BY 2.0"
    return tag("div", figure(image, caption), tag("div", told), class_="beside")


def _accuracy(facts: Facts) -> Iterable[Markup]:
    yield heading("Accuracy")
    document = facts.evaluation
    gate = (facts.manifest.get("quantization") or {}).get("top1")
    if gate:
        lost = gate["fp32"] - gate["int8"]
        rows = [("fp32", f"{gate['fp32']:.2f} %"), ("int8", f"{gate['int8']:.2f} %"), ("lost", f"{lost:+.2f} points")]
        yield table(
            f"Top-1 on {gate['images']} labelled pictures, measured at export", ("network", "top-1"), rows, right=(1,)
        )
    if document:
        yield from _evaluated(document)
    elif not gate:
        yield note("It was not measured: no labelled pictures were given (", code("report --evaluate DIR"), ").")


def _evaluated(document: Mapping[str, Any]) -> Iterable[Markup]:
    rows = [
        (row["engine"], _points(row["top1"]), _points(row.get("top5")), many(row.get("images_per_second")))
        for row in document["engines"]
    ]
    columns = ("engine", "top-1", "top-5", "pictures / s")
    yield table(f"Accuracy on {document['images']} labelled pictures", columns, rows, right=(1, 2, 3))
    first = document["engines"][0]["engine"]
    classes = document.get("per_class", ())
    pairs = document.get("confusion", ())
    named = {row["class"] for row in classes} | {row["predicted"] for row in pairs}
    if len(classes) > 1 and len(named) <= _MATRIX:
        yield _matrix(classes, pairs, first)
    elif pairs:
        worst = [(_name(row), _name(row, "predicted"), row["images"]) for row in pairs[:_MATRIX]]
        caption = f"The most frequent confusions of {first}"
        yield table(caption, ("true class", "taken for", "pictures"), worst, right=(2,))
    if classes:
        each = [(_name(row), row["images"], _points(row["top1"])) for row in classes]
        caption = f"Accuracy by class, {first}"
        yield folded("Accuracy by class", table(caption, ("class", "pictures", "top-1"), each, right=(1, 2)))


def _name(row: Mapping[str, Any], what: str = "class") -> str:
    label = row.get("label" if what == "class" else f"{what}_label")
    return str(row[what]) if label is None else str(label)


def _points(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f} %"


def _matrix(classes: Sequence[Mapping[str, Any]], pairs: Sequence[Mapping[str, Any]], engine: str) -> Markup:
    """Of few classes: a row for each that was shown, a column for each that was shown or named."""
    names = {row["class"]: _name(row) for row in classes}
    names |= {row["predicted"]: _name(row, "predicted") for row in pairs}
    order = sorted(names)
    wrong = {(row["class"], row["predicted"]): row["images"] for row in pairs}
    rows: list[Sequence[Child]] = []
    for row in classes:
        true = row["class"]
        lost = sum(count for (wanted, _), count in wrong.items() if wanted == true)
        cells: list[Child] = [wrong.get((true, other), 0) for other in order]
        cells[order.index(true)] = tag("b", row["images"] - lost)
        rows.append((_name(row), *cells))
    caption = f"Confusion, {engine}: a row for each true class, a column for what it was taken for"
    columns = ("true class", *(names[other] for other in order))
    return table(caption, columns, rows, right=range(1, len(columns)))


SECTION = Section("works", "Does it work?", content)
