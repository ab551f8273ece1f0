"""The main job on one page: a network in, a verified bundle out.

resolve    --model becomes a module or an ONNX
export     PyTorch -> ONNX, simplified           checked against PyTorch
optimise   our graph passes                      checked against the ONNX before them
lower      ONNX -> Plan
build      Plan -> the target's compiled files   checked against the optimised ONNX
write      everything into one bundle, atomically
"""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__, artifact, bundle, check, runtime, sources, targets, verify
from . import export as exporter
from .errors import DeployError, UsageError
from .graph import cost, driver
from .lower.lower import lower
from .progress import NONE, Progress, Stopwatch
from .targets.library import costs

if TYPE_CHECKING:
    import onnx

    from .lower.plan import Plan, Port
    from .targets.base import Target

PRECISIONS = ("fp32",)
"""What the targets compute in."""

_TOOLS = ("torch", "apache-tvm", "apache-tvm-ffi", "onnx", "onnxruntime", "onnxscript", "onnxsim", "numpy", "ziglang")


def export(
    request: sources.Request,
    destination: Path,
    *,
    target: str = "cpu",
    precision: str = "fp32",
    verified: bool = True,
    keep_stages: bool = False,
    force: bool = False,
    progress: Progress = NONE,
) -> dict[str, Any]:
    """Export, optimise, compile and verify a network, and write its bundle to `destination` (a folder, or a .zip).

    Args:
        verified: compare every stage with the one before it, and write nothing where one is outside its tolerance.
        keep_stages: put the ONNX from before our graph passes into the bundle too.
        force: replace what stands at `destination`.

    Returns:
        The document of ``export``.

    Raises:
        UsageError: an unknown model, target or precision, or an impossible option.
        DeployError: the work could not be done; nothing was written.
    """
    watch = Stopwatch(progress)
    goal = targets.parse(target)
    if precision not in PRECISIONS:
        message = f"target {goal.name} does not compute in '{precision}'"
        raise UsageError(message, kind="precision", got=precision, allowed=list(PRECISIONS))
    if reason := goal.unbuildable():
        raise DeployError(f"target {goal.name} cannot be built here: {reason}", kind="target", got=goal.name)
    with artifact.atomic_folder(destination, force=force) as folder:
        document = _fill(folder, request, goal, precision, verified, keep_stages, watch)
        watch.stage("write")
    return {"bundle": str(destination), **document, "seconds": watch.seconds()}


def _fill(
    folder: Path,
    request: sources.Request,
    goal: Target,
    precision: str,
    verified: bool,
    keep_stages: bool,
    watch: Stopwatch,
) -> dict[str, Any]:
    import onnx

    watch.stage("resolve")
    source = sources.resolve(request)
    for note in source.notes:
        watch.note(note)

    watch.stage("export")
    simplified = source.onnx(lambda what: watch.update(0, 0, what))
    port = simplified.graph.input[0]
    shape = [extent.dim_value for extent in port.type.tensor_type.shape.dim]
    given = check.inputs(shape, source.preprocessing, request.seed) if verified else {}
    stages = []

    def run(model: onnx.ModelProto) -> dict[str, check.Outputs]:
        return {name: verify.run_onnx(model, {port.name: x}) for name, x in given.items()}

    before = run(simplified)
    if verified and source.reference is not None:
        expected = {name: source.reference(x) for name, x in given.items()}
        stages.append(verify.require_ok(check.row("onnx", expected, before)))
    exported_by = exporter.exporter_of(simplified)
    if keep_stages:
        (folder / bundle.RAW_ONNX).parent.mkdir()
        onnx.save(simplified, str(folder / bundle.RAW_ONNX))

    watch.stage("optimise")
    model, effects = driver.optimise(
        simplified, target=goal.kind, verify=verified, progress=lambda what: watch.update(0, 0, what)
    )
    described = {
        "model": source.name,
        "preprocessing": source.preprocessing,
        "labels": source.labels and list(source.labels),
        "zoo": source.zoo,
        "seed": request.seed,
    }
    del source, simplified  # the weights once is enough: the module and the first ONNX held them twice more
    optimised = run(model)
    if verified:
        stages.append(verify.require_ok(check.row("optimised", before, optimised)))
    onnx.save(model, str(folder / bundle.ONNX))

    watch.stage("lower")
    plan = lower(model, goal, lambda what: watch.update(0, 0, what))
    manifest = {
        **described,
        **_compiled(goal, precision, plan, model),
        "exporter": exported_by,
        "passes": [_effect(effect) for effect in effects if effect.fired],
        "tools": tools(),
    }
    del model

    watch.stage("build")
    goal.build(plan, folder, progress=watch.update)
    not_run = []
    if verified:
        watch.stage("verify")
        if reason := goal.missing():
            not_run.append({"stage": "compiled", "reason": reason})
        else:
            compiled = runtime.load(folder)
            got = {key: compiled.run(x) for key, x in given.items()}
            stages.append(verify.require_ok(check.row("compiled", optimised, got)))
    manifest |= {"checked": [row["stage"] for row in stages], "not_run": not_run}
    artifact.dump_json(check.summary(stages, not_run), folder / bundle.VERIFY)
    artifact.dump_json(refusals(plan), folder / bundle.REFUSALS)
    artifact.dump_json(layout(plan), folder / bundle.PLAN)
    bundle.seal(folder, manifest)
    return {
        "model": described["model"],
        "target": goal.name,
        "precision": precision,
        "ok": all(bool(row["ok"]) for row in stages),
        "verified": [row["stage"] for row in stages],
        "not_run": not_run,
        "refusals": len(plan.refusals),
    }


