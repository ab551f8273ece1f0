"""The one list of graph passes, and the loop that runs it and answers for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from inception_deploy import judge
from inception_deploy.errors import DeployError, UsageError
from inception_deploy.feeds import feed, ports
from inception_deploy.graph.branch import commute_pool, flatten_concats, merge_siblings
from inception_deploy.graph.clean import fold_constants, lift_constants, remove_dead, remove_noops
from inception_deploy.graph.cost import cost
from inception_deploy.graph.even import even_scales
from inception_deploy.graph.fold import fold_affine, fold_batchnorm, fold_pads
from inception_deploy.graph.fuse import fuse_flatten, fuse_gemm, fuse_global_pool
from inception_deploy.graph.moved import quantize_moved
from inception_deploy.graph.skeleton import check
from inception_deploy.graph.stack import unstack_sums
from inception_deploy.graph.windows import explicit_windows
from inception_deploy.rounding import Rounding
from inception_deploy.verify import run_onnx

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

KINDS = ("cpu", "cuda", "arm", "vta", "onnxruntime")
"""The target kinds a pass may be on or off for; `onnxruntime` runs the bundle's ONNX file itself."""


@dataclass(frozen=True)
class Pass:
    """One entry of `PASSES`.

    Attributes:
        run: changes a model in place and returns how often it fired; its docstring states the algebra.
        why_here: the reason for its place in the list.
        off: target kind -> why the pass does not pay there. Every figure is explained in docs/passes.md.
    """

    run: Callable[[ir.Model], int]
    why_here: str
    off: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if set(self.off) - set(KINDS):
            raise ValueError(f"{self.name} is off for unknown kinds {sorted(set(self.off) - set(KINDS))}")

    @property
    def name(self) -> str:
        """One name everywhere: the function's."""
        return self.run.__name__


MERGE_OFF = {
    "onnxruntime": "its Split copies what the merge gains: 1.04 to 1.15 times the time",
    "cpu": "1.05 times the time: siblings already run side by side, and a branch writes its slice of a concat no more",
    "arm": "as on cpu, whose lowering it shares",
    "cuda": "not measured to pay",
    "vta": "not measured to pay",
}

PASSES: tuple[Pass, ...] = (
    Pass(lift_constants, "first: every other pass recognises constants by their being initialisers"),
    Pass(explicit_windows, "before every pass that asks how a convolution or a pooling pads"),
    Pass(remove_noops, "before the folds: an Identity or Dropout between two operators would keep them apart"),
    Pass(fold_constants, "before the fusions and folds: they ask whether shapes, axes and weights are constants"),
    Pass(fuse_gemm, "before the affine folds: they know Gemm, not MatMul"),
    Pass(fuse_global_pool, "any time before the lowering; here, so that its Flatten is seen as one by the next"),
    Pass(fuse_flatten, "after the constants are folded: only then is the target shape known"),
    Pass(quantize_moved, "after the fusions, which spell moves alike, and the constants: scales are"),
    Pass(even_scales, "after quantize_moved, which may quantize what lies between two convolutions"),
    Pass(fold_pads, "before the affine folds: a convolution's own padding decides which of them are exact"),
    Pass(fold_batchnorm, "before fold_affine, which takes what is left of one as a Mul and an Add"),
    Pass(fold_affine, "after fold_batchnorm: a residual scale meets a convolution that has its final bias"),
    Pass(unstack_sums, "before flatten_concats, which would hide a stack inside of another concat"),
    Pass(flatten_concats, "after the removals and folds, which clear what stands between two concats"),
    Pass(
        commute_pool, "after the folds: they give the convolution its final bias; before the merge: it makes siblings"
    ),
    Pass(merge_siblings, "after everything that changes convolutions", off=MERGE_OFF),
    Pass(remove_dead, "last: forget what the others left unread"),
)


@dataclass(frozen=True)
class PassEffect:
    """What one pass did: multiply-accumulates, other operations (`cost.NodeCost`) and nodes, before and after."""

    name: str
    fired: int
    macs_before: int
    macs_after: int
    other_ops_before: int
    other_ops_after: int
    nodes_before: int
    nodes_after: int
    seconds: float

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def passes_for(target: str) -> list[Pass]:
    """The passes that are on for a target such as ``cpu`` or ``cuda:sm_90``, in order.

    Raises:
        UsageError: the target's kind is unknown.
    """
    kind = target.partition(":")[0]
    if kind not in KINDS:
        raise UsageError(f"unknown target kind {kind!r}", kind="target", got=target, allowed=KINDS)
    return [entry for entry in PASSES if kind not in entry.off]


