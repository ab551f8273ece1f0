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

import itertools
import os
import platform
import shutil
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

import inception_deploy.targets as targets
import inception_deploy.verify as verify

from . import __version__, artifact, feeds, judge, serving
from .bundles import explain
from .bundles.device import ELSEWHERE, PROGRAM
from .errors import DeployError, UsageError, nearest
from .graph import cost, driver, reach
from .graph.rows import with_rows
from .kernels.elements import HALF, HALVES
from .lower.lower import lower, lower_alike
from .lower.plan import reading
from .progress import NONE, Progress, Stopwatch
from .quantize import integer_network, job
from .quantize.prepare import quantizable
from .quantize.share import share
from .reports import check
from .runtime import bundle
from .runtime.compiled import load as load_compiled
from .sources import capture as exporter
from .sources import metadata, original, resolve
from .targets.cpu_library import costs
from .targets.precision import Settled, settle
from .tuning.shipped import for_this_machine
from .tuning.tuned import Tuned
from .tuning.tuned import load as load_tuned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from .lower.plan import Plan, Port, Step
    from .targets.base import Target

    Results = Mapping[str, check.Outputs]
    """The outputs of a stage, by the name of the input."""

_INSIDE = "bundle"
"""Where the bundle is made while it is not known what it will be called in the repository of a server."""

_TOOLS = ("torch", "apache-tvm", "apache-tvm-ffi", "onnx", "onnxruntime", "onnxscript", "onnxsim", "numpy", "ziglang")


def export(
    request: resolve.Request,
    destination: Path,
    *,
    target: str = "cpu",
    precision: str | None = None,
    quantization: job.Options | None = None,
    tuned: Path | None = None,
    shipped: bool = True,
    verified: bool = True,
    keep_stages: bool = False,
    keep_fp32: Sequence[str] = (),
    require_int8: float | None = None,
    onnx_only: bool = False,
    embed: bool = False,
    program: bool = True,
    serve: str | None = None,
    config: Mapping[str, Any] | None = None,
    force: bool = False,
    batches: Sequence[int] = (),
    progress: Progress = NONE,
) -> dict[str, Any]:
    """Export, optimise, compile and verify a network, and write its bundle to `destination` (a folder, or a .zip).

    Args:
        precision: what to compute in; None for int8 where the model is a quantized ONNX, and fp32 otherwise.
        quantization: how a float model becomes int8; for that precision only.
        tuned: a database of `tune`, whose choices of kernels are taken: of one precision.
        shipped: without `tuned`, take what the package knows of this machine's core.
        verified: compare every stage with the one before it, and write nothing where one is outside its tolerance.
        keep_stages: put the ONNX from before our graph passes into the bundle too, and the layers after each lowering
            pass.
        keep_fp32: nodes that are computed in fp32, where the network is in fp16 or bf16.
        require_int8: how many percent of the multiply-adds must compute in integers; for int8 only.
        onnx_only: compile nothing; a `destination` that ends in .onnx is the file alone.
        embed: the weights are linked into what is compiled, too.
        program: build ``run_model`` and its like.
        serve: a kind of `serving.KINDS`, whose repository around the bundle `destination` becomes.
        config: kept in the manifest.
        force: replace what stands at `destination`.
        batches: numbers of images above that of `request`, ascending: a plan for each goes into the same bundle.

    Returns:
        The document of ``export``.

    Raises:
        UsageError: an unknown model, target or precision, or an impossible option.
        DeployError: the work could not be done; nothing was written.
    """
    watch = Stopwatch(progress)
    goal = replace(targets.parse(target), programs=program)
    goal = goal.embedding() if embed else goal
    precision = precision or goal.precision_by_default
    if precision is not None:
        goal.at(precision)  # refuses here, not after minutes
    if quantization is not None and precision != "int8":
        message = "--calibration and what goes with it are for --precision int8"
        raise UsageError(message, kind="usage", got=precision or "no --precision", allowed="--precision int8")
    if require_int8 is not None and (precision not in (None, "int8") or not 0 <= require_int8 <= 100):
        message = "--require-int8 is a percentage, for int8"
        raise UsageError(message, kind="usage", got=require_int8, allowed="0 to 100, with --precision int8")
    goal.check_several(1 + len(batches))
    if onnx_only and batches:
        message = "--onnx-only compiles nothing, and so has no plans for several numbers of images"
        raise UsageError(message, kind="usage", got=list(batches), allowed="--batch N")
    if onnx_only and (tuned is not None or precision == "bf16"):
        message = "--onnx-only makes a file for other runtimes: nothing of it is tuned, or in bf16"
        raise UsageError(message, kind="usage", got="--tuned" if tuned else precision, allowed="fp32 or int8")
    if onnx_only and embed:
        message = "--onnx-only compiles nothing that --embed could link weights into"
        raise UsageError(message, kind="usage", got="--embed", allowed="one of the two")
    if destination.suffix == ".onnx" and not onnx_only:
        message = f"{destination} is the name of an ONNX file, and a bundle is a folder or a .zip"
        raise UsageError(message, kind="usage", got=str(destination), allowed="another name, or --onnx-only")
    if serve is not None:
        serving.check(serve, goal.kind, destination, onnx_only=onnx_only)
    if not onnx_only and (reason := goal.unbuildable()):
        raise DeployError(f"target {goal.name} cannot be built here: {reason}", kind="target", got=goal.name)
    wanted = _Wanted(
        goal, precision, quantization, tuned, shipped, verified, keep_stages, require_int8, onnx_only, config,
        tuple(batches), tuple(keep_fp32),
    )  # fmt: skip
    written = _file if destination.suffix == ".onnx" else artifact.atomic_folder
    # A calibration's state lies beside the bundle, so that the next export goes on where one was killed.
    beside = nullcontext() if onnx_only else goal.prepared()
    with job.calibrating(destination) as state, written(destination, force=force) as folder, beside:
        inside = folder if serve is None else folder / _INSIDE
        inside.mkdir(exist_ok=True)
        document = _Export(inside, state, wanted, request.seed, watch).run(request)
        made = destination
        if serve is not None:
            watch.stage("serve")
            document["serve"] = {"repository": str(destination), **serving.write(serve, folder, inside)}
            made /= document["serve"].pop("bundle")
        watch.stage("write")
    return {"bundle": str(made), **document, "seconds": watch.seconds(), "notes": watch.notes}


