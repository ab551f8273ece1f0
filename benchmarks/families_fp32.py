"""The networks of other people in fp32: exported, verified and timed against onnxruntime, one family after the other.

    pip install --target elsewhere --no-deps timm torchvision huggingface_hub safetensors pyyaml ...
    PYTHONPATH=elsewhere python benchmarks/families_fp32.py convnext_atto torchvision:squeezenet1_1
    PYTHONPATH=elsewhere python benchmarks/families_fp32.py --size 224

timm and torchvision are not among our requirements; their definitions are taken with random weights (`families.build`).
Each goes the whole way of `export`, which compares every stage with the one before it. Then ours and onnxruntime, on
the optimised ONNX, compute the same input in turns with one thread each; a time is the least CPU time of that thread,
which other work on the machine changes little. With --threads above 1 it is the least wall time instead, for a machine
that does nothing else. *On defaults* is the share of the time that operators take which TVM's default computes.
Exit status 1 where an export or its verification failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from families import build
from rich.console import Console
from rich.table import Table

import inception_deploy as idp
from inception_deploy.bundles import engines
from inception_deploy.errors import DeployError
from inception_deploy.feeds import feed
from inception_deploy.reports import inspect
from inception_deploy.runtime import bundle as bundles

FAMILIES = (
    "convnext_atto", "convnextv2_atto", "edgenext_xx_small", "regnetx_002", "regnety_002", "lcnet_050",
    "mobilenetv2_050", "mobilenetv3_small_050", "mobilenetv4_conv_small", "efficientnet_b0", "efficientnet_lite0",
    "tf_efficientnetv2_b0", "ghostnet_050", "ghostnetv2_100", "mixnet_s", "mnasnet_050", "fbnetv3_b",
    "hardcorenas_a", "densenet121", "dla46_c", "dpn48b", "hrnet_w18_small", "hgnet_tiny", "hgnetv2_b0",
    "ese_vovnet19b_slim", "cspresnet50", "cspdarknet53", "cs3darknet_s", "darknet53", "res2net50_14w_8s",
    "resnest14d", "skresnet18", "selecsls42b", "repvgg_a0", "rexnet_100", "tresnet_m", "nfnet_f0", "eca_nfnet_l0",
    "nf_regnet_b0", "nf_resnet50", "resnetv2_50", "resnext26ts", "seresnet18", "ecaresnet26t", "wide_resnet50_2",
    "xception41", "inception_next_atto", "nasnetalarge", "pnasnet5large", "fastvit_t8", "mobileone_s0",
    "starnet_s050", "repghostnet_050", "repvit_m0_9", "tinynet_e", "poolformer_s12", "convmixer_768_32", "gernet_s",
    "spnasnet_100", "semnasnet_050", "visformer_tiny", "levit_128s", "efficientvit_b0", "mambaout_femto",
    "rdnet_tiny", "gcresnext26ts", "torchvision:squeezenet1_1", "torchvision:shufflenet_v2_x0_5",
    "torchvision:mnasnet0_5", "torchvision:googlenet", "torchvision:alexnet", "torchvision:vgg11_bn",
    "torchvision:mobilenet_v3_large",
)  # fmt: skip
"""Small variants; what attends to pixels is there only where most of it are convolutions."""

TURNS = 40
"""Of both engines, at most; and for `SECONDS` at most."""
SECONDS = 20.0


def main() -> int:
    """Measure and print; 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=FAMILIES, help="models of timm, or torchvision:NAME")
    parser.add_argument("--size", type=int, default=128, help="height and width of the pictures (default: 128)")
    parser.add_argument("--target", default="cpu", help="what to compile for (default: cpu)")
    parser.add_argument("--threads", type=int, default=1, help="of both engines (default: 1)")
    parser.add_argument("--json", type=Path, help="also append a line a network to this file")
    parser.add_argument("--bundles", type=Path, help="keep the bundles in this folder, and time those that are there")
    options = parser.parse_args()
    rows = []
    for name in options.names:
        rows.append(row(name, options))
        print(_line(rows[-1]), file=sys.stderr, flush=True)
        if options.json:
            with options.json.open("a") as file:
                print(json.dumps(rows[-1]), file=file)
    _show(rows)
    return int(any("error" in entry for entry in rows))