def _effect(effect: driver.PassEffect) -> dict[str, Any]:
    """What a pass did, without the seconds it took, which differ from run to run."""
    return {name: value for name, value in effect.as_dict().items() if name != "seconds"}


def refusals(plan: Plan) -> list[dict[str, Any]]:
    """The operators that took TVM's default: ``node``, ``op``, ``reason``, and ``share``, their part of the time.

    The share is estimated from the work and the bytes of each step, because a measured one would make every export's
    bytes differ; `inspect` measures.
    """
    estimated = costs(plan)
    total = sum(estimated)
    return [
        {
            **vars(refusal),
            "share": round(
                sum(cost for step, cost in zip(plan.steps, estimated, strict=True) if refusal.node in step.layers)
                / total,
                4,
            ),
        }
        for refusal in plan.refusals
    ]


def layout(plan: Plan) -> dict[str, Any]:
    """What `inspect` shows of a plan: its kernel calls in order, and where every value lives."""
    steps = [
        {
            "layer": s.name,
            "layers": list(s.layers),
            "op": s.op,
            "kernel": s.kernel,
            "wave": s.wave,
            "macs": s.macs,
            "output": s.output,
        }
        for s in plan.steps
    ]
    return {"steps": steps, "placements": [dict(vars(placement)) for placement in plan.placements]}


def _compiled(goal: Target, precision: str, plan: Plan, model: onnx.ModelProto) -> dict[str, Any]:
    """The part of the manifest that tells what was compiled, from what, for what."""
    work = cost.cost(model)
    ending = {node.output[0]: node.op_type for node in model.graph.node}
    outputs = [
        {**_tensor(port), "kind": "probabilities" if ending.get(port.name) == "Softmax" else "logits"}
        for port in plan.outputs
    ]
    return {
        "target": goal.name,
        "target_details": goal.describe(),
        "precision": precision,
        "inputs": [_tensor(port) for port in plan.inputs],
        "outputs": outputs,
        "cost": {"parameters": work.parameters, "macs": work.macs},
        "memory": {"arena_bytes": plan.arena_bytes, "weights_bytes": len(plan.weights)},
    }


def _tensor(port: Port) -> dict[str, Any]:
    return {"name": port.name, "shape": list(port.shape), "dtype": port.dtype}


def tools() -> dict[str, str]:
    """The versions of what took part."""
    versions = {name: metadata.version(name) for name in _TOOLS}
    return {"inception-deploy": __version__, "python": platform.python_version(), **versions}
