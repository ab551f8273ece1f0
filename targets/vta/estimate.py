"""How long the streams of a bundle take on its board: an estimate, from the files of the bundle alone."""

from __future__ import annotations

from collections import Counter
from typing import Any

from inception_deploy.kernels.vta import config as configurations
from inception_deploy.kernels.vta.boards import BOARDS
from inception_deploy.runtime import bundle as bundles

from .bundle import MAP
from .cycles import measure
from .replay import step_cycles

_SIMULATED = "pynq"
"""The board that the simulator of this machine stands for."""


def estimate(opened: bundles.Bundle) -> dict[str, Any] | None:
    """The time of a bundle's streams, without what its host does; None where it has none.

    Returns:
        ``board``, ``estimate`` (True), ``streams``, ``instructions``, ``cycles``, ``ms``, ``frames_per_second``,
        ``gemm_utilization``, ``stalls`` (cycles by engine and cause), ``moved`` (bytes by memory) and ``steps``: name
        and cycles of each.
    """
    if MAP not in opened.manifest["files"]:
        return None
    row = BOARDS[opened.manifest["target_details"]["variant"].partition(":")[0].replace("sim", _SIMULATED)]
    told = opened.document(MAP)
    config = configurations.load(opened.folder / told["configuration"])
    cycles = gemm = instructions = 0
    stalls: Counter[tuple[str, str]] = Counter()
    moved: Counter[str] = Counter()
    steps: list[dict[str, Any]] = []
    for stream in told["streams"]:
        timing = measure((opened.folder / stream["instructions"]).read_bytes(), config, row)
        cycles, gemm = cycles + timing.cycles, gemm + timing.steps["gemm"]
        instructions += stream["count"]
        stalls, moved = stalls + timing.stalls, moved + timing.moved
        steps += [{name: step[name] for name in ("name", "cycles")} for step in step_cycles(stream["steps"], timing)]
    ms = row.milliseconds(cycles)
    return {
        "board": row.name,
        "estimate": True,
        "streams": len(told["streams"]),
        "instructions": instructions,
        "cycles": cycles,
        "ms": ms,
        "frames_per_second": 1e3 / ms if ms else None,
        "gemm_utilization": gemm * row.gemm_interval / cycles if cycles else 0.0,
        "stalls": [{"engine": one, "cause": cause, "cycles": n} for (one, cause), n in sorted(stalls.items())],
        "moved": {name: moved[name] for name in sorted(moved)},
        "steps": steps,
    }
