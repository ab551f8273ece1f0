"""How close is close enough: the one table of tolerances, and the comparison that uses it.

Every stage of a deployment is compared with the stage before it, on the same input. The error of quantities is measured
relative to the largest absolute value of the reference (`max_rel`): a network's logits are all of one scale, so an
element-wise relative error would only measure how near to zero the smallest logit happens to be. Class numbers, masks
and other integers are no quantities: they are equal or not, and what counts is the share that is not.

An error is right by one of these criteria, which `compare` names:

fixed   it is within the tolerance of the stage
range   it is within a share of the output's own range, where that is known (after a Sigmoid it is [0, 1]): a map of
        probabilities that are all nearly zero has no scale of its own
noise   it is within a multiple of what rounding alone does to this network on this input, as `rounding` measures it
equal   of integers and booleans: they are equal, apart from ties and from the share that the stage may differ in

No other file of this project holds a tolerance; tests import them from here. docs/verification.md explains them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inception_deploy import front
from inception_deploy.errors import DeployError
from inception_deploy.ortsession import session_options

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

ROUNDING = 8.0
"""How many times the measured noise a stage may be off that has an allowance for rounding. The noise is of weights that
are half an ulp off; sums of hundreds of products, rounded in another order, are off by a few times that."""

LOUDEST = 0.02
"""An input on which a right result may be off by more than this, by its noise, tells right from wrong no more: the
network is compared on the others."""

_BROKEN = 0.5
"""An error that no noise excuses: where every input is louder, a comparison finds a network that is broken."""


front(__name__)


@dataclass(frozen=True)
class Tolerance:
    """What one stage is compared with and how far it may be off.

    Attributes:
        reference: the name of the stage it is compared with.
        max_rel: the largest allowed ``max|got - reference| / max|reference|``; of integers, the share that may differ.
        reason: why this limit is right, for the reader of the table.
        rounding: how many times the network's own rounding noise it may be off instead; 0 for no such allowance.
        of_range: what share of the output's known range it may be off instead.
    """

    reference: str
    max_rel: float
    reason: str
    rounding: float = 0.0
    of_range: float = 1e-6

    def __post_init__(self) -> None:
        if not 0 < self.max_rel < 1:
            raise ValueError(f"a tolerance lies between 0 and 1, got {self.max_rel}")
        if not 0 < self.of_range < 0.01 or not 0 <= self.rounding <= 10:
            raise ValueError(f"an allowance is a few ulps or one step of 8 bits, got {self.of_range}, {self.rounding}")


_STEP = 1 / 255
"""One step of 8 bits, as a share of the range."""

TOLERANCES: dict[str, Tolerance] = {
    "weights": Tolerance("library", 1e-4, "the same checkpoint in timm or torchvision: only rounding differs"),
    "onnx": Tolerance("torch", 1e-4, "another library's convolutions, hundreds of layers deep, in float32", ROUNDING),
    "optimised": Tolerance("onnx", 1e-4, "exact algebra; what is left is float32 rounding of folded weights", ROUNDING),
    "pass": Tolerance("onnx", 1e-5, "one exact pass on a small graph: a tenth of what a whole network may lose"),
    "quantized": Tolerance(
        "optimised", _BROKEN, "finds a network that is broken; its accuracy is measured by --max-drop", of_range=_STEP
    ),
    "integers": Tolerance(
        "optimised",
        0.1,
        "a quantized file in its integers, not in float: what lies at a tie may round to its neighbour",
        of_range=_STEP,
    ),
    "compiled": Tolerance("optimised", 1e-3, "our kernels add in another order and fuse multiply-adds", ROUNDING),
    "compiled-bf16": Tolerance(
        "optimised", 0.1, "8 bits a value, hundreds of layers deep: irv2 is off by 0.04", of_range=_STEP
    ),
    "compiled-fp16": Tolerance(
        "optimised",
        0.02,
        "11 bits a value, hundreds of layers deep: an eighth of what bf16 may lose, and a margin",
        of_range=_STEP,
    ),
    "compiled-tf32": Tolerance(
        "optimised", 0.02, "11 bits of every factor, hundreds of layers deep, as fp16 has; sums in fp32", of_range=_STEP
    ),
    "compiled-int8": Tolerance(
        "quantized", 1e-6, "the same integers; what is left is float32 rounding of the logits", ROUNDING
    ),
    "emulated-int8": Tolerance(
        "quantized", 0.1, "integers as float32: what lies at a tie may round to its neighbour", of_range=_STEP
    ),
}


def tolerance(stage: str) -> Tolerance:
    """The row of `TOLERANCES` for `stage`.

    Raises:
        DeployError: there is no such stage.
    """
    if stage not in TOLERANCES:
        message = f"no tolerance is defined for stage {stage!r}"
        raise DeployError(message, kind="verify", got=stage, allowed=sorted(TOLERANCES))
    return TOLERANCES[stage]


BOUNDS: dict[str, tuple[float, str]] = {
    "float64": (1e-10, "the same formula in another order, in float64"),
    "exp": (3e-7, "our polynomial for exp, relative"),
    "elementary": (4e-7, "our polynomials for erf, tanh and the like"),
    "rounding": (1e-6, "a few roundings of float32"),
    "kernel": (2e-6, "one layer or two in float32, added in another order"),
    "window": (4e-6, "a mean or a depthwise convolution, whose terms cancel"),
    "kernels": (1e-5, "some layers in float32, Winograd's transforms among them"),
    "network": (3e-5, "a whole network at a small width, in float32"),
    "pair": (1e-5, "one layer of products of pairs of bfloat16: 2^-17 of each, and most have the other sign"),
    "pairs": (1e-4, "some layers in pairs of bfloat16"),
    "binary16": (1e-3, "one layer, rounded to 11 bits: half a unit is 4.9e-4 of the value"),
    "bfloat16": (8e-3, "one layer, rounded to 8 bits: half a unit is 3.9e-3 of the value"),
    "bf16-layers": (0.03, "some layers in bfloat16: roundings of 2**-8 where they add up at their worst"),
    "step": (0.01, "what lies at a tie may round to the next of 256 steps"),
    "int8-energy": (0.01, "what 8 bits lose of the energy of a small network's output"),
    "int8-layers": (0.05, "the same integers beside float layers, a step at the start grown through some layers"),
    "int8-scores": (0.02, "the same after a Softmax"),
    "half": (1e-4, "half a step, and the rounding of float32 beside it, in steps"),
    "percentile": (0.05, "a percentile of some thousand samples"),
    "resized": (0.02, "a flat picture through a resize in 8 bits and the normalisation"),
    "visible": (0.1, "less than this, and nobody would see that a picture was moved"),
    "timing": (0.05, "made-up times with a noise of 1%"),
    "predicted": (0.03, "the cost model on points like those it has seen"),
    "expected-gain": (1e-3, "the normal distribution function by an approximation"),
    "accuracy": (0.006, "three of 500 pictures: what another machine's rounding may change"),
    "scores": (1e-4, "one network in two runtimes, after a Softmax"),
    "printed": (0.01, "shares and ratios that were rounded to be printed"),
    "printed-ms": (1e-3, "milliseconds and shares rounded to three places"),
    "paper": (0.01, "figures that a paper prints with two or three digits"),
    "paper-macs": (0.02, "multiply-adds, where a paper counts some of the small layers and we all"),
    "paper-parameters": (0.03, "parameters, where a paper leaves out biases or normalisation"),
}
"""What single kernels, layers and reports are compared with, mostly by tests: the limit, and why it is right. Some are
relative to the largest value and some to one's own; the comparison says it."""


