"""What int8 costs: the scheme, the error by layer, ranges and clipping, and what stayed in float."""

from __future__ import annotations

from collections.abc import Iterable

from ..facts import Facts, Range
from ..markup import Markup, tag
from ..pictures.columns import columns, errors
from ..pieces import code, figure, folded, heading, note, paragraph, percent, several, table
from .base import Section

_WORST = 10


def content(facts: Facts) -> Iterable[Markup]:
    """See `Section.content`."""
    quantization = facts.manifest.get("quantization")
    if not quantization:
        return
    scheme, images = quantization.get("scheme"), quantization.get("images", 0)
    if scheme:
        repairs = ", ".join(map(str, quantization.get("repairs") or ())) or "none"
        yield paragraph(
            f"Scheme {scheme}, ranges by {quantization.get('method')} from {several(images, 'picture')} of "
            f"calibration, repairs: {repairs}."
        )
    else:
        yield paragraph("The file came quantized: how it was calibrated is not known.")
    tried = quantization.get("candidates") or ()
    if tried:
        held = several(quantization.get("held_back") or 0, "picture")
        rows = [(one["candidate"], f"{one['sqnr_db']:.1f}", "kept" if one["kept"] else "") for one in tried]
        caption = f"What was tried, one change at a time, measured on {held} held back"
        yield table(caption, ("candidate", "SQNR at the outputs, dB", ""), rows, right=(1,))
    if "integer_macs_percent" in quantization:
        yield paragraph(f"{quantization['integer_macs_percent']:g} % of the multiply-adds compute in integers.")
    yield from _errors(facts)
    yield from _ranges(facts)
    yield from _sixteen(facts)
    yield from _floats(facts)


def _errors(facts: Facts) -> Iterable[Markup]:
    yield heading("Error by layer")
    if not facts.errors:
        yield note(f"It was not measured: {facts.missing.get('errors', 'no layer computes in integers')}.")
        return
    fall = f"The first lasting fall is at {facts.first_fall}." if facts.first_fall else "No layer falls for good."
    yield paragraph(
        f"Signal over quantization noise against the float network, measured here on: {', '.join(facts.judged_on)}. "
        f"{fall}"
    )
    rows = [
        (row["layer"], row["sqnr_db"], row["own_db"], f"{row['sqnr_db']:.1f} dB so far, {row['own_db']:.1f} dB alone")
        for row in facts.errors
    ]
    label = f"SQNR of {several(len(rows), 'layer')}. {fall} The table has the numbers."
    told = (
        "Line: each layer's result with all that went wrong before it. Rings: the layer alone, on the float "
        "network's inputs. Higher is better; 6 dB are a bit."
    )
    yield figure(errors(rows, facts.first_fall, label), told, scrolls="Error by layer")
    body = [
        (code(row["layer"]), row["op"], f"{row['sqnr_db']:.1f}", f"{row['own_db']:.1f}",
         "-" if row["before_db"] is None else f"{row['before_db']:.1f}", f"{row['cosine']:.6f}",
         "falls here" if row["layer"] == facts.first_fall else "")
        for row in facts.errors
    ]  # fmt: skip
    names = ("layer", "operator", "dB so far", "dB alone", "its inputs", "cosine", "")
    yield folded(f"All {several(len(body), 'layer')}", table("Error by layer", names, body, right=(2, 3, 4, 5)))


def _ranges(facts: Facts) -> Iterable[Markup]:
    if not facts.ranges:
        return
    yield heading("Ranges and clipping")
    looked = [one for one in facts.ranges if one.clipped is not None]
    if looked:
        cut = [one for one in looked if one.clipped]
        yield paragraph(
            f"Of {several(len(looked), 'tensor')}, {len(cut)} hold values that their integers cannot, on the same "
            "input; those are clipped."
        )
        drawn = [(one.tensor, 100 * (one.clipped or 0), _told(one)) for one in looked]
        if cut:
            yield figure(
                columns(drawn, f"Clipped values of {several(len(looked), 'tensor')}", "% clipped", "tensors"),
                "Values outside of the range, in percent of the tensor.",
                scrolls="Clipped values",
            )
            worst = sorted(cut, key=lambda one: -(one.clipped or 0))[:_WORST]
            yield table("The tensors that are clipped most", _COLUMNS, map(_row, worst), right=_RIGHT)
    yield folded(
        f"All {several(len(facts.ranges), 'tensor')}",
        table("Ranges of quantized tensors", _COLUMNS, map(_row, facts.ranges), right=_RIGHT),
    )


_COLUMNS = ("tensor", "type", "scale", "zero point", "holds", "held", "clipped")
_RIGHT = (2, 3, 4, 5, 6)


def _row(one: Range) -> tuple[Markup | str, ...]:
    held = "-" if one.least is None else f"{one.least:.3g} to {one.most:.3g}"
    return (
        code(one.tensor), one.dtype, f"{one.scale:.4g}", str(one.zero), f"{one.low:.3g} to {one.high:.3g}", held,
        "-" if one.clipped is None else f"{100 * one.clipped:.3f} %",
    )  # fmt: skip


def _told(one: Range) -> str:
    return (
        f"holds {one.low:.3g} to {one.high:.3g}, held {one.least:.3g} to {one.most:.3g}, {percent(one.clipped)} clipped"
    )


def _sixteen(facts: Facts) -> Iterable[Markup]:
    if names := facts.manifest["quantization"].get("sixteen_bit"):
        yield heading("Tensors of 16 bits")
        yield paragraph(", ".join(names))


def _floats(facts: Facts) -> Iterable[Markup]:
    yield heading("What stayed in float")
    quantization = facts.manifest["quantization"]
    floats = quantization.get("floats") or ()
    if floats:
        body = [(code(row["node"]), row["op"], f"{row['percent']:g} %", row["reason"]) for row in floats]
        yield table("Nodes that compute in float32", ("node", "operator", "of the MACs", "why"), body, right=(2,))
    elif quantization.get("float_nodes"):
        yield paragraph("Without a reason in the manifest: ", ", ".join(quantization["float_nodes"]))
    else:
        yield paragraph("Nothing.")
    steps = quantization.get("steps") or ()
    if len(steps) > 1:
        rounds = [
            (i + 1, len(step.get("wide_layers", ())), len(step["float_layers"]), f"{step['drop_points']:+.2f}")
            for i, step in enumerate(steps)
        ]
        caption = "Rounds of the accuracy gate, which gave layers 16 bits, or took them back to float"
        heads = ("round", "layers of 16 bits", "layers in float", "points lost")
        yield table(caption, heads, rounds, right=(0, 1, 2, 3))
    if quantization.get("drop_points") is not None:
        yield note("Points of top-1 lost in the end: ", tag("b", f"{quantization['drop_points']:+.2f}"), ".")


SECTION = Section("int8", "What does int8 cost?", content)
