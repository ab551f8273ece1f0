"""`inspect`: what is inside a bundle or an ONNX file."""

from __future__ import annotations

import argparse
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from inception_deploy.progress import Progress

from .base import Command, Outcome, Show, add_threads, line, sequence, table

_SLOWEST = 25


def _arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", type=Path, metavar="BUNDLE|MODEL.onnx", help="a bundle folder or .zip, or an ONNX file")
    add_threads(parser)


def _execute(options: argparse.Namespace, progress: Progress) -> Outcome:
    from inception_deploy import inspect

    document = inspect(options.path, threads=options.threads, progress=progress)
    shows = [_summary(document), line("")]
    if document["layers"] is None:
        shows.append(line(f"operators and branches: {document['not_read']}"))
    else:
        shows += [_operators(document), line(""), _branches(document)]
    if document["kind"] == "bundle":
        shows += [
            line(""),
            _passes(document),
            line(""),
            _kernels(document),
            line(""),
            _steps(document),
            line(""),
            _refusals(document),
        ]
        if document["vta"] is not None:
            shows += [line(""), *_accelerated(document["vta"])]
    return Outcome(document, sequence(*shows))


def _summary(document: dict[str, Any]) -> Show:
    rows = [
        ("model", document["model"]),
        ("weights, batch norms folded in", f"{document['parameters']:,}"),
        ("multiply-adds", f"{document['macs'] / 1e9:.4f} G"),
    ]
    if document["peak_bytes"] is not None:
        rows.append(("activations at their peak, unfused", _megabytes(document["peak_bytes"])))
    if document["kind"] == "bundle":
        rows += [
            ("target", f"{document['target']}, {document['precision']}"),
            *([("computes", document["arithmetic"])] if document["arithmetic"] else []),
            ("arena of the compiled model", _megabytes(document["memory"]["arena_bytes"])),
            ("its weights", _megabytes(document["memory"]["weights_bytes"])),
            *_several(document["plans"], document["memory"]),
            *_quantized(document["quantization"]),
            ("kernel calls", str(len(document["steps"]))),
            ("tuned", _tuned(document["tuning"])),
            *_waiting(document.get("waiting")),
        ]
    return table(("", ""), rows)


def _several(plans: list[dict[str, Any]], memory: dict[str, Any]) -> list[tuple[str, str]]:
    """What a bundle of several plans says of them."""
    if not plans:
        return []
    shared, own = memory.get("shared_bytes", 0), memory["weights_bytes"] - memory.get("shared_bytes", 0)
    rows = [("weights that all plans share", f"{_megabytes(shared)}; {own:,} bytes are not of all")]
    for plan in plans:
        rows.append((f"arena of the plan for {plan['batch']} images", _megabytes(plan["memory"]["arena_bytes"])))
    return rows


_NAMED = 8


def _quantized(how: dict[str, Any] | None) -> list[tuple[str, str]]:
    """What an int8 bundle says of its integers."""
    if how is None:
        return []
    floats = ", ".join(how["float_nodes"]) or "nothing"
    known = how.get("scheme") is not None
    scheme = f"{how['scheme']}, calibrated on {how['images']} pictures" if known else "that of the file"
    share = f"{how['integer_macs_percent']:g} % of the multiply-adds" if "integer_macs_percent" in how else "not known"
    wide = how.get("sixteen_bit", [])
    bits = [("of 16 bits", ", ".join(wide[:_NAMED]) + f", and {len(wide) - _NAMED} more" * (len(wide) > _NAMED))]
    return [("scheme", scheme), ("in integers", share), *(bits if wide else []), ("in float", floats)]


def _waiting(found: dict[str, Any] | None) -> list[tuple[str, str]]:
    """How long each thread waits for the others, and where most."""
    if found is None:
        return []
    shares = ", ".join(f"{100 * share:.1f} %" for share in found["idle"])
    worst = found["worst"][0]
    where = f"most at {worst['name']}, {worst['idle_ms']:.3f} ms"
    return [("threads wait", f"{shares} of {found['ms']:.2f} ms in {found['phases']} phases; {where}")]


