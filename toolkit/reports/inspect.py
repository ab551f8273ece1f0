"""What is inside a bundle or an ONNX file: work, branches, memory, placement, and the measured time of each layer."""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..bundles import engines
from ..errors import DeployError
from ..feeds import feed
from ..lower.plan import VTA
from ..progress import NONE, Progress
from ..runtime import bundle as bundles
from .waiting import waiting

if TYPE_CHECKING:
    import onnx

_PROFILES = 5


def inspect(path: Path, *, threads: int | None = None, progress: Progress = NONE) -> dict[str, Any]:
    """Describe the bundle or the ONNX file at `path`.

    Returns:
        ``kind`` ("bundle" or "onnx"), ``model``, ``parameters`` (weights of the ONNX, in which batch norms are folded:
        fewer than were trained), ``macs``, ``nodes`` (count by operator), ``branches`` (where paths join: ``node``,
        ``op``, ``shape``, ``inputs``, ``paths``; of a bundle in int8 the inputs' ``scales``), ``layers`` (``layer``,
        ``op``, ``macs``, ``parameters``, ``shape``) and ``peak_bytes`` of activations. Of a bundle also ``plans``,
        where it has several: ``batch``, ``memory`` and ``steps`` (how many kernel calls) of each behind the first, of
        which all else is; ``target``, ``precision``, ``arithmetic``, ``memory``,
        ``placement``, ``refusals``, ``passes``, ``tuning`` and ``quantization`` (None where there was none), ``vta``
        (None, or `targets.vta.estimate` with the share of the multiply-adds that are done there, ``macs_percent``, and
        quantized layers that the host computes, ``kept``, with their reasons, and ``compared``, depthwise and grouped
        ones with what either takes, and ``siblings``, convolutions of the same pixels with what one step of them takes
        and what several do), and
        ``steps``: one row a kernel call, with the ``family`` of its kernel, those that would have been preferred and
        do not compute it (``refused``: a reason each), ``ms`` (median of several runs, each step alone), ``share``
        of their sum, and ``runs_ms``, each run; and ``waiting``, how long threads wait for each other
        (`reports.waiting`); None where the target does not run here.

        Where onnx is not installed, what is read from the ONNX of a bundle is None, and ``not_read`` says why.

    Raises:
        DeployError: the file or the bundle is damaged.
    """
    progress.stage("read")
    if not path.is_dir() and path.suffix.lower() == ".onnx":
        from ..sources import capture

        return {"kind": "onnx", "model": path.stem, **_network(capture.load_onnx(path))}
    with bundles.open(path) as bundle:
        return describe(bundle, threads=threads, progress=progress)


def _network_of(bundle: bundles.Bundle) -> dict[str, Any]:
    """`_network` of the bundle, or as much of it as its manifest tells."""
    try:
        import onnx
    except ModuleNotFoundError:
        known = bundle.manifest.get("cost", {})
        unknown = dict.fromkeys(("other_ops", "peak_bytes", "nodes", "branches", "layers"))
        return {
            "parameters": known.get("parameters"),
            "macs": known.get("macs"),
            **unknown,
            "not_read": "reading the ONNX needs inception-deploy[build]: pip install 'inception-deploy[build]'",
        }
    # The float network of an int8 bundle: it has the same branches and work, and says how many parameters.
    return _network(onnx.load(str(bundle.folder / bundles.ONNX)))