def bound(name: str) -> float:
    """The limit of a row of `BOUNDS`."""
    return BOUNDS[name][0]


@dataclass(frozen=True)
class Scores:
    """What an output of class numbers was chosen from, in the reference.

    Attributes:
        values: the scores, any numeric dtype, one axis more than the class numbers or `axis` of another length.
        axis: the axis of `values` that the class numbers count along.
        noise: what rounding does to the scores, relative to the largest; None where it was not measured.
    """

    values: NDArray[Any]
    axis: int
    noise: float | None = None


def compare(
    reference: NDArray[Any],
    got: NDArray[Any],
    stage: str,
    *,
    noise: float | None = None,
    span: float | None = None,
    scores: Scores | None = None,
) -> dict[str, Any]:
    """Compare one output of two stages on the same input.

    Args:
        reference: the earlier stage's output, any shape and numeric dtype; the first axis is the batch.
        got: the later stage's output, the same shape, and of the same kind: both floating, integer or boolean.
        stage: the later stage, a key of `TOLERANCES`.
        noise: what rounding alone does to this output on this input: relative to the largest value, or the share of
            integers that it changes; None where it was not measured.
        span: the width of the output's range where it is known, e.g. 1 after a Sigmoid.
        scores: of class numbers, what they were chosen from.

    Returns:
        One element of ``verify``'s ``stages``: ``stage, reference, tolerance, max_abs, max_rel, cosine, top5_same,
        noise, allowed, criterion, ok``. ``ok`` asks for `max_rel` within ``allowed``, which ``criterion`` explains, and
        for `top5_same`, which `same_top` defines. Of integers, ``max_abs`` is how many are wrong, ``max_rel`` their
        share, and ``cosine`` None. A NaN or an infinity is right where the reference has the same one, and is then
        left out; elsewhere, and where nothing else is there, ``ok`` is false and the three numbers are None (JSON has
        no NaN).

    Raises:
        DeployError: the shapes or the kinds of dtype differ, or the arrays are empty.
    """
    limit = tolerance(stage)
    reference, got = np.asarray(reference), np.asarray(got)
    _require_same_form(reference, got, stage, limit)
    row = {"stage": stage, "reference": limit.reference, "tolerance": limit.max_rel, "noise": noise}
    if reference.dtype.kind in "biu":
        return row | _compare_numbers(reference, got, limit, noise, scores)
    a, b = _rows(reference), _rows(got)
    finite = np.isfinite(a) & np.isfinite(b)
    if not finite.any() or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        wrong = {"max_abs": None, "max_rel": None, "cosine": None, "top5_same": False}
        return row | wrong | {"allowed": limit.max_rel, "criterion": "fixed", "ok": False}
    a, b = np.where(finite, a, 0), np.where(finite, b, 0)
    scale = float(np.abs(a).max())
    max_abs = float(np.abs(a - b).max())
    criterion, allowed = _allowed(limit, max_abs, scale, noise, span)
    same = same_top(a, b, slack=2 * allowed)
    # Where the reference is all zeros there is no scale: nothing but zeros is right, and anything else is wholly wrong,
    # unless the range is known.
    max_rel = max_abs / scale if scale > 0 else float(max_abs > 0)
    return row | {
        "max_abs": max_abs,
        "max_rel": max_rel,
        "cosine": _cosine(a, b),
        "top5_same": same,
        "allowed": allowed / scale if scale > 0 else float(max_abs <= allowed) or limit.max_rel,
        "criterion": criterion,
        "ok": same and max_abs <= allowed,
    }