def _tuned(tuning: dict[str, Any] | None) -> str:
    """Which database decided how many kernels."""
    if tuning is None:
        return "no"
    if "shipped" in tuning:
        return f"{len(tuning['kernels'])} kernels from the records shipped for {tuning['shipped']}"
    return f"{len(tuning['kernels'])} kernels from the database {tuning['database_sha256'][:12]}"


def _operators(document: dict[str, Any]) -> Show:
    macs: dict[str, int] = {}
    for layer in document["layers"]:
        macs[layer["op"]] = macs.get(layer["op"], 0) + layer["macs"]
    rows = [(op, count, f"{macs[op] / 1e6:,.1f}") for op, count in document["nodes"].items()]
    return table(("ONNX operator", "nodes", "MMACs"), rows, right=(1, 2))


def _branches(document: dict[str, Any]) -> Show:
    if not document["branches"]:
        return line("no branches")
    scaled = any(row.get("scales") for row in document["branches"])
    rows = [
        (row["node"], row["op"], len(row["paths"]), " | ".join(f"{path['macs'] / 1e6:.1f}" for path in row["paths"]),
         *([_scales(row["scales"])] if scaled else []))
        for row in document["branches"]
    ]  # fmt: skip
    columns = ("branches join at", "by", "paths", "MMACs of each", *(["int8 scales of its inputs"] if scaled else []))
    return table(columns, rows, right=(2,))


def _scales(scales: list[float | None]) -> str | None:
    """One scale of all that are joined, or what lies between them."""
    known = [scale for scale in scales if scale]
    if len(known) < len(scales) or not known:
        return None
    if len(set(known)) == 1:
        return f"one, {known[0]:.4g}"
    ratio = math.log2(max(known) / min(known))
    apart = f"2^{ratio:.0f}" if ratio == round(ratio) else f"{2**ratio:.3g}"
    return f"{', '.join(f'{scale:.4g}' for scale in known)}: {apart} apart"


def _passes(document: dict[str, Any]) -> Show:
    """The graph passes that changed something."""
    rows = [
        (row["name"], row["fired"], f"{row['nodes_before']} to {row['nodes_after']}",
         f"{row['other_ops_before'] / 1e6:.1f} to {row['other_ops_after'] / 1e6:.1f}")
        for row in document["passes"]
    ]  # fmt: skip
    columns = ("graph pass", "times", "nodes", "M operations beside MACs")
    return table(columns, rows, right=(1, 2, 3)) if rows else line("no graph pass changed anything")


def _kernels(document: dict[str, Any]) -> Show:
    """Whose kernels compute the steps, and why those that would have been preferred do not."""
    counts = Counter((step.get("family") or "", tuple(step.get("refused", {}).items())) for step in document["steps"])
    rows = [
        (family, count, "; ".join(f"{name}: {reason}" for name, reason in refused) or None)
        for (family, refused), count in sorted(counts.items())
        if family
    ]
    return table(("kernels of", "calls", "preferred, but"), rows, right=(1,)) if rows else line("")


def _steps(document: dict[str, Any]) -> Show:
    if "not_run" in document:
        return line(f"not timed: {document['not_run']}")
    steps = sorted(document["steps"], key=lambda step: -step["ms"])[:_SLOWEST]
    where = {row["value"]: row for row in document["placement"]}
    rows = []
    for step in steps:
        place = where.get(step["output"])
        rate = f"{step['macs'] / step['ms'] / 1e6:.1f}" if step["macs"] and step["ms"] else "-"
        share = f"{100 * step['share']:.1f} %"
        lies = f"{place['offset'] / 1e3:.0f}+{place['bytes'] / 1e3:.0f}" if place else "-"
        rows.append(
            (step["layer"], step["op"], f"{step['macs'] / 1e6:.1f}", f"{step['ms']:.3f}", share, rate,
             lies, place["shares"] if place else None)
        )  # fmt: skip
    columns = ("slowest steps", "op", "MMACs", "ms", "share", "GMAC/s", "arena kB", "written into")
    return table(columns, rows, right=(2, 3, 4, 5, 6))


