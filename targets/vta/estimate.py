"""How long the streams of a bundle take on its board: an estimate, from the files of the bundle alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from inception_deploy.errors import DeployError
from inception_deploy.kernels.spec import Vta, decode
from inception_deploy.kernels.vta import config as configurations
from inception_deploy.kernels.vta.accelerator import Accelerator
from inception_deploy.kernels.vta.boards import BOARDS
from inception_deploy.kernels.vta.bound import bound
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
        ``gemm_utilization``, ``bound`` (cycles that the steps take at least, `kernels.vta.bound`), ``compulsory``
        (bytes that must be moved), ``stalls`` (cycles by engine and cause), ``moved`` (bytes by memory) and ``steps``:
        name, cycles and bound of each.

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
    for stream in told["streams"]:
        timing = measure((opened.folder / stream["instructions"]).read_bytes(), config, row)
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
    }


def _spec(opened: bundles.Bundle, step: Mapping[str, Any]) -> Vta:
    """What a step computes, as the map has it."""
    try:
        spec = decode(step["spec"])
    except (KeyError, TypeError, ValueError) as error:
        message = f"bundle {opened.source} {MAP}: step '{step.get('name')}' does not say what it computes"
        raise DeployError(message, kind="bundle", got=str(error)) from error
    assert isinstance(spec, Vta)
    return spec