def _require_same_form(reference: NDArray[Any], got: NDArray[Any], stage: str, limit: Tolerance) -> None:
    if reference.shape != got.shape or reference.size == 0:
        raise DeployError(
            f"stage {stage!r} gave an output of shape {list(got.shape)}, "
            f"its reference {limit.reference!r} one of {list(reference.shape)}",
            kind="verify",
            got=list(got.shape),
            allowed=list(reference.shape),
        )
    kinds = [{"u": "i", "V": "f"}.get(array.dtype.kind, array.dtype.kind) for array in (reference, got)]
    if kinds[0] != kinds[1]:
        raise DeployError(
            f"stage {stage!r} gave an output of {got.dtype}, its reference {limit.reference!r} of {reference.dtype}",
            kind="verify",
            got=str(got.dtype),
            allowed=str(reference.dtype),
        )


def _allowed(
    limit: Tolerance, max_abs: float, scale: float, noise: float | None, span: float | None
) -> tuple[str, float]:
    """The first criterion that holds and the error that it allows; the most generous one where none does."""
    bounds = [("fixed", limit.max_rel * scale)]
    if span is not None:
        bounds.append(("range", limit.of_range * span))
    if noise is not None and limit.rounding:
        bounds.append(("noise", min(limit.rounding * noise, _BROKEN) * scale))
    holds = [bound for bound in bounds if max_abs <= bound[1]]
    return holds[0] if holds else max(bounds, key=lambda bound: bound[1])


def _compare_numbers(
    reference: NDArray[Any], got: NDArray[Any], limit: Tolerance, noise: float | None, scores: Scores | None
) -> dict[str, Any]:
    """`compare` of integers and booleans."""
    wrong = reference != got
    if scores is not None and wrong.any():
        wrong &= ~_tied(reference, got, limit, scores)
    share = float(wrong.mean())
    # Class numbers that the scores do not excuse are wrong. Of others, rounding may have pushed a few over a threshold.
    allowed = 0.0 if scores is not None else max(limit.max_rel, limit.rounding * (noise or 0.0))
    return {
        "max_abs": float(wrong.sum()),
        "max_rel": share,
        "cosine": None,
        "top5_same": share <= allowed,
        "allowed": allowed,
        "criterion": "equal",
        "ok": share <= allowed,
    }