def row(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """One network: how far its stages are apart, its times, and what takes them."""
    entry: dict[str, Any] = {"model": name, "size": options.size}
    start = time.perf_counter()
    with contextlib.ExitStack() as stack:
        kept = options.bundles or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        path = kept / f"{name.replace(':', '-')}-{options.size}"
        try:
            if not path.exists():
                idp.export(build(name), path, target=options.target, input_size=options.size)
                entry["export_s"] = round(time.perf_counter() - start, 1)
        except (DeployError, ImportError, RuntimeError, TypeError) as error:
            return entry | {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
        bundle = stack.enter_context(bundles.open(path))
        stages = bundle.document(bundles.VERIFY)["stages"]
        entry["errors"] = {stage["stage"]: stage["max_rel"] for stage in stages}
        return entry | shares(bundle) | times(bundle, options.threads)


def shares(bundle: bundles.Bundle) -> dict[str, Any]:
    """The share of the time that TVM's defaults take, the operators among them, and the five kinds of steps that take
    most.
    """
    found = inspect.describe(bundle, threads=1, runs=15)
    refused = {refusal["node"]: refusal for refusal in found["refusals"]}
    least = {index: min(step["runs_ms"]) for index, step in enumerate(found["steps"])}
    total = sum(least.values())
    default: Counter[str] = Counter()
    kinds: Counter[str] = Counter()
    for index, step in enumerate(found["steps"]):
        mine = [refused[node] for node in step["layers"] if node in refused]
        kinds[step["op"]] += least[index] / total
        if mine:
            default[f"{mine[0]['op']}: {mine[0]['reason']}"] += least[index] / total
    return {
        "default_share": round(sum(default.values()), 3),
        "defaults": {key: round(value, 3) for key, value in default.most_common()},
        "steps": {key: round(value, 3) for key, value in kinds.most_common(8)},
    }


def times(bundle: bundles.Bundle, threads: int) -> dict[str, Any]:
    """Least milliseconds of ours and of onnxruntime, in turns, and their ratio."""
    clock = time.thread_time if threads == 1 else time.perf_counter
    arrays = [*feed(bundle.manifest["inputs"]).values()]
    runs = {name: engines.make(name, bundle, threads=threads).run for name in ("compiled", "onnxruntime")}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    end = time.perf_counter() + SECONDS
    for _ in range(TURNS):
        for name, run in runs.items():
            if threads > 1:
                time.sleep(0.002)  # the other's workers go to sleep
            start = clock()
            run(*arrays)
            seconds[name].append(clock() - start)
        if time.perf_counter() > end and len(seconds["compiled"]) >= 3:
            break
    ms = {name: 1e3 * min(values) for name, values in seconds.items()}
    return {
        "ms": round(ms["compiled"], 3),
        "onnxruntime_ms": round(ms["onnxruntime"], 3),
        "ratio": round(ms["compiled"] / ms["onnxruntime"], 3),
    }


def _cells(entry: dict[str, Any]) -> tuple[str, ...]:
    if "error" in entry:
        return entry["model"], entry["error"], "", "", "", ""
    worst = max(entry["errors"].items(), key=lambda item: item[1])
    most = ", ".join(f"{name.partition(':')[0]} {share:.0%}" for name, share in list(entry["defaults"].items())[:3])
    ratio, share = f"{entry['ratio']:.2f}", f"{entry['default_share']:.1%}"
    return entry["model"], f"{worst[0]} {worst[1]:.0e}", f"{entry['ms']:.2f}", ratio, share, most


def _line(entry: dict[str, Any]) -> str:
    return "  ".join(_cells(entry))


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table("network", "worst stage", "ms", "ours / onnxruntime", "on defaults", "of these most")
    for entry in sorted(rows, key=lambda entry: -entry.get("ratio", 1e9)):
        table.add_row(*_cells(entry))
    console = Console(width=160)
    console.print(table)
    ratios = [entry["ratio"] for entry in rows if "ratio" in entry]
    if ratios:
        over = sum(ratio > 1 for ratio in ratios)
        slow = sum(entry.get("default_share", 0) > 0.05 for entry in rows)
        console.print(
            f"{len(ratios)} of {len(rows)} networks: median ratio {statistics.median(ratios):.2f}, {over} above 1, "
            f"{slow} with more than 5 % of the time on defaults"
        )


if __name__ == "__main__":
    sys.exit(main())
