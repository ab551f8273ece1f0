"""How long the streams of a bundle take on its board: an estimate, from the files of the bundle alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from inception_deploy.errors import DeployError
from inception_deploy.kernels.spec import Vta, decode
from inception_deploy.kernels.vta import config as configurations
from inception_deploy.kernels.vta.accelerator import Accelerator
from inception_deploy.kernels.vta.boards import BOARDS
from inception_deploy.kernels.vta.bound import bound
from inception_deploy.runtime import bundle as bundles

from .bundle import MAP
from .cycles import ENGINES, Span, measure
from .replay import step_cycles

_PARTS = 200
"""Of a timeline."""

_SIMULATED = "pynq"
"""The board that the simulator of this machine stands for."""


def estimate(opened: bundles.Bundle) -> dict[str, Any] | None:
    """The time of a bundle's streams, without what its host does; None where it has none.

    Returns:
        ``board``, ``estimate`` (True), ``streams``, ``instructions``, ``cycles``, ``ms``, ``frames_per_second``,
        ``gemm_utilization``, ``bound`` (cycles that the steps take at least, `kernels.vta.bound`), ``compulsory``
        (bytes that must be moved), ``stalls`` (cycles by engine and cause), ``moved`` (bytes by memory), ``steps``:
        name, cycles and bound of each, and ``timeline``: for each engine the share of the time that it is busy, in so
        many equal parts of the whole.

    Raises:
        DeployError: (kind ``bundle``) a file of it is damaged.
    """
    if MAP not in opened.manifest["files"]:
        return None
    row = BOARDS[opened.manifest["target_details"]["variant"].partition(":")[0].replace("sim", _SIMULATED)]
    told = opened.document(MAP)
    config = configurations.load(opened.folder / told["configuration"])
    accelerator = Accelerator(row.name, config, row)
    cycles = gemm = instructions = compulsory = 0
    stalls: Counter[tuple[str, str]] = Counter()
    moved: Counter[str] = Counter()
    steps: list[dict[str, Any]] = []
    spans: list[Span] = []
    for stream in told["streams"]:
        timing = measure((opened.folder / stream["instructions"]).read_bytes(), config, row)
        spans += [replace(span, start=span.start + cycles, end=span.end + cycles) for span in timing.spans]
        cycles, gemm = cycles + timing.cycles, gemm + timing.steps["gemm"]
        instructions += stream["count"]
        stalls, moved = stalls + timing.stalls, moved + timing.moved
        for step, timed in zip(stream["steps"], step_cycles(stream["steps"], timing), strict=True):
            least = bound(_spec(opened, step), accelerator)
            compulsory += least.moved
            steps.append({"name": step["name"], "cycles": timed["cycles"], "bound": least.cycles})
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
        "bound": sum(step["bound"] for step in steps),
        "compulsory": compulsory,
        "stalls": [{"engine": one, "cause": cause, "cycles": n} for (one, cause), n in sorted(stalls.items())],
        "moved": {name: moved[name] for name in sorted(moved)},
        "steps": steps,
        "timeline": {engine: _busy([s for s in spans if s.engine == engine], cycles) for engine in ENGINES},
    }


def _busy(spans: Sequence[Span], cycles: int) -> list[float]:
    """The share of each part of the time that an engine is busy."""
    ends = np.array([[span.start, span.end] for span in spans], np.float64).reshape(-1)
    done = np.cumsum(np.diff(ends, prepend=0.0) * (np.arange(len(ends)) % 2))
    edges = np.linspace(0, max(1, cycles), _PARTS + 1)
    share = np.diff(np.interp(edges, ends, done)) / (edges[1] - edges[0]) if len(ends) else np.zeros(_PARTS)
    return [round(float(value), 3) for value in share]


def _spec(opened: bundles.Bundle, step: Mapping[str, Any]) -> Vta:
    """What a step computes, as the map has it."""
    try:
        spec = decode(step["spec"])
    except (KeyError, TypeError, ValueError) as error:
        message = f"bundle {opened.source} {MAP}: step '{step.get('name')}' does not say what it computes"
        raise DeployError(message, kind="bundle", got=str(error)) from error
    assert isinstance(spec, Vta)
    return spec
