"""How long networks take on a VTA, by the cycle model, against the least that their layers can take.

    python benchmarks/vta.py                                   # five networks on two boards, as docs/perf/vta.md has
    python benchmarks/vta.py resnet18 --boards zcu104 de10nano # one network on other boards
    python benchmarks/vta.py resnet18 --double                 # only with what the model assumes of memory doubled
    python benchmarks/vta.py resnet18 --boards pynq --tuned DB # with the choices that `tune` has found
    python benchmarks/vta.py inception_v4 --layers             # each step: its tiling, its time, its bound

Networks of the zoo with seeded weights, quantized on random pictures by the target's own choices: the time depends on
neither. Every time is an estimate (docs/vta.md); the host's part is not in it. `bound` adds up over the steps the
larger of two numbers: GEMM's steps with the leanest epilogue, and the bytes that must be moved over the bus; of GEMM it
counts what does not meet padding. `utilisation` is the network's multiply-adds over what GEMM could do in all cycles.
`chisel_convolutions`: cycles of the convolutions behind the stem, with their residual adds, on de10nano, whose hardware
is upstream's Chisel design.
Without --double and --json the table follows again with what is assumed doubled, streams cut anew for that.
Exit status 1 where a network on pynq or zcu104 takes longer than `LIMITS` or `CHISEL` allow, or more than `RATIO` times
its bound.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from inception_deploy.tuning.tuned import load as load_tuned

if TYPE_CHECKING:
    from inception_deploy.kernels.vta.tiling import Tiling
    from inception_deploy.targets.base import Target

LIMITS = {
    "resnet18": (90.0, 0.82),
    "resnet50": (240.0, 0.68),
    "inception_v3": (315.0, 0.80),
    "inception_v4": (655.0, 0.83),
    "inception_resnet_v2": (700.0, 0.74),
}
"""Milliseconds at most and utilisation at least, on pynq; on zcu104 as many cycles."""

CHISEL = {"resnet18": 7_450_000}
"""Cycles of `chisel_convolutions` at most; upstream published 7.73 million, of its simulation of the hardware."""

RATIO = 1.05
"""Cycles over the bound, at most."""

LIMITED = ("pynq", "zcu104")

SHOWN = ("network", "board", "profile", "ms", "utilisation", "cycles", "bound")
"""What --json has of a row."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print; 1 where a limit is passed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", default=list(LIMITS), help="of the zoo")
    parser.add_argument(
        "--boards", nargs="+", default=list(LIMITED), choices=list(BOARDS), help="default: both limited"
    )
    parser.add_argument("--double", action="store_true", help="double the latencies and overheads that are assumed")
    parser.add_argument("--tuned", type=Path, metavar="DB", help="of `tune`, for one network on one board")
    parser.add_argument("--layers", action="store_true", help="print every step")
    parser.add_argument("--json", action="store_true", help="print a list of rows instead of a table")
    options = parser.parse_args(arguments)
    if options.tuned and (len(options.networks) > 1 or len(options.boards) > 1 or options.double):
        parser.error("--tuned is for one network on one board, as it is assumed to be")
    plans = {name: lower(quantized(name), target_of("pynq")) for name in map(models.resolve, options.networks)}
    rows = measurements(plans, options.boards, options.tuned, double=options.double)
    if options.json:
        print(json.dumps(rows if options.layers else [{key: row[key] for key in SHOWN} for row in rows], indent=2))
    else:
        show(rows, options.layers)
    if not options.json and not options.double and not options.tuned:
        print(f"\nAssumed of {', '.join(options.boards)}: {assumed(options.boards)}. With these doubled:\n")
        show(measurements(plans, options.boards, None, double=True), options.layers)
    missed = [] if options.double else [line for row in rows if (line := missing(row))]
    for line in missed:
        print(line, file=sys.stderr)
    return int(bool(missed))


def target_of(board: str, tuned: Path | None = None, network: str = "") -> Target:
    """A board, with the choices of a database where there is one."""
    target = targets.parse(f"vta:{board}").at("int8")
    return target if tuned is None else load_tuned(tuned, network, target)


def measurements(
    plans: Mapping[str, Plan], names: Sequence[str], tuned: Path | None, *, double: bool
) -> list[dict[str, Any]]:
    """A row for each network and board."""
    boards = {name: doubled(row) if double else row for name, row in BOARDS.items()}
    rows: list[dict[str, Any]] = []
    for name, plan in plans.items():
        found = {board: measured(name, plan, boards[board], tuned) for board in names}
        chisel = None
        if name in CHISEL:
            chisel = behind_the_stem(found.get(_CHISEL) or measured(name, plan, boards[_CHISEL]))
        rows += [{**row, "chisel_convolutions": chisel} for row in found.values()]
    return rows


def show(rows: Sequence[dict[str, Any]], layers: bool) -> None:
    """Print a table of networks, and of their steps."""
    print(table([{key: value for key, value in row.items() if key != "layers"} for row in rows]))
    for row in rows if layers else []:
        print(f"\n{row['network']} on {row['board']}\n\n{table(row['layers'])}")


def assumed(names: Sequence[str]) -> str:
    """What nobody has measured of boards, in words."""
    return "; ".join(
        dict.fromkeys(
            f"{row.overhead} cycles an instruction, {row.latency} until bytes arrive, {row.row_latency} a row of it"
            for row in (BOARDS[name] for name in names)
        )
    )


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


def measured(name: str, plan: Plan, board: Board, tuned: Path | None = None) -> dict[str, Any]:
    """A network on a board; each of its steps in `layers`."""
    choose = target_of(board.name, tuned, name).schedule if tuned else None
    at = Accelerator(board.name, targets.parse("vta:pynq").vta.config, board)  # type: ignore[attr-defined]
    found = [work for numbers in spans(plan) for work in [works(plan, numbers, at, choose)]]
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


def works(
    plan: Plan, numbers: Sequence[int], at: Accelerator, choose: Callable[[Vta], Tiling] | None
) -> list[tuple[Work, str]]:
    """A span's steps with tilings for a board, the first choice or another, and their operators."""
    found = []
    for step in (plan.steps[number] for number in numbers):
        spec = plan.kernels[step.kernel].spec
        assert isinstance(spec, Vta)
        cut = choose(spec) if choose else tiling.choose(spec, at)
        found.append((Work(step.name, spec, cut, step.args), step.op))
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
    if row["board"] not in LIMITED or row["network"] not in LIMITS:
        return None
    most, least = LIMITS[row["network"]]
    most = round(most * BOARDS["pynq"].mhz / BOARDS[row["board"]].mhz, 1)
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
