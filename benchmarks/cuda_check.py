"""The first hour on a GPU: is what was compiled for it right, and how fast is it next to what else runs there.

    python benchmarks/cuda_check.py --prepare bundles --target cuda:sm_90        on any machine: export what is tried
    python benchmarks/cuda_check.py --bundles bundles --out results --minutes 9  on the machine with the GPU
    python benchmarks/cuda_check.py --records irv2.db --out results              at home: what was tuned, for export

The second command needs the bundles, numpy and this checkout; what else is installed there (onnxruntime with its CUDA
provider, PyTorch, TensorRT, compute-sanitizer) is measured beside ours, and what is not is said. Results are written
after every stage, so that whatever ends the run early leaves them: `cuda_check.json` and `cuda_check.md`. Exit status 1
where a network's answer is wrong.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from inception_deploy.errors import DeployError
from inception_deploy.feeds import feed
from inception_deploy.kernels.cards import card_of
from inception_deploy.runtime import bundle as bundles
from inception_deploy.runtime import compiled
from inception_deploy.verify import tolerance

NETWORKS = (
    *("lenet5", "mobilenet_v1", "resnet18", "googlenet", "resnet50", "inception_v3", "irv2", "irv1", "inception_v4"),
    *("resnext50_32x4d", "xception", "alexnet", "vgg16"),
)
"""Small ones first: what is wrong shows soonest there."""

BATCHES = (1, 8, 32)
PRECISIONS = ("fp32", "tf32", "fp16", "bf16", "int8")
TIMED = ("irv2", "inception_v4", "inception_v3", "googlenet", "resnet50")
_ATTRIBUTES = {"multiprocessors": 16, "clock_khz": 13, "memory_clock_khz": 36, "bus_bits": 37, "l2_bytes": 38}
"""CUdevice_attribute."""
_SPEED = {"fp32": 1 / 3, "tf32": 0.5, "fp16": 1.0, "bf16": 1.0, "int8": 2.0}
"""Products of tensor cores, times those of 16 bits; of fp32 as three of bf16."""

SWITCH = "INCEPTION_DEPLOY_CUDA_PROGRAMMATIC"
"""Set to 0 while a model is opened, none of its launches begins before what it waits for has ended."""

FULL = "ours, full edges"
"""The same bundle, so opened."""

TRIALS = "trials"
"""The folder of those beside the bundles."""

CALIBRATION = 4
"""Random pictures that an int8 network's scales are from: what they are makes no difference to its time."""


@dataclass
class Run:
    """What is known so far."""

    bundles: Path
    out: Path
    ends: float
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def left(self) -> float:
        """Seconds."""
        return self.ends - time.monotonic()

    def folders(self) -> Iterator[tuple[dict[str, Any], Path]]:
        """Network, precision and batch of every bundle, and its folder, in the order of `NETWORKS`."""
        for name in NETWORKS:
            for batch in BATCHES:
                for precision in PRECISIONS:
                    path = place(self.bundles, name, precision, batch)
                    if (path / "manifest.json").is_file():
                        yield {"network": name, "precision": precision, "batch": batch}, path

    def write(self) -> None:
        """Both files, as far as it got."""
        self.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.results, indent=2) + "\n"
        (self.out / "cuda_check.json").write_text(text, encoding="utf-8")
        (self.out / "cuda_check.md").write_text(markdown(self.results), encoding="utf-8")


def beside(bundle: Path, what: str) -> Path:
    """A file of the preparation's that belongs to a bundle."""
    return bundle.parent / f"{bundle.name}.{what}"


def place(folder: Path, name: str, precision: str, batch: int) -> Path:
    """Where a bundle lies."""
    return folder / f"{name}-{precision}-{batch}"


# -- stages -----------------------------------------------------------------------------------------------------------


def card(run: Run) -> None:
    """The driver and the first visible GPU."""
    driver = ctypes.CDLL("libcuda.so.1")
    count, device, version = ctypes.c_int(), ctypes.c_int(), ctypes.c_int()
    if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)) or not count.value:
        raise DeployError("the NVIDIA driver finds no GPU", kind="device")
    driver.cuDeviceGet(ctypes.byref(device), 0)
    name = ctypes.create_string_buffer(256)
    driver.cuDeviceGetName(name, len(name), device)
    found: dict[str, Any] = {"name": name.value.decode(), "gpus": count.value}
    if hasattr(driver, "cuDriverGetVersion") and not driver.cuDriverGetVersion(ctypes.byref(version)):
        found["cuda"] = f"{version.value // 1000}.{version.value % 1000 // 10}"
    for key, attribute in {"major": 75, "minor": 76, **_ATTRIBUTES}.items():
        value = ctypes.c_int()
        if not driver.cuDeviceGetAttribute(ctypes.byref(value), attribute, device):
            found[key] = value.value
    run.results["card"] = found


