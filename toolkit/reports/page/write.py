"""The report of one bundle: a summary and the sections; written in one go."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ... import artifact
from ...errors import DeployError
from ...progress import NONE, Progress
from ...runtime import bundle as bundles
from ...schema import MapOf, Maybe, Mismatch, Missing, NotEmpty, Nullable, Whole, check
from . import frame
from .facts import Facts
from .gather import gather
from .markup import Markup, tag
from .pieces import many, ms, several, size, tiles
from .sections.table import SECTIONS


def write(
    path: Path,
    destination: Path,
    *,
    image: Path | None = None,
    labels: Path | None = None,
    evaluate: Path | None = None,
    exported: Path | None = None,
    against: Sequence[str] | None = None,
    runs: int = 30,
    threads: int | None = None,
    progress: Progress = NONE,
) -> dict[str, Any]:
    """Measure the bundle at `path` on this machine and write the page to `destination`.

    Args:
        evaluate: labelled pictures, as the command ``evaluate`` takes them, or a .json that it printed.
        exported: a .json that ``export --json`` printed.
        image, labels, against, runs, threads: as for `gather.gather`.

    Returns:
        The document of ``report``: ``report`` is where the page is.

    Raises:
        UsageError: there is no such engine.
        DeployError: the bundle or a file is damaged, an engine that was asked for cannot run, or the page cannot be
            written.
    """
    artifact.require_file(destination)
    told = None if exported is None else _document(exported, _EXPORTED, "export")
    done = evaluate is not None and evaluate.suffix.lower() == ".json" and evaluate.is_file()
    evaluated = _document(evaluate, _EVALUATED, "evaluate") if evaluate is not None and done else None
    with bundles.open(path) as bundle:
        facts = gather(
            bundle,
            image=image,
            labels=labels,
            pictures=None if done else evaluate,
            evaluation=evaluated,
            exported=told,
            against=against,
            runs=runs,
            threads=threads,
            progress=progress,
        )
    progress.stage("write")
    page = render(facts)
    with artifact.atomic_file(destination) as file:
        file.write_text(page, encoding="utf-8")
    return {"report": str(destination), "bundle": str(path), "bytes": len(page.encode())}


def render(facts: Facts) -> str:
    """The page."""
    manifest = facts.manifest
    title = f"{manifest['model']} for {manifest['target']} in {manifest['precision']}"
    answered = [(section, list(section.content(facts))) for section in SECTIONS]
    return frame.page(
        title,
        [tag("h1", manifest["model"]), tag("p", _subtitle(facts)), tiles(_summary(facts))],
        [frame.Part(section.name, section.title, content) for section, content in answered if content],
        facts.when,
    )


def _subtitle(facts: Facts) -> str:
    untrained = "; its weights are random numbers" if facts.untrained else ""
    return f"for {facts.manifest['target']} in {facts.manifest['precision']}, on {facts.machine}{untrained}"


def _summary(facts: Facts) -> list[tuple[Markup | str, str]]:
    """What a reader wants to know first."""
    stages = facts.verified["stages"]
    good = sum(bool(row["ok"]) for row in stages)
    verdict = tag("span", f"{good} of {len(stages)}", class_="ok" if good == len(stages) and stages else "no")
    not_run = len(facts.verified["not_run"])
    rows: list[tuple[Markup | str, str]] = [
        (verdict, "stages agree with the one before" + (f", {not_run} not checked" if not_run else ""))
    ]
    if facts.latency:
        ours = facts.latency[0]["p50_ms"]
        where = " on the simulator" if facts.simulated else ""
        rows += [(ms(ours), f"median latency{where}, {several(facts.batch, 'image')}")]
        if vta := facts.inspected.get("vta"):
            rows += [(ms(vta["ms"]), f"on a {vta['board']}, estimated, without its host")]
        peers = [row for row in facts.latency[1:] if row["p50_ms"] and not facts.simulated]
        if peers:
            best = min(peers, key=lambda row: float(row["p50_ms"]))
            rows.append(
                (f"{ours / best['p50_ms']:.2f}", f"of the time of {best['engine']}, the fastest other engine here")
            )
    else:
        rows.append(("-", "latency: it does not run here"))
    inspected, memory = facts.inspected, facts.manifest["memory"]
    rows += [
        (many(inspected.get("macs")), "multiply-adds"),
        (many(inspected.get("parameters")), "parameters"),
        (size(memory["weights_bytes"]), "packed weights"),
        (size(memory["arena_bytes"]), "activations"),
    ]
    return rows


_EVALUATED = {
    "images": Whole(1),
    "engines": NotEmpty({"engine": str, "top1": float, "top5": Maybe(float), "images_per_second": Maybe(float)}),
    "per_class": Missing([{"class": Whole(), "label": Maybe(str), "images": Whole(), "top1": Nullable(float)}]),
    "confusion": Missing(
        [
            {
                "class": Whole(),
                "label": Maybe(str),
                "predicted": Whole(),
                "predicted_label": Maybe(str),
                "images": Whole(),
            }
        ]
    ),
}
_EXPORTED = {"seconds": MapOf(float)}


def _document(path: Path, schema: Mapping[str, Any], command: str) -> Mapping[str, Any]:
    """A JSON file that one of our commands printed."""
    allowed = f"what `{command} --json` printed"
    try:
        found: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        check(found, schema)
    except OSError as error:
        message = f"{path} cannot be read: {error.strerror}"
        raise DeployError(message, kind="report", got=str(path), allowed=allowed) from error
    except (Mismatch, ValueError, RecursionError) as error:
        message = f"{path} is not {allowed}: {error}"
        raise DeployError(message, kind="report", got=str(path), allowed=allowed) from error
    return found