def optimise(
    model: onnx.ModelProto,
    *,
    target: str = "cpu",
    verify: bool = True,
    progress: Callable[[str], None] | None = None,
    passes: list[Pass] | None = None,
) -> tuple[onnx.ModelProto, list[PassEffect]]:
    """Run the passes that pay on `target` over a float32 model.

    After every pass that fired, onnx checks the graph and infers its shapes again. With `verify`, the result is then
    compared with `model` in onnxruntime on random input; where they differ, the passes are run once more, one
    comparison each, to name the one at fault.

    Args:
        model: as `export.to_onnx` or `export.load_onnx` gave it; left as it was.
        progress: is told each pass's name before it runs.
        passes: these instead of `target`'s, for tests and measurements.

    Returns:
        The optimised model, with every shape inferred and no BatchNormalization left, and each pass's effect in order.

    Raises:
        DeployError: a pass broke the graph or changed its numbers (the pass is named), or a BatchNormalization cannot
            be folded because it is in training mode or its statistics are not constant.
        UsageError: unknown target.
    """
    chosen = passes_for(target) if passes is None else passes
    say = progress or (lambda _: None)
    result, effects = _prepare(model), []
    for entry in chosen:
        say(entry.name)
        effects.append(_run(entry, result))
    if passes is None:
        _refuse_batchnorm(result)
    optimised = _finish(result)
    if verify:
        say("comparing with the exported model")
        feeds = random_feeds(model)
        expected = run_onnx(model, feeds)
        rounding = Rounding(model, {"random": feeds})
        if not _agree(expected, run_onnx(optimised, feeds), rounding)["ok"]:
            raise _culprit(model, chosen, expected, feeds, rounding)
    return optimised, effects


def random_feeds(model: onnx.ModelProto, *, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Numbers for every input of `model`; a symbolic size is 2, so that mixing up rows shows."""
    return feed(ports(model), seed=seed)


def _prepare(model: onnx.ModelProto) -> ir.Model:
    result = ir.from_proto(model)
    _check(result, "before any pass ran")
    return result


def _run(entry: Pass, model: ir.Model) -> PassEffect:
    start, before, nodes = time.perf_counter(), cost(model), len(model.graph)
    fired = entry.run(model)
    if fired:
        _check(model, f"after pass {entry.name}")
    after = cost(model)
    return PassEffect(
        entry.name,
        fired,
        before.macs,
        after.macs,
        before.other_ops,
        after.other_ops,
        nodes,
        len(model.graph),
        time.perf_counter() - start,
    )


def _check(model: ir.Model, when: str) -> None:
    try:
        check(model)
    except Exception as error:  # onnx's ValidationError and InferenceError have no common base
        raise DeployError(
            f"the graph is not valid {when}: {str(error).strip().splitlines()[0]}", kind="graph"
        ) from error


def _finish(model: ir.Model) -> onnx.ModelProto:
    for node in model.graph:
        node.metadata_props.clear()
        for value in node.outputs:
            value.metadata_props.clear()
    for value in model.graph.initializers.values():
        value.metadata_props.clear()
    return ir.to_proto(model)


def _refuse_batchnorm(model: ir.Model) -> None:
    left = [node for node in model.graph if node.op_type == "BatchNormalization"]
    if left:
        names = [node.name for node in left]
        raise DeployError(
            f"batch normalisation cannot be folded: {', '.join(map(str, names[:5]))}: it is in training mode, "
            "or its scale, bias, mean or variance is not a constant",
            kind="graph",
            got=names,
            allowed="inference mode and constant statistics",
        )


def _agree(expected: list[NDArray[Any]], got: list[NDArray[Any]], rounding: Rounding) -> dict[str, Any]:
    return judge.row("optimised", {"random": expected}, {"random": got}, rounding)


def _culprit(
    model: onnx.ModelProto,
    chosen: list[Pass],
    expected: list[NDArray[Any]],
    feeds: dict[str, NDArray[np.float32]],
    rounding: Rounding,
) -> DeployError:
    """The error that names the first pass after which the numbers differ."""
    result = _prepare(model)
    row: dict[str, Any] = {"ok": True}
    for entry in chosen:
        if _run(entry, result).fired:
            row = _agree(expected, run_onnx(_finish(result), feeds), rounding)
            if not row["ok"]:
                break
    name = "the passes together" if row["ok"] else entry.name
    message = f"{name} changed the numbers: relative error {row.get('max_rel')}"
    return DeployError(message, kind="graph", got=row.get("max_rel"), allowed=row.get("allowed"))
