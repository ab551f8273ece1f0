"""The main job on one page: a network in, a verified bundle out.

resolve    --model becomes a module or an ONNX
export     PyTorch -> ONNX, simplified           checked against PyTorch
optimise   our graph passes                      checked against the ONNX before them
quantize   fp32 -> QDQ, for int8 only            checked against the ONNX before it
lower      ONNX -> Plan
build      Plan -> the target's compiled files   checked against the ONNX that was lowered
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
from .quantize import job, network
from .targets.library import costs
from .tuning.tuned import TunedCpu
from .tuning.tuned import load as load_tuned

if TYPE_CHECKING:
    from collections.abc import Mapping

    import onnx

    from .lower.plan import Plan, Port
    from .targets.base import Target

_TOOLS = ("torch", "apache-tvm", "apache-tvm-ffi", "onnx", "onnxruntime", "onnxscript", "onnxsim", "numpy", "ziglang")


def export(
    request: sources.Request,
    destination: Path,
    *,
    target: str = "cpu",
    precision: str | None = None,
    quantisation: job.Options | None = None,
    tuned: Path | None = None,
    verified: bool = True,
    keep_stages: bool = False,
    force: bool = False,
    progress: Progress = NONE,
) -> dict[str, Any]:
    """Export, optimise, compile and verify a network, and write its bundle to `destination` (a folder, or a .zip).

    Args:
        precision: what to compute in; None for int8 where the model is a quantised ONNX, and fp32 otherwise.
        quantisation: how a float model becomes int8; for that precision only.
        tuned: a database of `tune`, whose choices of kernels are taken; for fp32 only.
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
    if precision is not None:
        goal = goal.at(precision)
    if quantisation is not None and precision != "int8":
        message = "--calibration and what goes with it are for --precision int8"
        raise UsageError(message, kind="usage", got=precision or "no --precision", allowed="--precision int8")
    if tuned is not None:
        _refuse_tuned(precision or "fp32")
    if reason := goal.unbuildable():
        raise DeployError(f"target {goal.name} cannot be built here: {reason}", kind="target", got=goal.name)
    # A calibration's state lies beside the bundle, so that the next export goes on where one was killed.
    with job.calibrating(destination) as state, artifact.atomic_folder(destination, force=force) as folder:
        document = _fill(folder, request, goal, precision, quantisation, tuned, state, verified, keep_stages, watch)
        watch.stage("write")
    return {"bundle": str(destination), **document, "seconds": watch.seconds()}


