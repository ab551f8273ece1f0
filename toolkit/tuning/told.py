"""The document of `tune`: a row for each task, and what all of it came to."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ..errors import DeployError
from .task import Task
from .tuned import Better


def row(task: Task, best: Better | None, kept: Collection[str], default_ms: float, choices: int) -> dict[str, Any]:
    """What became of a task.

    Args:
        best: what beats its default. kept: the keys of the tasks that the network takes it for.
        default_ms: of one layer, by default. choices: that were tried.
    """
    return {
        "task": str(task),
        "count": task.count,
        "default_ms": round(default_ms, 4),
        "share": task.count * default_ms,  # of the whole, as soon as that is known
        "ratio": 1.0 if best is None else round(best.ratio, 4),
        "choices": choices,
        "kept": task.key in kept,
    }


def document(
    rows: list[dict[str, Any]], trials: int, better: int, kept: int, before_ms: float, after_ms: float, measured: str
) -> dict[str, Any]:
    """All of it.

    Args:
        measured: what the milliseconds are of: ``network`` or ``tasks``; ``model``: of the network, and an estimate.
    """
    total = sum(each["share"] for each in rows)
    return {
        "tasks": len(rows),
        "trials": trials,
        "better": better,
        "kept": kept,
        "before_ms": round(before_ms, 4),
        "after_ms": round(after_ms, 4),
        "measured": measured,
        "layers": [{**each, "share": round(each["share"] / total, 4)} for each in rows],
    }


def nothing(model: str) -> DeployError:
    """There is no layer with knobs."""
    return DeployError(f"{model} has no layer that can be tuned", kind="tune", got=model)