def describe(
    bundle: bundles.Bundle, *, threads: int | None = None, progress: Progress = NONE, runs: int = _PROFILES
) -> dict[str, Any]:
    """`inspect` of an opened bundle; every step is timed in `runs` runs."""
    network = _network_of(bundle)
    plan = bundle.document(bundles.PLAN)
    quantized = (bundle.manifest.get("quantization") or {}).get("tensors", {})
    for row in network["branches"] or ():
        row["scales"] = [quantized.get(name, {}).get("scale") for name in row["inputs"]] if quantized else None
    document = {
        "kind": "bundle",
        **{key: bundle.manifest[key] for key in ("model", "target", "precision")},
        "arithmetic": bundle.manifest.get("arithmetic"),
        **network,
        "memory": bundle.manifest["memory"],
        "plans": _plans(bundle, plan),
        "placement": plan["placements"],
        "refusals": bundle.document(bundles.REFUSALS),
        "passes": bundle.manifest.get("passes", []),
        "tuning": bundle.manifest.get("tuning"),
        "quantization": bundle.manifest.get("quantization"),
        "vta": _accelerated(bundle, plan),
    }
    progress.stage("measure")
    try:
        compiled = engines.load_compiled(bundle, threads)
    except DeployError as error:
        if error.kind != "target":
            raise
        return document | {"steps": _steps(plan["steps"], None), "not_run": error.message}
    if note := engines.simulated(bundle):
        progress.note(note)
    arrays = [*feed(bundle.manifest["inputs"]).values()]
    compiled.run(*arrays)
    if len(compiled.profile(*arrays)) != len(plan["steps"]):
        message = f"bundle {bundle.source} plan.json: field 'steps' does not list the library's kernel calls"
        raise DeployError(message, kind="bundle", got=len(plan["steps"]), allowed=len(compiled.profile(*arrays)))
    profiles = [[step.ms for step in compiled.profile(*arrays)] for _ in range(runs)]
    steps = _steps(plan["steps"], profiles)
    document["waiting"] = waiting(compiled, arrays, runs)
    return document | {"steps": steps, "refusals": [_measured(row, steps) for row in document["refusals"]]}


def _plans(bundle: bundles.Bundle, plan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the manifest and plan.json say of the plans behind the first."""
    told = bundle.manifest.get("plans", ())
    return [
        {"batch": row["batch"], "memory": row["memory"], "steps": len(own["steps"])}
        for row, own in zip(told, plan.get("plans", ()), strict=True)
    ]


def _accelerated(bundle: bundles.Bundle, plan: Mapping[str, Any]) -> dict[str, Any] | None:
    """What a VTA does of a bundle, and what its host does for which reason; None where there is no VTA."""
    from ..targets.vta.estimate import estimate

    found = estimate(bundle)
    if found is None:
        return None
    theirs = [step for step in plan["steps"] if step.get("device") == VTA]
    if len(found["steps"]) != len(theirs):
        message = f"bundle {bundle.source}: plan.json and the map of the VTA's memory list different steps"
        raise DeployError(message, kind="bundle", got=len(theirs), allowed=len(found["steps"]))
    for row, step in zip(found["steps"], theirs, strict=True):
        row |= {"op": step["op"], "macs": step["macs"]}
    macs = sum(step["macs"] for step in plan["steps"])
    share = 100 * sum(step["macs"] for step in theirs) / macs if macs else 0.0
    told = {name: plan.get(name, []) for name in ("kept", "compared", "siblings")}
    return {**found, "macs_percent": round(share, 2), **told}


def _steps(steps: Sequence[Mapping[str, Any]], profiles: Sequence[Sequence[float]] | None) -> list[dict[str, Any]]:
    if profiles is None:
        return [{**step, "ms": None, "share": None, "runs_ms": None} for step in steps]
    runs = list(zip(*profiles, strict=True))
    ms = [statistics.median(times) for times in runs]
    total = sum(ms) or 1.0
    return [
        {**step, "ms": round(value, 4), "share": round(value / total, 4), "runs_ms": [round(t, 4) for t in times]}
        for step, value, times in zip(steps, ms, runs, strict=True)
    ]


def _measured(refusal: Mapping[str, Any], steps: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """A row of refusals.json with the share that was measured here in place of the estimated one."""
    own = [step for step in steps if refusal["node"] in step["layers"]]
    return {**refusal, "ms": round(sum(s["ms"] for s in own), 4), "share": round(sum(s["share"] for s in own), 4)}


def _network(model: onnx.ModelProto) -> dict[str, Any]:
    from ..graph import cost

    found = cost.cost(model)
    inputs = {node.name: list(node.input) for node in model.graph.node}
    return {
        "parameters": found.parameters,
        "macs": found.macs,
        "other_ops": found.other_ops,
        "peak_bytes": found.peak_bytes,
        "nodes": dict(Counter(node.op_type for node in found.nodes).most_common()),
        "branches": [
            {
                "node": join.name,
                "op": join.op_type,
                "shape": list(join.output_shape),
                "inputs": inputs.get(join.name, []),
                "paths": [{"from": b.source, "nodes": list(b.nodes), "macs": b.macs} for b in join.branches],
            }
            for join in cost.joins(model)
        ],
        "layers": [
            {
                "layer": node.name,
                "op": node.op_type,
                "macs": node.macs,
                "parameters": node.parameters,
                "shape": list(node.output_shape),
            }
            for node in found.nodes
        ],
    }
