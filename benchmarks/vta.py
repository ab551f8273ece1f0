"""How long networks take on a VTA, by the cycle model, against the least that their layers can take.

    python benchmarks/vta.py                                   # five networks on pynq, as docs/perf/vta.md has them
    python benchmarks/vta.py resnet18 --boards zcu104 de10nano # one network on other boards
    python benchmarks/vta.py resnet18 --double                 # with what the model assumes of memory doubled
    python benchmarks/vta.py inception_v4 --layers             # each step: its tiling, its time, its bound

Networks of the zoo with seeded weights, quantized on random pictures by the target's own choices: the time depends on
neither. Every time is an estimate (docs/vta.md); the host's part is not in it. `bound` adds up over the steps the
larger of two numbers: GEMM's steps with the leanest epilogue, and the bytes that must be moved over the bus; of GEMM it
counts what does not meet padding. `utilisation` is the network's multiply-adds over what GEMM could do in all cycles.
Exit status 1 where a network on pynq takes longer than `LIMITS` allow, or more than `RATIO` times its bound.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from inception_deploy import models, targets
from inception_deploy.graph.driver import optimise
from inception_deploy.kernels.spec import Vta
from inception_deploy.kernels.vta import tiling
from inception_deploy.kernels.vta.accelerator import Accelerator
from inception_deploy.kernels.vta.boards import BOARDS, Board
from inception_deploy.kernels.vta.bound import bound
from inception_deploy.lower.lower import lower
from inception_deploy.lower.plan import VTA, Plan
from inception_deploy.quantize.quantizer import Quantizer, Recipe
from inception_deploy.sources import resolve
from inception_deploy.targets.vta import cycles
from inception_deploy.targets.vta.assemble import Work, assemble
from inception_deploy.targets.vta.pieces import spans

LIMITS = {
    "resnet18": (90.0, 0.82),
    "resnet50": (240.0, 0.68),
    "inception_v3": (315.0, 0.80),
    "inception_v4": (655.0, 0.83),
    "inception_resnet_v2": (700.0, 0.74),
}
"""Milliseconds at most and utilisation at least, on pynq."""

RATIO = 1.05
"""Cycles over the bound, at most."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(LIMITS), help="of the zoo")
    parser.add_argument("--boards", nargs="+", default=["pynq"], choices=list(BOARDS), help="default: pynq")
    parser.add_argument("--double", action="store_true", help="double the latencies and overheads that are assumed")
    parser.add_argument("--layers", action="store_true", help="print every step")
    parser.add_argument("--json", action="store_true", help="print a list of rows instead of a table")
    options = parser.parse_args(arguments)
    rows = []
    for name in options.networks:
        plan = lower(quantized(models.resolve(name)), targets.parse("vta:pynq").at("int8"))
        for board in options.boards:
            row = BOARDS[board]
            if options.double:
                row = replace(row, overhead=2 * row.overhead, latency=2 * row.latency, row_latency=2 * row.row_latency)
            rows.append(measured(models.resolve(name), plan, row, options.layers))
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        print(table([{key: value for key, value in row.items() if key != "layers"} for row in rows]))
        for row in rows if options.layers else []:
            print(f"\n{row['network']} on {row['board']}\n\n{table(row['layers'])}")
    missed = [] if options.double else [line for row in rows if (line := missing(row))]
    for line in missed:
        print(line, file=sys.stderr)
    return int(bool(missed))


def quantized(name: str) -> onnx.ModelProto:
    """A network in int8, as its target wants it."""
    target = targets.parse("vta:pynq")
    source = resolve.resolve(resolve.Request(model=name))
    model, _ = optimise(source.onnx(lambda _: None), verify=False)
    shape = [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim]
    pictures = np.random.default_rng(1).standard_normal((2, *shape[1:])).astype(np.float32)
    recipe = Recipe(scheme=target.scheme_by_default, choices=target.choices_by_default())
    return Quantizer(model, list(pictures)).quantize(recipe).model


def measured(name: str, plan: Plan, board: Board, layers: bool) -> dict[str, Any]:
    """A network on a board."""
    at = Accelerator(board.name, targets.parse("vta:pynq").vta.config, board)  # type: ignore[attr-defined]
    found = [work for numbers in spans(plan) for work in [works(plan, numbers, at)]]
    taken = 0
    lines: list[dict[str, Any]] = []
    count = moved = 0
    for each in found:
        stream = assemble(each, at)
        timing = cycles.measure(stream.instructions, at.config, board)
        taken += timing.cycles
        moved += sum(timing.moved.values())
        count += len(stream.instructions) // 16
        if layers:
            ends = [span.end for span in timing.spans if span.engine == "compute"]
            numbers = [span.instruction for span in timing.spans if span.engine == "compute"]
            start = 0
            for work, (_, behind) in zip(each, stream.steps, strict=True):
                end = max(end for end, number in zip(ends, numbers, strict=True) if number < behind)
                lines.append(line(work, end - start, at))
                start = end
    bounds = [bound(work.spec, at) for each in found for work in each]
    macs = sum(step.macs for step in plan.steps)
    on_vta = sum(step.macs for step in plan.steps if step.device == VTA)
    least = sum(one.cycles for one in bounds)
    gemm = models.spec(name).macs * on_vta / macs / at.config.macs_per_step
    row: dict[str, Any] = {
        "network": name, "board": board.name, "profile": board.executes, "ms": round(board.milliseconds(taken), 2),
        "utilisation": round(gemm / taken, 3), "cycles": taken, "bound": least,
        "ratio": round(taken / least, 3), "padded_bound": sum(one.nominal for one in bounds),
        "macs_on_vta": round(on_vta / macs, 4), "streams": len(found), "instructions": count,
        "mb_moved": round(moved / 1e6, 1), "mb_compulsory": round(sum(one.moved for one in bounds) / 1e6, 1),
    }  # fmt: skip
    return {**row, "layers": lines} if layers else row


def works(plan: Plan, numbers: Sequence[int], at: Accelerator) -> list[Work]:
    """A span's steps with tilings for a board."""
    found = []
    for step in (plan.steps[number] for number in numbers):
        spec = plan.kernels[step.kernel].spec
        assert isinstance(spec, Vta)
        found.append(Work(step.name, spec, tiling.choose(spec, at), step.args))
    return found


def line(work: Work, taken: int, at: Accelerator) -> dict[str, Any]:
    """A step of a network."""
    cut, least = work.tiling, bound(work.spec, at)
    return {
        "step": work.name, "computes": work.spec.describe(),
        "tiling": f"{cut.rows}x{cut.columns}x{cut.blocks}{' deep' if cut.deep else ''}",
        "cycles": taken, "model": tiling.cost(work.spec, at, cut), "bound": least.cycles,
        "ratio": round(taken / max(1, least.cycles), 2),
    }  # fmt: skip


def missing(row: dict[str, Any]) -> str | None:
    """What a row misses of its limits."""
    if row["board"] != "pynq" or row["network"] not in LIMITS:
        return None
    most, least = LIMITS[row["network"]]
    if row["ms"] <= most and row["utilisation"] >= least and row["ratio"] <= RATIO:
        return None
    found = f"{row['ms']} ms, utilisation {row['utilisation']}, {row['ratio']} x the bound"
    return f"{row['network']}: {found}; allowed: {most} ms, {least}, {RATIO}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns)] + [[str(row[column]) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
