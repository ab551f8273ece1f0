"""What was decided on the way: passes, arithmetic, tuned kernels, refusals, versions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from ..facts import Facts
from ..markup import Child, Markup, tag
from ..pieces import code, folded, heading, many, note, paragraph, percent, several, table
from .base import Section


def content(facts: Facts) -> Iterable[Markup]:
    """See `Section.content`."""
    manifest = facts.manifest
    details = manifest["target_details"]
    yield heading("Precision and arithmetic")
    rows: list[Sequence[Child]] = [
        ("precision", manifest["precision"]),
        ("arithmetic", manifest.get("arithmetic") or "not recorded"),
        ("target", f"{manifest['target']} ({', '.join(f'{k} {v}' for k, v in details.items() if isinstance(v, str))})"),
    ]
    if isinstance(details.get("features"), list):
        rows.append(("it needs", ", ".join(map(str, details["features"]))))
    rows += [("input", _port(port)) for port in manifest["inputs"]] + [
        ("output", _port(port)) for port in manifest["outputs"]
    ]
    yield table("What was compiled, for what", ("", ""), rows)
    yield from _passes(facts)
    yield from _kernels(facts)
    yield from _refusals(facts)
    yield from _prepared(facts)
    yield heading("Versions")
    body = sorted(manifest["tools"].items())
    yield table("Made with", ("tool", "version"), body)
    files = [(code(name), code(digest)) for name, digest in sorted(manifest["files"].items())]
    yield folded(
        f"{several(len(files), 'file')} and their SHA-256", table("Files of the bundle", ("file", "SHA-256"), files)
    )


def _port(port: dict[str, object]) -> str:
    shape = port["shape"]
    sizes = " x ".join(map(str, shape)) if isinstance(shape, list) else ""
    return f"{port['name']}: {port['dtype']} {sizes or 'scalar'}"


def _passes(facts: Facts) -> Iterable[Markup]:
    yield heading("Graph passes")
    rows = [
        (
            code(row.get("name", "?")),
            row.get("fired", "-"),
            _change(row, "nodes"),
            _change(row, "macs"),
            _change(row, "other_ops"),
        )
        for row in facts.manifest.get("passes", ())
    ]
    if rows:
        yield table(
            "Passes that changed the graph",
            ("pass", "times", "nodes", "MACs", "other operations"),
            rows,
            right=(1, 2, 3, 4),
        )
    else:
        yield paragraph("None changed the graph.")


def _change(row: dict[str, float], what: str) -> str:
    before, after = row.get(f"{what}_before"), row.get(f"{what}_after")
    if before is None or after is None:
        return "-"
    return "the same" if before == after else f"{many(before)} to {many(after)}"


def _kernels(facts: Facts) -> Iterable[Markup]:
    yield heading("Kernels")
    steps = facts.plan["steps"]
    families = Counter(step.get("family") or step["op"] for step in steps)
    rows = [(code(name), count) for name, count in families.most_common()]
    yield table(f"Families of the {several(len(steps), 'kernel call')}", ("family", "calls"), rows, right=(1,))
    reasons = Counter((name, why) for step in steps for name, why in (step.get("refused") or {}).items())
    if reasons:
        body = [(code(name), why, count) for (name, why), count in reasons.most_common()]
        caption = "Families that would have been preferred, and why they were not taken"
        yield folded("Why not other families", table(caption, ("family", "why not", "calls"), body, right=(2,)))
    tuning = facts.manifest.get("tuning")
    if not tuning:
        yield note("Nothing was tuned: every kernel has the schedule that its family chooses.")
        return
    taken = several(len(tuning["kernels"]), "kernel")
    shipped = f"records shipped for {tuning['shipped']}" if "shipped" in tuning else "database"
    yield paragraph(f"{taken} as tuned, from the {shipped} with SHA-256 ", code(tuning["database_sha256"]), ".")
    records = [
        (code(row.get("layer") or row.get("kernel") or "?"), f"{row['ratio']:.2f}" if "ratio" in row else "-",
         ", ".join(f"{knob} {value}" for knob, value in (row.get("knobs") or {}).items()))
        for row in tuning["kernels"]
    ]  # fmt: skip
    how = "by the cycle model" if tuning.get("judged") == "modelled" else "as measured"
    caption = f"Tuned kernels: their time over the default's, {how} when they were tuned"
    yield table(caption, ("task", "time", "choice"), records, right=(1,))


def _refusals(facts: Facts) -> Iterable[Markup]:
    yield heading("Operators without a kernel of ours")
    timed = facts.total_ms is not None
    rows = [(code(row["node"]), row["op"], row["reason"], percent(row["share"])) for row in facts.refusals]
    if not rows:
        yield paragraph("None: every operator has one.")
        return
    share = "share of the time" if timed else "share, estimated"
    yield table("They take TVM's default", ("node", "operator", "why", share), rows, right=(3,))


def _prepared(facts: Facts) -> Iterable[Markup]:
    how = facts.manifest["preprocessing"]
    yield heading("How a picture becomes the input")
    steps = how.get("steps") if how else None
    if isinstance(steps, list):
        yield tag("ol", [tag("li", str(step)) for step in steps])
    else:
        yield paragraph("The network takes tensors, not pictures." if how is None else "As the manifest says.")


SECTION = Section("decided", "What was decided?", content)
