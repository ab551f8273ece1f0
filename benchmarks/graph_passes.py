"""What each graph pass does to a network: work, nodes, and onnxruntime's time, measured interleaved in one run.

    python benchmarks/graph_passes.py irv2 inception_v3 --runs 20

Each row is the network after that pass and all before it. The time is the median of onnxruntime's with its own
optimiser on (it folds batch normalisation too, so that row shows what is left to gain; ``--plain`` turns it off), the
ratio the median of the ratios to the network as exported, each taken within one round. Passes that are off for every
target come last, on top of all others.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import onnx
import onnxruntime as ort

from inception_deploy import models
from inception_deploy.graph.cost import cost
from inception_deploy.graph.driver import KINDS, PASSES, Pass, PassEffect, optimise
from inception_deploy.sources import capture


def stages(model: onnx.ModelProto) -> list[tuple[PassEffect | None, onnx.ModelProto]]:
    """The exported model, then the model after each pass that fires."""
    found: list[tuple[PassEffect | None, onnx.ModelProto]] = [(None, model)]
    for entry in sorted(PASSES, key=lambda entry: set(entry.off) == set(KINDS)):
        changed, (effect,) = optimise(found[-1][1], passes=[Pass(entry.run, entry.why_here)], verify=False)
        if effect.fired:
            found.append((effect, changed))
    return found


def milliseconds(networks: list[onnx.ModelProto], runs: int, threads: int, plain: bool) -> list[list[float]]:
    """`runs` times of each network, taken in turns so that a drifting machine drifts for all."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    if plain:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    sessions = [
        ort.InferenceSession(network.SerializeToString(), options, providers=["CPUExecutionProvider"])
        for network in networks
    ]
    value = networks[0].graph.input[0]
    sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
    x = np.random.default_rng(0).standard_normal(sizes, dtype=np.float32)
    times: list[list[float]] = [[] for _ in sessions]
    for run in range(runs + 2):
        for index, session in enumerate(sessions):
            start = time.perf_counter()
            session.run(None, {value.name: x})
            if run >= 2:
                times[index].append((time.perf_counter() - start) * 1e3)
    return times


def report(name: str, runs: int, threads: int, plain: bool) -> None:
    """Print the table of one network as Markdown."""
    if name.endswith(".onnx"):
        model = capture.load_onnx(name, batch=1)
    else:
        model = capture.to_onnx(models.build(name), (1, *models.spec(name).input))
    found = stages(model)
    times = milliseconds([model for _, model in found], runs, threads, plain)
    print(f"\n{name} ({threads} threads, {runs} runs, onnxruntime's optimiser {'off' if plain else 'on'})\n")
    print("| after | fired | nodes | GMACs | other Mops | ms | ratio |\n|---|---|---|---|---|---|---|")
    for (effect, model), column in zip(found, times, strict=True):
        ratio = statistics.median(own / base for own, base in zip(column, times[0], strict=True))
        label, fired = ("export", "") if effect is None else (f"`{effect.name}`", str(effect.fired))
        work = cost(model)
        print(
            f"| {label} | {fired} | {len(model.graph.node)} | {work.macs / 1e9:.4f} | {work.other_ops / 1e6:.2f} "
            f"| {statistics.median(column):.1f} | {ratio:.3f} |"
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "models",
        nargs="*",
        help="zoo names or .onnx files",
        default=["irv2", "inception_v3", "inception_v4", "googlenet"],
    )
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--plain", action="store_true", help="turn onnxruntime's own graph optimiser off")
    arguments = parser.parse_args()
    for name in arguments.models:
        report(name, arguments.runs, arguments.threads, arguments.plain)


if __name__ == "__main__":
    main()