@contextmanager
def _file(destination: Path, *, force: bool) -> Iterator[Path]:
    """A folder for a bundle of which the ONNX alone, the quantized one where there is one, goes to `destination`."""
    if os.path.lexists(destination) and not force:
        message = f"{destination} already exists; --force replaces it"
        raise DeployError(message, kind="exists", got=str(destination), allowed="a path that does not exist yet")
    with artifact.temporary() as folder:
        yield folder
        made = next(path for name in (bundle.INT8_ONNX, bundle.ONNX) if (path := folder / name).exists())
        with artifact.atomic_file(destination) as partial:
            shutil.copyfile(made, partial)


@dataclass(frozen=True)
class _Wanted:
    """What `export` was asked for, besides the network."""

    target: Target
    precision: str | None
    quantization: job.Options | None
    tuned: Path | None
    shipped: bool
    verified: bool
    keep_stages: bool
    require_int8: float | None
    onnx_only: bool
    config: Mapping[str, Any] | None
    batches: tuple[int, ...]
    keep_fp32: tuple[str, ...]


class _Export:
    """The state of one export. It holds no model: a stage takes one as its argument and returns the next, so that one
    copy of the weights, hundreds of megabytes of a large network, is in memory and not one a stage.

    Attributes:
        given: the inputs that stages are compared on, by name; none where nothing is verified.
        stages: the rows of ``verify`` so far.
        facts: the manifest so far.
        built: the files of the compiled network.
    """

    def __init__(self, folder: Path, state: Path, wanted: _Wanted, seed: int, watch: Stopwatch) -> None:
        self.folder, self.state, self.wanted, self.seed, self.watch = folder, state, wanted, seed, watch
        self.given: dict[str, NDArray[np.float32]] = {}
        self.stages: list[dict[str, object]] = []
        self.facts: dict[str, Any] = {}
        self.built: list[str] = []

    def run(self, request: resolve.Request) -> dict[str, Any]:
        """All stages; gives the document of ``export``."""
        self.watch.stage("resolve")
        source = resolve.resolve(request)
        for note in source.notes:
            self.watch.note(note)
        target = self.wanted.target
        if self.wanted.tuned is not None:
            target = load_tuned(self.wanted.tuned, source.name, target)
        simplified, outputs = self.export(source)
        del source
        model, outputs = self.optimise(simplified, outputs)
        del simplified
        settled = self.settle(target, model)
        if settled.target.precision.name == "int8":
            model, outputs = self.quantize(model, outputs)
            self.share(model, settled.target)
        if self.wanted.onnx_only:
            return self.write_onnx(settled.target, model)
        target, plans, not_run = self.compile(model, settled, outputs)
        del model
        return self.write(target, plans, not_run)

    def export(self, source: resolve.Source) -> tuple[onnx.ModelProto, Results]:
        """PyTorch to simplified ONNX, and its outputs."""
        self.watch.stage("export")
        model = source.onnx(self._say)
        if self.wanted.verified:
            self.given = check.inputs_of(feeds.ports(model)[0], source.preprocessing, self.seed)
        outputs = self._outputs(model)
        before = {name: source.reference(x) for name, x in self.given.items()}
        if self.given and source.file is not None and original.on_integers(source.file):
            integers = check.run_int8(model, self.given)
            self._compare("onnx", before, integers, model, origin=source.origin, judged_as="integers")
        else:
            self._compare("onnx", before, outputs, source.rounded or model, origin=source.origin)
        if self.wanted.keep_stages:
            (self.folder / bundle.RAW_ONNX).parent.mkdir()
            onnx.save(model, str(self.folder / bundle.RAW_ONNX))
            if source.file is not None:
                original.keep(source.file, self.folder / bundle.ORIGINAL_ONNX)
        self.facts = {
            "model": source.name,
            "preprocessing": source.preprocessing,
            "labels": source.labels and list(source.labels),
            "zoo": source.zoo,
            "seed": self.seed,
            "exporter": exporter.exporter_of(model),
            **({} if self.wanted.config is None else {"config": dict(self.wanted.config)}),
        }
        return model, outputs

    def optimise(self, model: onnx.ModelProto, before: Results) -> tuple[onnx.ModelProto, Results]:
        """The graph passes."""
        self.watch.stage("optimise")
        verified = self.wanted.verified
        exported = model
        model, effects = driver.optimise(exported, target=self.wanted.target.kind, verify=verified, progress=self._say)
        outputs = self._outputs(model)
        self._compare("optimised", before, outputs, exported)
        del exported
        self._describe(model)
        onnx.save(model, str(self.folder / bundle.ONNX))
        work = cost.cost(model)
        self.facts["passes"] = [_effect(effect) for effect in effects if effect.fired]
        self.facts["cost"] = {"parameters": work.parameters, "macs": work.macs}
        return model, outputs

    def _describe(self, model: onnx.ModelProto) -> None:
        """Write into an ONNX what it says of itself."""
        metadata.write(model, *(self.facts[key] for key in ("model", "preprocessing", "labels")))

    def settle(self, target: Target, model: onnx.ModelProto) -> Settled:
        """The target at the precision asked for; where none was, a quantized ONNX means int8 and any other fp32."""
        quantized = integer_network.is_quantized(model)
        wanted = self.wanted.precision
        if wanted == "int8" and not quantized and not quantizable(model):
            message = "there is no convolution and no linear layer to quantize"
            if self.wanted.require_int8:
                raise DeployError(message, kind="int8", got=0, allowed=f"at least {self.wanted.require_int8:g} % int8")
            self.watch.note(f"{message}: the bundle is in fp32")
            wanted = "fp32"
        settled = settle(target, wanted, quantized=quantized)
        if self.wanted.tuned is not None:
            _refuse_tuned(settled.target.precision.name, [target.precision.name])
        return settled

    def quantize(self, model: onnx.ModelProto, outputs: Results) -> tuple[onnx.ModelProto, Results]:
        """To QDQ, unless the model is that already."""
        done = integer_network.is_quantized(model)
        if done and self.wanted.quantization is not None:
            message = "the model is quantized already: --calibration and what goes with it are for a float model"
            raise UsageError(message, kind="quantize", got="a quantized model", allowed="none of these options")
        options = self.wanted.quantization or job.Options()
        if done:
            int8 = model
        else:
            self.watch.stage("quantize")
            int8 = self._quantized(model, options)
        self.watch.stage("verify")
        judged: dict[str, NDArray[np.float32]] = {}
        if self.given:
            seen = None if done else job.sample(model, options, self.facts["preprocessing"])
            judged = check.inputs_for_int8(self.given, int8, seen)
        before = {
            name: outputs[name] if name in outputs else self._outputs(model, {name: x})[name]
            for name, x in judged.items()
        }
        self.given = judged
        after = check.run_int8(int8, judged)
        if not done:
            self._compare_quantized(before, after, model)
        elif not integer_network.is_ours(model):
            self._compare("integers", before, after, model)
        return int8, after

    def _compare_quantized(self, before: Results, after: Results, model: onnx.ModelProto) -> None:
        """As `_compare`; where 8 bits lose too much, with what helps."""
        try:
            self._compare("quantized", before, after, model)
        except DeployError as error:
            message = (
                f"{error.message}; 8 bits lose too much here: calibrate on pictures like those the network will see, "
                "try another --scheme, or give --max-drop with --evaluate, which keeps layers in float until it holds"
            )
            raise DeployError(message, kind=error.kind, got=error.got, allowed=error.allowed) from error

    def share(self, model: onnx.ModelProto, target: Target) -> None:
        """How much of the network is in integers: told, kept in the manifest, and held to what was required."""
        found = share(
            model,
            integers=target.precision.integers,
            borders=target.accelerator is not None,
            sixteen=target.sixteen,
        )
        for note in found.notes():
            self.watch.note(note)
        if self.wanted.require_int8 is not None:
            found.require(self.wanted.require_int8)
        self.facts["quantization"] = {**self.facts.get("quantization", FOREIGN), **found.as_dict()}

    def _quantized(self, model: onnx.ModelProto, options: job.Options) -> onnx.ModelProto:
        result, told = job.quantize(
            model,
            options,
            preprocessing=self.facts["preprocessing"],
            labels=self.facts["labels"],
            state=self.state,
            progress=self.watch,
        )
        tensors = {
            name: {"scale": how.scale, "zero_point": how.zero, "dtype": how.dtype}
            for name, how in integer_network.tensors(result.model).items()
        }
        self.facts["quantization"] = {**told, "tensors": tensors}
        self._describe(result.model)
        onnx.save(result.model, str(self.folder / bundle.INT8_ONNX))
        return result.model

    def compile(
        self, model: onnx.ModelProto, settled: Settled, outputs: Results
    ) -> tuple[Target, Sequence[Plan], list[dict[str, str]]]:
        """Lower and build for the target. Where the result is outside of its tolerance and the target has a more exact
        one (`Settled.exact`), that is lowered and built instead.

        Returns:
            The target that was built for, the Plan for each number of images, and what could not be checked on this
            machine.
        """
        target = self.widened(model, settled.target)
        rows = len(self.stages)
        try:
            plans = self.lower(model, target)
            return target, plans, self.build(plans, target, outputs, model)
        except DeployError as error:
            if error.kind != "verify" or settled.exact is None:
                raise
            target = settled.exact
            del self.stages[rows:]
            self.watch.note(f"{error.message}; compiling again: {target.precision.arithmetic}")
        plans = self.lower(model, target)
        return target, plans, self.build(plans, target, outputs, model)

    def widened(self, model: onnx.ModelProto, target: Target) -> Target:
        """The target with the nodes that are computed in fp32, where the others are in 16 bits: those asked for, and
        those that leave fp16's range.
        """
        asked = self.wanted.keep_fp32
        if asked and target.element not in HALVES:
            message = f"--keep-fp32 is for fp16, and bf16 of cuda and arm, and the export is in {target.precision.name}"
            raise UsageError(
                message, kind="usage", got=list(asked), allowed="--precision fp16, or of --target cuda or arm bf16"
            )
        known = [reach.node_name(node) for node in model.graph.node]
        for name in asked:
            if name not in known:
                hint = f"; did you mean {' or '.join(near)}?" if (near := nearest(name, known)) else ""
                message = f"--keep-fp32: the network has no node '{name}' after our passes{hint}"
                raise UsageError(message, kind="usage", got=name, allowed=known)
        far = []
        if target.element == HALF:
            ports = feeds.ports(model)
            given = (feeds.feed(ports, x) for x in self.given.values())
            far = reach.beyond(model, given, largest=reach.LARGEST_HALF, what="fp16")
        for row in far:
            self.watch.note(f"'{row.node}' reaches {row.largest:.3g}, and fp16 ends at 65504: it is computed in fp32")
        names = sorted({*asked, *(row.node for row in far)})
        if names:
            self.facts["in_fp32"] = names
        return replace(target, in_fp32=frozenset(names)) if names else target

    def lower(self, model: onnx.ModelProto, target: Target) -> Sequence[Plan]:
        """The Plan of a model, for each number of images. What they say of the network goes into the manifest."""
        self.watch.stage("lower")
        dumps = self._dumps() if self.wanted.keep_stages else None
        self.facts.pop("tuning", None)
        if self.wanted.shipped and (known := for_this_machine(target)) is not None:
            target = known
        if self.wanted.batches:
            models = itertools.chain([model], (with_rows(model, rows) for rows in self.wanted.batches))
            plans = lower_alike(models, target, self._say, dumps)
        else:
            plans = (lower(model, target, self._say, dumps),)
        self.facts |= _compiled(target, plans, model, self.facts.get("quantization"))
        if isinstance(target, Tuned) and (target.used or target.shipped is None):
            self.watch.note(target.note())
            self.facts["tuning"] = target.manifest()
        return plans

    def _dumps(self) -> Callable[[str, str], object]:
        """A function that writes the layers after a lowering pass into the bundle, by the pass's name. Files of an
        earlier lowering are removed.
        """
        for old in self.folder.glob(bundle.LAYERS.format("*")):
            old.unlink()
        return lambda name, text: (self.folder / bundle.LAYERS.format(name)).write_text(text)

    def build(
        self, plans: Sequence[Plan], target: Target, expected: Results, model: onnx.ModelProto
    ) -> list[dict[str, str]]:
        """Write the compiled files and compare what they compute with `expected`.

        Returns:
            What could not be checked on this machine, and why.
        """
        self.watch.stage("build")
        for name in self.built:  # removed, not written over: the library that was wrong is still mapped
            (self.folder / name).unlink()
        self.built = target.build_all(plans, self.folder, progress=self.watch.update)
        if not self.wanted.verified:
            return []
        self.watch.stage("verify")
        stage = target.precision.stage
        if reason := target.missing():
            there = f"; {ELSEWHERE}" if PROGRAM in self.built else ""
            self.watch.note(f"what was compiled was not checked: {reason}{there}")
            return [{"stage": stage, "reason": reason}]
        compiled, ports = load_compiled(self.folder, simulated=True), feeds.ports(model)
        exact = not target.precision.approximate
        got = {key: compiled.run(*feeds.feed(ports, x).values()) for key, x in self.given.items()}
        self._compare(stage, expected, got, model, exact=exact)
        for number, rows in enumerate(self.wanted.batches, 1):
            with load_compiled(self.folder, plan=number) as compiled:
                found = check.plan_row(model, self.given, rows, compiled, target.precision)
            self.stages.append(verify.require_ok(found))
        return []

    def write(self, target: Target, plans: Sequence[Plan], not_run: list[dict[str, str]]) -> dict[str, Any]:
        """The bundle's documents, and the seal on all of it."""
        first, *others = map(layout, plans)
        return self._seal(target, refusals(plans[0]), first | ({"plans": others} if others else {}), not_run)

    def write_onnx(self, target: Target, model: onnx.ModelProto) -> dict[str, Any]:
        """The same of a network of which nothing was compiled."""
        share = {"arena_bytes": 0, "weights_bytes": 0}
        ports = feeds.ports(model), feeds.described(model.graph.output)
        self.facts |= _interface(target, *ports, model) | {"arithmetic": None, "memory": share, "onnx_only": True}
        return self._seal(target, [], {"steps": [], "memories": [], "placements": []}, []) | {"onnx_only": True}

    def _seal(
        self, target: Target, refused: list[dict[str, Any]], plan: dict[str, Any], not_run: list[dict[str, str]]
    ) -> dict[str, Any]:
        checked = list(dict.fromkeys(row["stage"] for row in self.stages))
        artifact.dump_json(check.summary(self.stages, not_run), self.folder / bundle.VERIFY)
        artifact.dump_json(refused, self.folder / bundle.REFUSALS)
        artifact.dump_json(plan, self.folder / bundle.PLAN)
        explain.write(self.folder, self.facts, self.stages, not_run)
        bundle.seal(self.folder, {**self.facts, "tools": tools(), "checked": checked, "not_run": not_run})
        quantization = self.facts.get("quantization")
        return {
            "model": self.facts["model"],
            "target": target.name,
            "precision": target.precision.name,
            **({"quantization": _told(quantization)} if quantization else {}),
            "ok": all(bool(row["ok"]) for row in self.stages),
            "verified": checked,
            "not_run": not_run,
            "refusals": len(refused),
        }

    def _say(self, what: str) -> None:
        self.watch.update(0, 0, what)

    def _outputs(
        self, model: onnx.ModelProto, given: Mapping[str, NDArray[np.float32]] | None = None
    ) -> dict[str, check.Outputs]:
        """What an ONNX gives for the inputs, by their names."""
        ports = feeds.ports(model)
        given = self.given if given is None else given
        return {name: verify.run_onnx(model, feeds.feed(ports, x)) for name, x in given.items()}

    def _compare(
        self,
        stage: str,
        before: Results,
        after: Results,
        model: onnx.ModelProto,
        *,
        origin: str | None = None,
        judged_as: str | None = None,
        exact: bool = True,
    ) -> None:
        """Add a row of ``verify``; DeployError where it is outside of its tolerance.

        Args:
            model: what gave `before`, or its ONNX: what rounding does to it is measured where the tolerance is not met.
            origin: what `before` is of, where that is not the stage's usual reference.
            judged_as: the stage whose tolerance counts, where that is another.
            exact: `after` is rounded as fp32 is, and not by more.
        """
        if not self.given:
            return
        measured = check.rounding_of(model, self.given)
        row = judge.row(judged_as or stage, before, after, measured, allowance=exact) | {"stage": stage}
        if note := judge.note(row):
            self.watch.note(note)
        self.stages.append(verify.require_ok(row | ({"reference": origin} if origin else {})))