def verified(run: Run) -> None:
    """Every bundle's answer next to the one that onnxruntime gave on a CPU when it was prepared."""
    rows = run.results["verified"] = []
    for row, path in run.folders():
        limit = tolerance("compiled" if row["precision"] == "fp32" else f"compiled-{row['precision']}").max_rel
        rows.append(row)
        try:
            with bundles.open(path) as opened, compiled.load(opened.folder) as model, full_edges(opened) as full:
                arrays = feed(opened.manifest["inputs"])
                ours = model.run(*arrays.values())
                again = [*model.run(*arrays.values()), *full.run(*arrays.values())]
            wanted = np.load(beside(path, "expected.npy"))
            error = float(np.abs(ours[0] - wanted).max() / np.abs(wanted).max())
            same = [np.array_equal(a, b) for a, b in zip([*ours, *ours], again, strict=True)]
            repeats, edges = all(same[: len(ours)]), all(same[len(ours) :])
            row |= {"max_rel": error, "tolerance": limit, "repeats": repeats, "as_with_full_edges": edges}
            row["ok"] = bool(error <= limit and repeats and edges)
        except DeployError as failure:
            row |= {"ok": False, "error": failure.message}
        run.write()


@contextmanager
def full_edges(opened: Any) -> Iterator[compiled.CompiledModel]:
    """A bundle's model whose launches begin when what they wait for has ended."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "0"
    try:
        model = compiled.load(opened.folder)
    finally:
        os.environ.pop(SWITCH)
        if before is not None:
            os.environ[SWITCH] = before
    with model:
        yield model


def sanitized(run: Run) -> None:
    """The smallest bundle under compute-sanitizer, where that is installed."""
    tool = shutil.which("compute-sanitizer")
    smallest = next(run.folders(), None)
    if tool is None or smallest is None:
        run.results["sanitizer"] = {"skipped": "compute-sanitizer is not installed" if tool is None else "no bundles"}
        return
    found = {}
    for check in ("memcheck", "racecheck", "initcheck", "synccheck"):
        command = [tool, "--tool", check, "--error-exitcode", "9", sys.executable, str(Path(__file__)), "--once"]
        done = subprocess.run([*command, str(smallest[1])], capture_output=True, text=True, timeout=max(5, run.left))
        found[check] = {"ok": done.returncode == 0, "says": done.stdout.strip().splitlines()[-1:]}
    run.results["sanitizer"] = {**smallest[0], "tools": found}


def latency(run: Run) -> None:
    """Ours, and what else is installed, in turns, with the input on the host and the output back there."""
    rows = run.results["latency"] = []
    for key, path in run.folders():
        if key["network"] not in TIMED or run.left < 20:
            continue
        row: dict[str, Any] = {**key, "ms": {}, "without": {}}
        rows.append(row)
        with bundles.open(path) as opened, compiled.load(opened.folder) as model, full_edges(opened) as full:
            arrays = list(feed(opened.manifest["inputs"]).values())
            calls: dict[str, Callable[[], object]] = {
                "ours": lambda m=model, a=arrays: m.run(*a),
                FULL: lambda m=full, a=arrays: m.run(*a),
            }
            for peer, make in PEERS.items():
                try:
                    calls[peer] = make(opened, key, arrays)
                except Exception as error:  # whatever another package says is a finding
                    row["without"][peer] = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
            row["ms"] = interleaved(calls, seconds=min(15.0, run.left / 4))
        best = min((ms for peer, ms in row["ms"].items() if peer not in ("ours", FULL)), default=None)
        row["ratio_to_best"] = row["ms"]["ours"] / best if best else None
        run.write()


def layers(run: Run) -> None:
    """Time of each layer, from CUDA events, next to the least that its bytes and its multiply-adds need."""
    rows = run.results["layers"] = {}
    rates = floors(run.results["card"])
    for key, path in run.folders():
        if key["network"] not in TIMED or key["batch"] != 1 or run.left < 5:
            continue
        with bundles.open(path) as opened, compiled.load(opened.folder) as model:
            arrays = list(feed(opened.manifest["inputs"]).values())
            passes = [model.profile(*arrays) for _ in range(10)]
            moved = [step.get("bytes") for step in opened.document(bundles.PLAN)["steps"]]
        moved = moved if len(moved) == len(passes[0]) else [None] * len(passes[0])
        found = []
        for size, *steps in zip(moved, *passes, strict=True):
            entry: dict[str, Any] = {"layer": steps[0].name, "op": steps[0].op, "macs": steps[0].macs, "bytes": size}
            entry["us"] = 1e3 * statistics.median(step.ms for step in steps)
            if "products" in rates:
                entry["products_us"] = 1e6 * steps[0].macs / (rates["products"] * _SPEED[key["precision"]])
            if "bytes" in rates and size is not None:
                entry["bytes_us"] = 1e6 * size / rates["bytes"]
            found.append(entry)
        rows[f"{key['network']} {key['precision']}"] = sorted(found, key=lambda entry: -entry["us"])
        run.write()


def floors(chip: dict[str, Any]) -> dict[str, float]:
    """What the card does in a second at the most, as far as the driver tells: ``products`` of 16 bits, ``bytes``."""
    found = {}
    if {"major", "minor", "multiprocessors", "clock_khz"} <= chip.keys():
        each = card_of(f"sm_{chip['major']}{chip['minor']}").products
        found["products"] = 1e3 * chip["multiprocessors"] * each * chip["clock_khz"]
    if {"memory_clock_khz", "bus_bits"} <= chip.keys():
        found["bytes"] = 1e3 * 2 * chip["memory_clock_khz"] * chip["bus_bits"] / 8  # two a clock
    return found


class _Any(ctypes.Structure):
    """A value as `csrc/measure.h` passes it."""

    class Value(ctypes.Union):
        """Of it."""

        _fields_ = (("integer", ctypes.c_int64), ("real", ctypes.c_double))

    _fields_ = (("type", ctypes.c_int32), ("zero", ctypes.c_uint32), ("value", Value))


def trial(path: Path, choices: int) -> list[list[float]]:
    """The seconds of each choice of a trial that `prepare` built, in one pass over its samples."""
    library = ctypes.CDLL(str(path))

    def call(name: str, argument: int) -> Any:
        given, result = _Any(1, 0, _Any.Value(integer=argument)), _Any()
        getattr(library, f"__tvm_ffi_{name}")(None, ctypes.byref(given), 1, ctypes.byref(result))
        return result.value

    try:
        if code := call("measure", 1).integer:
            raise DeployError(f"{path} failed with code {code} of inception_deploy.h", kind="tune")
        samples = list(itertools.takewhile(lambda s: s >= 0, (call("sample", i).real for i in itertools.count())))
    finally:
        call("finish", 0)
    found: list[list[float]] = [[] for _ in range(choices)]
    for number, seconds in enumerate(samples):
        turn, place = divmod(number, choices)
        found[(place + turn) % choices].append(seconds)  # as `tuning.trial.chosen` orders them
    return found


def tuned(run: Run) -> None:
    """The choices that `--prepare --trials` built for each layer of a network, next to the default; `--records` makes
    a database for `export --tuned` of what this finds.
    """
    listed = run.bundles / TRIALS / "trials.json"
    if not listed.is_file():
        run.results["tuning"] = {"skipped": "no trials were prepared"}
        return
    prepared = json.loads(listed.read_text(encoding="utf-8"))
    ends, rows = time.monotonic() + run.left / 3, []
    for task in prepared["tasks"]:
        if time.monotonic() > ends:
            break
        seconds = trial(listed.parent / task["library"], len(task["knobs"]))
        middle = [statistics.median(each) for each in seconds]
        rows.append({**task, "seconds": seconds, "ratio": min(middle) / middle[0], "default_us": 1e6 * middle[0]})
        run.results["tuning"] = {**prepared, "tasks": rows, "left": len(prepared["tasks"]) - len(rows)}
    run.write()


STAGES: tuple[Callable[[Run], None], ...] = (card, verified, sanitized, tuned, latency, layers)
"""In order."""


# -- peers ------------------------------------------------------------------------------------------------------------


def onnxruntime_cuda(opened: Any, key: dict[str, Any], arrays: list[np.ndarray]) -> Callable[[], object]:
    """The bundle's ONNX, which is fp32, with onnxruntime's CUDA provider."""
    import onnxruntime

    if key["precision"] != "fp32":
        raise RuntimeError("compared in fp32 only")
    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        raise RuntimeError("this onnxruntime has no CUDAExecutionProvider")
    session = onnxruntime.InferenceSession(str(opened.folder / "model.onnx"), providers=["CUDAExecutionProvider"])
    feeds = {port.name: array for port, array in zip(session.get_inputs(), arrays, strict=True)}
    return lambda: session.run(None, feeds)


def tensorrt(opened: Any, key: dict[str, Any], arrays: list[np.ndarray]) -> Callable[[], object]:
    """The same with TensorRT's, which computes fp16 when it is told to."""
    import onnxruntime

    if "TensorrtExecutionProvider" not in onnxruntime.get_available_providers():
        raise RuntimeError("this onnxruntime has no TensorrtExecutionProvider")
    options = {"trt_fp16_enable": key["precision"] == "fp16"}
    providers = [("TensorrtExecutionProvider", options), "CUDAExecutionProvider"]
    session = onnxruntime.InferenceSession(str(opened.folder / "model.onnx"), providers=providers)
    feeds = {port.name: array for port, array in zip(session.get_inputs(), arrays, strict=True)}
    return lambda: session.run(None, feeds)


