"""How long networks take on a VTA, by the cycle model, against the least that their layers can take.

    python benchmarks/vta.py                                   # five networks on pynq, as docs/perf/vta.md has them
    python benchmarks/vta.py resnet18 --boards zcu104 de10nano # one network on other boards
    python benchmarks/vta.py resnet18 --double                 # with what the model assumes of memory doubled
    python benchmarks/vta.py inception_v4 --layers             # each step: its tiling, its time, its bound

Networks of the zoo with seeded weights, quantized on random pictures by the target's own choices: the time depends on
neither. Every time is an estimate (docs/vta.md); the host's part is not in it. `bound` adds up over the steps the
larger of two numbers: GEMM's steps with the leanest epilogue, and the bytes that must be moved over the bus; of GEMM it
counts what does not meet padding. `utilisation` is the network's multiply-adds over what GEMM could do in all cycles.
`chisel_convolutions`: cycles of the convolutions behind the stem, with their residual adds, on de10nano, whose hardware
is upstream's Chisel design.
Exit status 1 where a network on pynq takes longer than `LIMITS` or `CHISEL` allow, or more than `RATIO` times its
bound.
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
from inception_deploy.targets.vta.replay import step_cycles

LIMITS = {
    "resnet18": (90.0, 0.82),
    "resnet50": (240.0, 0.68),
    "inception_v3": (315.0, 0.80),
    "inception_v4": (655.0, 0.83),
    "inception_resnet_v2": (700.0, 0.74),
}
"""Milliseconds at most and utilisation at least, on pynq."""

CHISEL = {"resnet18": 7_450_000}
"""Cycles of `chisel_convolutions` at most; upstream published 7.73 million, of its simulation of the hardware."""

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
    boards = {name: doubled(row) if options.double else row for name, row in BOARDS.items()}
    rows: list[dict[str, Any]] = []
    for name in map(models.resolve, options.networks):
        plan = lower(quantized(name), targets.parse("vta:pynq").at("int8"))
        found = {board: measured(name, plan, boards[board]) for board in options.boards}
        chisel = None
        if name in CHISEL:
            chisel = behind_the_stem(found.get(_CHISEL) or measured(name, plan, boards[_CHISEL]))
        rows += [{**row, "chisel_convolutions": chisel} for row in found.values()]
    if options.json:
        shown = rows if options.layers else [{key: row[key] for key in row if key != "layers"} for row in rows]
        print(json.dumps(shown, indent=2))
    else:
        print(table([{key: value for key, value in row.items() if key != "layers"} for row in rows]))
        for row in rows if options.layers else []:
            print(f"\n{row['network']} on {row['board']}\n\n{table(row['layers'])}")
    missed = [] if options.double else [line for row in rows if (line := missing(row))]
    for line in missed:
        print(line, file=sys.stderr)
    return int(bool(missed))


_CHISEL = "de10nano"


def doubled(board: Board) -> Board:
    """The board with what is assumed of it doubled."""
    return replace(board, overhead=2 * board.overhead, latency=2 * board.latency, row_latency=2 * board.row_latency)


def behind_the_stem(row: dict[str, Any]) -> int:
    """Cycles of a network's convolutions but the first."""
    found = [line["cycles"] for line in row["layers"] if line["op"] == "conv"]
    return sum(found[1:])


def quantized(name: str) -> onnx.ModelProto:
    """A network in int8, as its target wants it."""
    target = targets.parse("vta:pynq")
    source = resolve.resolve(resolve.Request(model=name))
    model, _ = optimise(source.onnx(lambda _: None), verify=False)
    shape = [axis.dim_value for axis in model.graph.input[0].type.tensor_type.shape.dim]
    pictures = np.random.default_rng(1).standard_normal((2, *shape[1:])).astype(np.float32)
    recipe = Recipe(scheme=target.scheme_by_default, choices=target.choices_by_default())
    return Quantizer(model, list(pictures)).quantize(recipe).model


def measured(name: str, plan: Plan, board: Board) -> dict[str, Any]:
    """A network on a board; each of its steps in `layers`."""
    at = Accelerator(board.name, targets.parse("vta:pynq").vta.config, board)  # type: ignore[attr-defined]
    found = [work for numbers in spans(plan) for work in [works(plan, numbers, at)]]
    taken = 0
    lines: list[dict[str, Any]] = []
    count = moved = 0
    for each in found:
        stream = assemble([work for work, _ in each], at)
        timing = cycles.measure(stream.instructions, at.config, board)
        taken += timing.cycles
        moved += sum(timing.moved.values())
        count += len(stream.instructions) // 16
        told = [{"name": work.name, "first": a, "end": b} for (work, _), (a, b) in zip(each, stream.steps, strict=True)]
        for (work, op), step in zip(each, step_cycles(told, timing), strict=True):
            lines.append(line(work, op, step["cycles"], at))
    bounds = [bound(work.spec, at) for each in found for work, _ in each]
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
    return {**row, "layers": lines}


def works(plan: Plan, numbers: Sequence[int], at: Accelerator) -> list[tuple[Work, str]]:
    """A span's steps with tilings for a board, and their operators."""
    found = []
    for step in (plan.steps[number] for number in numbers):
        spec = plan.kernels[step.kernel].spec
        assert isinstance(spec, Vta)
        found.append((Work(step.name, spec, tiling.choose(spec, at), step.args), step.op))
    return found


def line(work: Work, op: str, taken: int, at: Accelerator) -> dict[str, Any]:
    """A step of a network."""
    cut, least = work.tiling, bound(work.spec, at)
    return {
        "step": work.name, "op": op, "computes": work.spec.describe(),
        "tiling": f"{cut.rows}x{cut.columns}x{cut.blocks}{' deep' if cut.deep else ''}",
        "cycles": taken, "model": tiling.cost(work.spec, at, cut), "bound": least.cycles,
        "ratio": round(taken / max(1, least.cycles), 2),
    }  # fmt: skip


def missing(row: dict[str, Any]) -> str | None:
    """What a row misses of its limits."""
    if row["board"] != "pynq" or row["network"] not in LIMITS:
        return None
    most, least = LIMITS[row["network"]]
    chisel, limit = row["chisel_convolutions"], CHISEL.get(row["network"])
    slow = limit is not None and chisel > limit
    if row["ms"] <= most and row["utilisation"] >= least and row["ratio"] <= RATIO and not slow:
        return None
    found = f"{row['ms']} ms, utilisation {row['utilisation']}, {row['ratio']} x the bound"
    allowed = f"{most} ms, {least}, {RATIO}"
    if slow:
        found, allowed = f"{found}, {chisel} cycles on chisel", f"{allowed}, {limit}"
    return f"{row['network']}: {found}; allowed: {allowed}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown."""
    columns = list(rows[0])
    lines = [columns, ["---"] * len(columns)] + [[str(row[column]) for column in columns] for row in rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