FOREIGN: Mapping[str, Any] = {"scheme": None, "method": None, "images": 0, "repairs": [], "drop_points": None}
"""What is known of how a file came to its integers that somebody else quantized."""


def _refuse_tuned(precision: str, known: Sequence[str]) -> None:
    """UsageError where there is nothing tuned for a precision, but for others."""
    if precision not in known:
        message = f"--tuned is for {' and '.join(known)}, and the export is in {precision}"
        raise UsageError(message, kind="usage", got=precision, allowed=[f"--precision {name}" for name in known])


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
            "family": plan.kernels[s.kernel].family,
            "refused": dict(plan.kernels[s.kernel].refused),
            "device": s.device,
            "wave": s.wave,
            "macs": s.macs,
            "bytes": operand_bytes(plan, s),
            "output": s.output,
        }
        for s in plan.steps
    ]
    tables = {name: getattr(plan, name) for name in ("memories", "placements", "kept", "compared", "siblings")}
    return {"steps": steps, **{name: [dict(vars(row)) for row in rows] for name, rows in tables.items()}}


def operand_bytes(plan: Plan, step: Step) -> int:
    """What a step reads and writes at the least: each operand once; 0 where its device keeps to itself what it does."""
    spec = plan.kernels[step.kernel].spec if step.kernel in plan.kernels else None
    return sum(operand.bytes for operand in spec.operands) if spec is not None else 0