def _fill(
    folder: Path,
    request: sources.Request,
    goal: Target,
    precision: str | None,
    quantisation: job.Options | None,
    tuned: Path | None,
    state: Path,
    verified: bool,
    keep_stages: bool,
    watch: Stopwatch,
) -> dict[str, Any]:
    import onnx

    watch.stage("resolve")
    source = sources.resolve(request)
    for note in source.notes:
        watch.note(note)
    if tuned is not None:
        goal = load_tuned(tuned, source.name, goal)

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
    described: dict[str, Any] = {
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
    described |= _measured(model)

    precision = precision or ("int8" if network.is_quantised(model) else "fp32")
    goal = goal.at(precision)
    if tuned is not None:
        _refuse_tuned(precision)
    quantised: dict[str, Any] = {}
    if precision == "int8":
        float_model = model
        if quantisation is not None or not network.is_quantised(model):
            watch.stage("quantize")
            model, quantised = _quantize(model, quantisation or job.Options(), described, state, watch)
            onnx.save(model, str(folder / bundle.INT8_ONNX))
        if verified:
            watch.stage("verify")
            given = check.inputs_for_int8(given, model)
            before, optimised = run(float_model), check.run_int8(model, given)
            if float_model is not model:
                stages.append(verify.require_ok(check.row("quantized", before, optimised)))
        del float_model

    watch.stage("lower")
    plan = lower(model, goal, lambda what: watch.update(0, 0, what))
    if isinstance(goal, TunedCpu):
        watch.note(goal.note())
    manifest = {
        **described,
        **_compiled(goal, precision, plan, model),
        **quantised,
        "integers": goal.integers and network.is_ours(model),
        **({"tuning": goal.manifest()} if isinstance(goal, TunedCpu) else {}),
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
        stage = check.compiled_stage(manifest)
        if reason := goal.missing():
            not_run.append({"stage": stage, "reason": reason})
        else:
            compiled = runtime.load(folder)
            got = {key: compiled.run(x) for key, x in given.items()}
            stages.append(verify.require_ok(check.row(stage, optimised, got)))
    manifest |= {"checked": [row["stage"] for row in stages], "not_run": not_run}
    artifact.dump_json(check.summary(stages, not_run), folder / bundle.VERIFY)
    artifact.dump_json(refusals(plan), folder / bundle.REFUSALS)
    artifact.dump_json(layout(plan), folder / bundle.PLAN)
    bundle.seal(folder, manifest)
    return {
        "model": described["model"],
        "target": goal.name,
        "precision": precision,
        **({"quantization": _told(manifest["quantization"])} if "quantization" in manifest else {}),
        "ok": all(bool(row["ok"]) for row in stages),
        "verified": [row["stage"] for row in stages],
        "not_run": not_run,
        "refusals": len(plan.refusals),
    }


def _refuse_tuned(precision: str) -> None:
    """UsageError where there is nothing tuned for a precision."""
    if precision != "fp32":
        raise UsageError("--tuned is for fp32", kind="usage", got=precision, allowed="--precision fp32")


def _quantize(
    model: onnx.ModelProto, options: job.Options, described: Mapping[str, Any], state: Path, watch: Stopwatch
) -> tuple[onnx.ModelProto, dict[str, Any]]:
    """The QDQ model, and what the manifest says of it."""
    result, document = job.quantise(
        model,
        options,
        preprocessing=described["preprocessing"],
        labels=described["labels"],
        state=state,
        progress=watch,
    )
    tensors = {
        name: {"scale": how.scale, "zero_point": how.zero, "dtype": how.dtype}
        for name, how in network.tensors(result.model).items()
    }
    return result.model, {"quantization": {**document, "tensors": tensors}}


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


def _told(quantization: Mapping[str, Any]) -> dict[str, Any]:
    """What the document of ``export`` says of the quantisation: all but every tensor's scale."""
    return {name: value for name, value in quantization.items() if name != "tensors"}


def _measured(model: onnx.ModelProto) -> dict[str, Any]:
    """The part of the manifest that tells how large the network is."""
    work = cost.cost(model)
    return {"cost": {"parameters": work.parameters, "macs": work.macs}}


def _compiled(goal: Target, precision: str, plan: Plan, model: onnx.ModelProto) -> dict[str, Any]:
    """The part of the manifest that tells what was compiled, from what, for what."""
    scales = {
        name: {"scale": how.scale, "zero_point": how.zero, "quantized_dtype": how.dtype}
        for name, how in (network.tensors(model).items() if network.is_ours(model) else ())
    }
    ending = {node.output[0]: node.op_type for node in model.graph.node}
    outputs = [
        {**_tensor(port), "kind": "probabilities" if ending.get(port.name) == "Softmax" else "logits"}
        for port in plan.outputs
    ]
    return {
        "target": goal.name,
        "target_details": goal.describe(),
        "precision": precision,
        "inputs": [{**_tensor(port), **scales.get(port.name, {})} for port in plan.inputs],
        "outputs": outputs,
        "memory": {"arena_bytes": plan.arena_bytes, "weights_bytes": len(plan.weights)},
    }


def _tensor(port: Port) -> dict[str, Any]:
    return {"name": port.name, "shape": list(port.shape), "dtype": port.dtype}


def tools() -> dict[str, str]:
    """The versions of what took part."""
    versions = {name: metadata.version(name) for name in _TOOLS}
    return {"inception-deploy": __version__, "python": platform.python_version(), **versions}