def _refusals(document: dict[str, Any]) -> Show:
    if not document["refusals"]:
        return line("every operator has a kernel of ours")
    rows = [(row["node"], row["op"], f"{100 * row['share']:.1f} %", row["reason"]) for row in document["refusals"]]
    return table(("on TVM's default", "op", "share", "reason"), rows, right=(2,))


def _accelerated(vta: dict[str, Any]) -> list[Show]:
    """A VTA's share, and an estimate of its time."""
    board, mhz = vta["board"], vta["cycles"] / vta["ms"] / 1e3
    rate = vta["frames_per_second"]
    stalls = ", ".join(
        f"{row['engine']} {row['cause']} {row['cycles']:,}" for row in vta["stalls"] if row["engine"] == "compute"
    )
    rows = [
        ("on the VTA", f"{vta['macs_percent']:g} % of the multiply-adds, in {len(vta['steps'])} steps"),
        ("streams", f"{vta['streams']} of {vta['instructions']:,} instructions"),
        (f"estimate for {board}", f"{vta['ms']:.2f} ms at {mhz:g} MHz, {rate:.1f} frames/s, without its host"),
        ("GEMM utilisation", f"{100 * vta['gemm_utilization']:.1f} %"),
        ("cycles", f"{vta['cycles']:,}, {vta['cycles'] / max(1, vta['bound']):.3f} of what the layers take at least"),
        ("compute waits, cycles", stalls or "never"),
        ("moved", ", ".join(f"{name} {_megabytes(count)}" for name, count in vta["moved"].items())),
        ("of which must be", _megabytes(vta["compulsory"])),
    ]
    slowest = sorted(vta["steps"], key=lambda row: -row["cycles"])[:_SLOWEST]
    steps = [
        (
            row["name"],
            row["op"],
            f"{row['macs'] / 1e6:.1f}",
            f"{row['cycles']:,}",
            f"{row['bound']:,}",
            f"{row['cycles'] / mhz / 1e3:.3f}",
        )
        for row in slowest
    ]
    shows = [
        table(("", ""), rows),
        line(""),
        table(("slowest on the VTA", "op", "MMACs", "cycles", "at least", "estimated ms"), steps, right=(2, 3, 4, 5)),
    ]
    if vta["kept"]:
        kept = [(row["node"], row["op"], row["reason"]) for row in vta["kept"]]
        shows += [line(""), table(("stays on the host", "op", "reason"), kept)]
    if vta["compared"]:
        columns = ("depthwise and grouped", "op", "VTA", "host", "handed over", "done by")
        found = [
            (row["node"], row["op"], *(f"{row[part]:.3f}" for part in ("vta", "host", "crossing")), _who(row))
            for row in vta["compared"]
        ]
        shows += [line(""), table(columns, found, right=(2, 3, 4)), line("all in ms, estimated")]
    if vta["siblings"]:
        families = [
            (_family(row["nodes"]), f"{row['apart']:.3f}", _milliseconds(row["together"]), row["reason"] or "as one")
            for row in vta["siblings"]
        ]
        titles = ("convolutions of the same pixels", "apart", "as one", "done")
        shows += [line(""), table(titles, families, right=(1, 2)), line("in ms, estimated")]
    return shows


def _family(nodes: Sequence[str]) -> str:
    return nodes[0] if len(nodes) == 1 else f"{nodes[0]} and {len(nodes) - 1} more"


def _milliseconds(count: float | None) -> str:
    return "-" if count is None else f"{count:.3f}"


def _who(compared: dict[str, Any]) -> str:
    return "VTA" if compared["device"] == "vta" else "host"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.2f} MB"


COMMAND = Command(
    "inspect",
    "show a network's branches, work, memory, placement and time per layer",
    "inception-deploy inspect irv2-cpu\ninception-deploy inspect model.onnx --json",
    _arguments,
    _execute,
)