def _told(quantization: Mapping[str, Any]) -> dict[str, Any]:
    """What the document of ``export`` says of the quantization: all but every tensor's scale."""
    return {name: value for name, value in quantization.items() if name != "tensors"}


def _arithmetic(target: Target, quantization: Mapping[str, Any] | None) -> str:
    """What the network computes in, as far as all of it does."""
    percent = 100.0 if quantization is None else quantization["integer_macs_percent"]
    if not target.precision.integers or percent == 100.0:
        return target.precision.arithmetic
    return f"{target.precision.arithmetic}: {percent:g} % of the multiply-adds; the rest in fp32"


def _compiled(
    target: Target, plans: Sequence[Plan], model: onnx.ModelProto, quantization: Mapping[str, Any] | None
) -> dict[str, Any]:
    """The part of the manifest that tells what was compiled, from what, for what. Of several plans the first is told as
    if it were the only one, and the others in ``plans``.
    """
    first, *others = plans
    memory = {"arena_bytes": first.arena_bytes, "weights_bytes": len(first.weights)}
    told = {"arithmetic": _arithmetic(target, quantization), "memory": memory}
    if not others:
        return {**_interface(target, *_tensors(first), model), **told}
    read = reading(plans)
    memory["shared_bytes"] = sum(size for size, readers in read if len(readers) == len(plans))
    rows = []
    for number, plan in enumerate(others, 1):
        ports = _interface(target, *_tensors(plan), model)
        own = {"arena_bytes": plan.arena_bytes, "weights_bytes": sum(size for size, who in read if number in who)}
        sides = {side: ports[side] for side in ("inputs", "outputs")}
        rows.append({"batch": plan.inputs[0].shape[0], **sides, "memory": own})
    return {**_interface(target, *_tensors(first), model), **told, "plans": rows}