def _torch(key: dict[str, Any], arrays: list[np.ndarray], compile_: bool) -> Callable[[], object]:
    import torch

    from inception_deploy import models

    if not torch.cuda.is_available():
        raise RuntimeError("this PyTorch sees no GPU")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    kind = torch.float16 if key["precision"] == "fp16" else torch.float32
    module = models.build(key["network"]).cuda().to(kind, memory_format=torch.channels_last)
    if compile_:
        module = torch.compile(module, mode="max-autotune")

    def call() -> object:
        with torch.inference_mode():
            return module(torch.from_numpy(arrays[0]).cuda().to(kind, memory_format=torch.channels_last)).cpu()

    call()
    return call


PEERS: dict[str, Callable[[Any, dict[str, Any], list[np.ndarray]], Callable[[], object]]] = {
    "torch": lambda _opened, key, arrays: _torch(key, arrays, compile_=False),
    "torch.compile": lambda _opened, key, arrays: _torch(key, arrays, compile_=True),
    "onnxruntime": onnxruntime_cuda,
    "tensorrt": tensorrt,
}
"""What computes a bundle's network in its precision, too; raises whatever it says where it cannot."""


def interleaved(calls: dict[str, Callable[[], object]], seconds: float) -> dict[str, float]:
    """Medians in ms of calls that take turns for so long."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    end = time.monotonic() + seconds
    while time.monotonic() < end or not times["ours"]:
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


# -- the report -------------------------------------------------------------------------------------------------------


def markdown(results: dict[str, Any]) -> str:
    """All tables."""
    lines = ["# Check on a GPU", ""]
    if chip := results.get("card"):
        lines += [", ".join(f"{key} {value}" for key, value in chip.items()), ""]
    if rows := results.get("verified"):
        lines += ["## Right", "", "| network | precision | batch | error | answer |", "|---|---|---|---|---|"]
        for row in rows:
            wrong = "WRONG" if row.get("as_with_full_edges", True) else f"WRONG, and another with {SWITCH}=0"
            said = "right" if row.get("ok") else row.get("error", wrong)
            error = f"{row['max_rel']:.1e}" if "max_rel" in row else ""
            lines.append(f"| {row['network']} | {row['precision']} | {row['batch']} | {error} | {said} |")
        lines.append("")
    if sanitizer := results.get("sanitizer"):
        lines += ["## compute-sanitizer", "", json.dumps(sanitizer.get("tools", sanitizer)), ""]
    if rows := results.get("latency"):
        peers = ["ours", FULL, *PEERS]
        lines += [
            "## Milliseconds, host to host",
            "",
            f"| network | precision | batch | {' | '.join(peers)} | ours / best |",
        ]
        lines.append("|---" * (len(peers) + 4) + "|")
        for row in rows:
            cells = [f"{row['ms'][peer]:.3f}" if peer in row["ms"] else "" for peer in peers]
            ratio = f"{row['ratio_to_best']:.2f}" if row.get("ratio_to_best") else ""
            key = f"{row['network']} | {row['precision']} | {row['batch']}"
            lines.append(f"| {key} | {' | '.join(cells)} | {ratio} |")
        absent = {peer: why for row in rows for peer, why in row["without"].items()}
        lines += ["", *(f"Without {peer}: {why}" for peer, why in absent.items()), ""]
    if rows := results.get("tuning", {}).get("tasks"):
        lines += [
            "## The best of the choices tried, next to the default",
            "",
            "| layer | default, us | best / default |",
        ]
        lines.append("|---|---|---|")
        lines += [f"| {row['layer']} | {row['default_us']:.1f} | {row['ratio']:.2f} |" for row in rows]
        lines.append("")
    for name, entries in results.get("layers", {}).items():
        lines += [
            f"## Slowest layers of {name}",
            "",
            "| layer | op | us | floor of its products, us | of its bytes, us |",
            "|---|---|---|---|---|",
        ]
        for entry in entries[:20]:
            least = " | ".join(f"{entry[k]:.1f}" if k in entry else "" for k in ("products_us", "bytes_us"))
            lines.append(f"| {entry['layer']} | {entry['op']} | {entry['us']:.1f} | {least} |")
        lines.append("")
    for stage, why in results.get("failed", {}).items():
        lines += [f"Stage {stage} failed: {why}", ""]
    return "\n".join(lines)


# -- the two commands -------------------------------------------------------------------------------------------------


def prepare(folder: Path, target: str, networks: list[str], batches: list[int], precisions: list[str]) -> None:
    """Export every network for a GPU, with the answer that onnxruntime gives on this CPU."""
    import inception_deploy as idp

    folder.mkdir(parents=True, exist_ok=True)
    for name in networks:
        for batch, precision in itertools.product(batches if name in TIMED else batches[:1], precisions):
            path = place(folder, name, precision, batch)
            if not path.exists():
                print(path, file=sys.stderr)
                more = {"calibration": calibration(folder, name)} if precision == "int8" else {}
                idp.export(name, path, target=target, batch=batch, precision=precision, **more)
            with bundles.open(path) as opened:
                np.save(beside(path, "expected.npy"), expected(opened, precision))


def prepare_trials(folder: Path, target: str, network: str, precision: str, choices: int) -> None:
    """Trials of every layer of a network that has knobs: its default, and what the model of the card likes best."""
    from inception_deploy import targets
    from inception_deploy.graph import driver
    from inception_deploy.kernels.gpu import conv, mma
    from inception_deploy.lower.lower import layers_for
    from inception_deploy.sources import resolve
    from inception_deploy.tuning import gpu_trial
    from inception_deploy.tuning.space import Space, knobs
    from inception_deploy.tuning.task import tasks_of

    goal = targets.parse(target).at(precision)
    source = resolve.resolve(resolve.Request(model=network))
    model, _ = driver.optimise(source.onnx(lambda _what: None), target="cuda")
    place = folder / TRIALS
    place.mkdir(parents=True)
    rows = []
    for number, task in enumerate(tasks_of(layers_for(model, goal).layers)):
        space, cost = Space(task, goal), {"gpu.mma": mma.cycles, "gpu.conv": conv.cycles}
        family = goal.family(task.spec).family.name
        if family not in cost:
            continue
        every = [
            group.pick(dict(zip(group.values, values, strict=True)))
            for group in space.groups
            for values in itertools.product(*group.values.values())
        ]
        every.sort(key=lambda choice: cost[family](task.spec, choice.schedule, goal.isa.of_card))
        tried = list(dict.fromkeys([space.default, *every]))[: choices + 1]
        name = f"{number:03}.so"
        gpu_trial.build(task.spec, tried, goal, place / name)
        row = {"layer": str(task), "library": name, "spec": task.spec.encode(), "eligible": task.eligible}
        rows.append({**row, "count": task.count, "knobs": [knobs(choice) for choice in tried]})
    document = {"network": network, "target": target, "precision": precision, "tasks": rows}
    (place / "trials.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def records(results: Path, destination: Path) -> int:
    """A database of what the trials took on a GPU, for `export --tuned`; how many records it has."""
    from inception_deploy import targets
    from inception_deploy.kernels.spec import decode
    from inception_deploy.tuning import database
    from inception_deploy.tuning.space import Space
    from inception_deploy.tuning.task import Task
    from inception_deploy.tuning.tuned import identity

    found = json.loads((results / "cuda_check.json").read_text(encoding="utf-8"))["tuning"]
    goal = targets.parse(found["target"]).at(found["precision"])
    with database.create(destination, identity(found["network"], goal)) as opened:
        for row in found["tasks"]:
            task = Task(decode(row["spec"]), row["eligible"], row["count"], ())
            for values, seconds in zip(row["knobs"], row["seconds"], strict=True):
                for half in (seconds[::2], seconds[1::2]):  # what is confirmed has two records
                    opened.commit(task, Space(task, goal), values, half, goal)
        return len(opened.records)


def calibration(folder: Path, name: str) -> Path:
    """Random pictures for a network, prepared."""
    from inception_deploy import models

    path = folder / f"{name}.calibration.npz"
    if not path.exists():
        shape = (CALIBRATION, *models.spec(name).input)
        np.savez(path, images=np.random.default_rng(0).standard_normal(shape, dtype=np.float32))
    return path


def expected(opened: Any, precision: str) -> np.ndarray:
    """The first output for `feed`, on this CPU: onnxruntime's, and of integers the reference's, bit for bit."""
    import onnx

    from inception_deploy.bundles import engines
    from inception_deploy.quantize import integer_network

    given = feed(opened.manifest["inputs"])
    if precision == "int8":
        model = onnx.load(opened.folder / bundles.INT8_ONNX)
        return np.asarray(integer_network.reference(model, given)[0])
    return np.asarray(engines.make("onnxruntime", opened).run(*given.values())[0])


def check(run: Run) -> bool:
    """Every stage that there is time for. Whether all that was computed is right."""
    run.results["started"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    for stage in STAGES:
        if run.left <= 0:
            run.results.setdefault("failed", {})[stage.__name__] = "no time was left"
            continue
        try:
            stage(run)
        except Exception as error:  # the next stage may still tell something
            message = error.message if isinstance(error, DeployError) else f"{type(error).__name__}: {error}"
            run.results.setdefault("failed", {})[stage.__name__] = message
        run.write()
    rows = run.results.get("verified", [])
    return bool(rows) and all(row["ok"] for row in rows) and "card" not in run.results.get("failed", {})


def main() -> int:
    """Both commands."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prepare", type=Path, metavar="DIR", help="export the bundles there, and do nothing else")
    parser.add_argument("--target", default="cuda", help="of --prepare (cuda)")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS, metavar="NAME")
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES), metavar="N")
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS, metavar="P")
    parser.add_argument("--trials", type=int, default=0, metavar="N", help="of --prepare: choices to try, a layer (0)")
    parser.add_argument("--tune", default="irv2", choices=NETWORKS, metavar="NAME", help="whose layers (irv2)")
    parser.add_argument("--tune-precision", default="fp16", choices=PRECISIONS, metavar="P", help="in which (fp16)")
    parser.add_argument("--records", type=Path, metavar="DB", help="of the results in --out: a database for --tuned")
    parser.add_argument("--bundles", type=Path, metavar="DIR", help="what --prepare made (OUT/bundles, made now)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the results go")
    parser.add_argument("--minutes", type=float, default=9, help="that all of it may take (9)")
    parser.add_argument("--once", type=Path, metavar="BUNDLE", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.once:
        with bundles.open(chosen.once) as opened, compiled.load(opened.folder) as model:
            model.run(*feed(opened.manifest["inputs"]).values())
        return 0
    if chosen.prepare:
        prepare(chosen.prepare, chosen.target, chosen.networks, chosen.batches, chosen.precisions)
        if chosen.trials:
            prepare_trials(chosen.prepare, chosen.target, chosen.tune, chosen.tune_precision, chosen.trials)
        return 0
    if chosen.records and chosen.out:
        print(f"{records(chosen.out, chosen.records)} records in {chosen.records}")
        return 0
    if not chosen.out:
        parser.error("--out DIR or --prepare DIR is needed")
    where = chosen.bundles or chosen.out / "bundles"
    if chosen.bundles is None:
        if importlib.util.find_spec("tvm") is None:
            parser.error("without TVM here --bundles DIR is needed: what --prepare made on another machine")
        prepare(where, chosen.target, chosen.networks, chosen.batches, chosen.precisions)
    run = Run(where, chosen.out, time.monotonic() + 60 * chosen.minutes)
    right = check(run)
    print(chosen.out / "cuda_check.md")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
