"""A bundle as one HTML page: no scripts, nothing loaded from anywhere, every text escaped."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from .. import artifact
from ..progress import NONE, Progress
from ..runtime import bundle as bundles
from . import bench, inspect

_LONGEST = 30


def write(path: Path, destination: Path, *, threads: int | None = None, progress: Progress = NONE) -> dict[str, Any]:
    """Inspect the bundle at `path` on this machine and write the page to `destination`.

    Returns:
        The document of ``report``: ``report`` is where the page is.

    Raises:
        DeployError: the bundle is damaged, or the page cannot be written.
    """
    facts = inspect.inspect(path, threads=threads, progress=progress)
    with bundles.open(path) as bundle:
        page = render(bundle.manifest, bundle.document(bundles.VERIFY), facts)
    with artifact.atomic_file(destination) as file:
        file.write_text(page, encoding="utf-8")
    return {"report": str(destination), "bundle": str(path), "bytes": len(page.encode())}


def render(manifest: Mapping[str, Any], verified: Mapping[str, Any], facts: Mapping[str, Any]) -> str:
    """The page.

    Args:
        manifest: of the bundle.
        verified: its verify.json.
        facts: what `inspect_.inspect` gave for it.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    template = resources.files(__package__).joinpath("data").joinpath("report.html.j2").read_text(encoding="utf-8")
    timed = [step for step in facts["steps"] if step["ms"] is not None]
    return environment.from_string(template).render(
        manifest=manifest,
        verified=verified,
        facts=facts,
        machine=bench.machine(),
        total_ms=sum(step["ms"] for step in timed),
        slowest=sorted(timed, key=lambda step: -step["ms"])[:_LONGEST],
        operators=_by_operator(facts),
    )


def _by_operator(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    """One row an operator: how many steps, their multiply-adds, their time; the slowest first."""
    rows: dict[str, dict[str, Any]] = {}
    for step in facts["steps"]:
        row = rows.setdefault(step["op"], {"op": step["op"], "steps": 0, "macs": 0, "ms": 0.0, "share": 0.0})
        row["steps"] += 1
        row["macs"] += step["macs"]
        row["ms"] += step["ms"] or 0.0
        row["share"] += step["share"] or 0.0
    return sorted(rows.values(), key=lambda row: (-row["ms"], -row["macs"], row["op"]))