def _tensors(plan: Plan) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Its inputs and outputs, for the manifest."""
    return [_tensor(port) for port in plan.inputs], [_tensor(port) for port in plan.outputs]


def _interface(
    target: Target, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]], model: onnx.ModelProto
) -> dict[str, Any]:
    """What goes in and comes out, on what."""
    scales = {
        name: {"scale": how.scale, "zero_point": how.zero, "quantized_dtype": how.dtype}
        for name, how in (integer_network.tensors(model).items() if integer_network.is_ours(model) else ())
    }
    ending = {node.output[0]: node.op_type for node in model.graph.node}
    return {
        "target": target.name,
        "target_details": target.describe(),
        "precision": target.precision.name,
        "integers": target.precision.integers,
        "inputs": [{**port, **scales.get(port["name"], {})} for port in inputs],
        "outputs": [
            {**port, "kind": "probabilities" if ending.get(port["name"]) == "Softmax" else "logits"} for port in outputs
        ],
    }


def _tensor(port: Port) -> dict[str, Any]:
    return {"name": port.name, "shape": list(port.shape), "dtype": port.dtype}


def tools() -> dict[str, str]:
    """The versions of what took part."""
    versions = {name: version(name) for name in _TOOLS}
    return {"inception-deploy": __version__, "python": platform.python_version(), **versions}
