"""How long the threads of an inference wait for each other, and where."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from ..runtime.compiled import CompiledModel

RUNS, WORST = 20, 5
"""Inferences that medians are of; phases that are named."""


def waiting(compiled: CompiledModel, arrays: Sequence[np.ndarray], runs: int = RUNS) -> dict[str, Any] | None:
    """Where threads wait: medians of each phase over some inferences.

    Returns:
        ``phases``: how often all threads wait for each other in an inference; ``ms``: all of them; ``idle``: of each
        thread, the caller's first, the share of it that the thread waited; ``worst``: the phases that lose most,
        ``name``, ``ms`` and ``idle_ms`` (of all threads together). None where one thread does everything.
    """
    seen = [compiled.watch(*arrays) for _ in range(runs)]
    if not seen or not seen[0]:
        return None
    times = np.median([[[phase.ms, *phase.busy_ms] for phase in one] for one in seen], axis=0)
    total, idle = times[:, 0].sum(), np.maximum(times[:, :1] - times[:, 1:], 0)
    order = np.argsort(-idle.sum(axis=1), kind="stable")[:WORST]
    return {
        "phases": len(times),
        "ms": round(float(total), 4),
        "idle": [round(float(lost / total), 4) for lost in idle.sum(axis=0)],
        "worst": [
            {"name": seen[0][i].name, "ms": round(float(times[i, 0]), 4), "idle_ms": round(float(idle[i].sum()), 4)}
            for i in order
        ],
    }