def _tied(reference: NDArray[Any], got: NDArray[Any], limit: Tolerance, scores: Scores) -> NDArray[np.bool_]:
    """Where the reference scores both class numbers alike, up to what rounding may do to two scores."""
    values, axis = scores.values.astype(np.float64), scores.axis % scores.values.ndim
    whole = reference.ndim == values.ndim
    a, b = (x.astype(np.int64) if whole else np.expand_dims(x.astype(np.int64), axis) for x in (reference, got))
    inside = (b >= 0) & (b < values.shape[axis])
    slack = 2 * max(limit.max_rel, limit.rounding * (scores.noise or 0.0)) * float(np.abs(values).max())
    first, second = (np.take_along_axis(values, np.where(inside, x, 0), axis) for x in (a, b))
    tied: NDArray[np.bool_] = inside & (np.abs(first - second) <= slack)
    return tied if whole else tied.squeeze(axis)


def same_top(reference: NDArray[np.float64], got: NDArray[np.float64], *, slack: float, count: int = 5) -> bool:
    """Whether both rank the same `count` classes first, ties within the tolerance aside.

    The rule: read the reference at the classes that `got` ranks first, second, ...; each must be within `slack` of what
    the reference itself has at that rank. Two classes that the reference tells apart by less than `slack` may therefore
    swap, in or out of the first `count` too; with `slack` 0 only exact ties may. `slack` is twice the allowed error,
    since each of two neighbours may move by it.

    Args:
        reference, got: (rows, classes), finite.
    """
    count = min(count, reference.shape[1])
    best = np.sort(reference, axis=1)[:, ::-1][:, :count]
    order = np.argsort(-got, axis=1, kind="stable")[:, :count]
    return bool((np.abs(np.take_along_axis(reference, order, axis=1) - best) <= slack).all())


def require_ok(row: dict[str, Any]) -> dict[str, Any]:
    """`row` as it came from `compare`, when it is ok.

    Raises:
        DeployError: the stage is outside its tolerance.
    """
    if row["ok"]:
        return row
    head = f"stage {row['stage']!r} differs from {row['reference']!r}"
    if "batch" in row:
        head = f"{head} with {row['batch']} images at once, which a network that mixes its rows does"
    allowed = row.get("allowed", row["tolerance"])
    if row["max_rel"] is None:
        said = "a NaN or an infinity where the other has none, or nothing finite at all"
    elif row.get("criterion") == "equal":
        said = f"{row['max_rel']:.3g} of the class numbers or masks are others, {allowed:.3g} may be"
    else:
        said = f"relative error {row['max_rel']}, same top-5: {row['top5_same']}"
        if row.get("noise") is not None and TOLERANCES[row["stage"]].rounding:
            said += f"; rounding alone makes {row['noise']:.2g}, so at most {allowed:.2g} is allowed"
    raise DeployError(f"{head}: {said}", kind="verify", got=row["max_rel"], allowed=allowed)


def run_onnx(model: onnx.ModelProto, feeds: dict[str, NDArray[Any]], *, threads: int = 0) -> list[NDArray[Any]]:
    """The outputs of `model` in onnxruntime, in the graph's order: the reference executor of every ONNX stage.

    Its graph optimiser is off, so that what runs is the graph as it stands and no fault of ours hides behind it.

    Args:
        model: at most 2 GiB when serialised.
        feeds: one array for every graph input.
        threads: 0 leaves the choice to onnxruntime.

    Raises:
        DeployError: onnxruntime refuses the graph or fails on it.
    """
    try:
        return [np.asarray(output) for output in quiet_session(model.SerializeToString(), threads).run(None, feeds)]
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        raise DeployError(f"onnxruntime cannot run the graph: {_first_line(error)}", kind="onnx") from error


def quiet_session(model: bytes | str, threads: int = 0) -> Any:
    """An onnxruntime session of a model, or of a file by its name: optimiser off, nothing printed."""
    import onnxruntime as ort

    options = session_options(threads)
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # One run does not pay for packing the weights, which would hold them twice.
    options.add_session_config_entry("session.disable_prepacking", "1")
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _rows(array: NDArray[Any]) -> NDArray[np.float64]:
    rows = array.shape[0] if array.ndim > 1 else 1
    return array.astype(np.float64).reshape(rows, -1)


def _cosine(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    norms = math.sqrt(float((a * a).sum())), math.sqrt(float((b * b).sum()))
    if not all(norms):
        return float(norms[0] == norms[1])
    return min(1.0, float((a * b).sum()) / norms[0] / norms[1])


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
