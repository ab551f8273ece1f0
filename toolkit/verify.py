"""How close is close enough: the one table of tolerances, and the comparison that uses it.

Every stage of a deployment is compared with the stage before it, on the same input. The error is measured relative to
the largest absolute value of the reference (`max_rel`): a network's logits are all of one scale, so an element-wise
relative error would only measure how near to zero the smallest logit happens to be.

No other file of this project holds a tolerance; tests import them from here.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from inception_deploy.errors import DeployError

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Tolerance:
    """What one stage is compared with and how far it may be off.

    Args:
        reference: the name of the stage it is compared with.
        max_rel: the largest allowed ``max|got - reference| / max|reference|``.
        reason: why this limit is right, for the reader of the table.
    """

    reference: str
    max_rel: float
    reason: str

    def __post_init__(self) -> None:
        if not 0 < self.max_rel < 1:
            raise ValueError(f"a tolerance lies between 0 and 1, got {self.max_rel}")


TOLERANCES: dict[str, Tolerance] = {
    "weights": Tolerance("library", 1e-4, "the same checkpoint in timm or torchvision: only rounding differs"),
    "onnx": Tolerance("torch", 1e-4, "another library's convolutions, hundreds of layers deep, in float32"),
    "optimised": Tolerance("onnx", 1e-4, "exact algebra; what is left is float32 rounding of folded weights"),
    "pass": Tolerance("onnx", 1e-5, "one exact pass on a small graph: a tenth of what a whole network may lose"),
    "quantized": Tolerance("optimised", 0.5, "finds a network that is broken; its accuracy is measured by --max-drop"),
    "compiled": Tolerance("optimised", 1e-3, "our kernels add in another order and fuse multiply-adds"),
    "compiled-bf16": Tolerance("optimised", 0.1, "8 bits a value, hundreds of layers deep: irv2 is off by 0.04"),
    "compiled-int8": Tolerance("quantized", 1e-6, "the same integers; what is left is float32 rounding of the logits"),
    "emulated-int8": Tolerance("quantized", 0.1, "integers as float32: what lies at a tie may round to its neighbour"),
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


def compare(reference: NDArray[Any], got: NDArray[Any], stage: str) -> dict[str, object]:
    """Compare the outputs of two stages on the same input.

    Args:
        reference: the earlier stage's output, any shape and numeric dtype; the first axis is the batch.
        got: the later stage's output, the same shape.
        stage: the later stage, a key of `TOLERANCES`.

    Returns:
        One element of ``verify``'s ``stages``: ``stage, reference, max_abs, max_rel, cosine, top5_same, tolerance,
        ok``. Where either side holds a NaN or an infinity, ``ok`` is false and the three numbers are None (JSON has
        no NaN). ``ok`` asks for `max_rel` within the tolerance and for `top5_same`, which `same_top` defines.

    Raises:
        DeployError: the shapes differ, or the arrays are empty.
    """
    limit = tolerance(stage)
    reference, got = np.asarray(reference), np.asarray(got)
    if reference.shape != got.shape or reference.size == 0:
        raise DeployError(
            f"stage {stage!r} gave an output of shape {list(got.shape)}, "
            f"its reference {limit.reference!r} one of {list(reference.shape)}",
            kind="verify",
            got=list(got.shape),
            allowed=list(reference.shape),
        )
    a, b = _rows(reference), _rows(got)
    row: dict[str, object] = {"stage": stage, "reference": limit.reference, "tolerance": limit.max_rel}
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        return row | {"max_abs": None, "max_rel": None, "cosine": None, "top5_same": False, "ok": False}
    scale = float(np.abs(a).max())
    max_abs = float(np.abs(a - b).max())
    # Where the reference is all zeros there is no scale: nothing but zeros is right, and anything else is wholly wrong.
    max_rel = max_abs / scale if scale > 0 else float(max_abs > 0)
    same = same_top(a, b, slack=2 * limit.max_rel * scale)
    return row | {
        "max_abs": max_abs,
        "max_rel": max_rel,
        "cosine": _cosine(a, b),
        "top5_same": same,
        "ok": same and max_rel <= limit.max_rel,
    }


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


def require_ok(row: dict[str, object]) -> dict[str, object]:
    """`row` as it came from `compare`, when it is ok.

    Raises:
        DeployError: the stage is outside its tolerance.
    """
    if not row["ok"]:
        raise DeployError(
            f"stage {row['stage']!r} differs from {row['reference']!r}: "
            f"relative error {row['max_rel']}, same top-5: {row['top5_same']}",
            kind="verify",
            got=row["max_rel"],
            allowed=row["tolerance"],
        )
    return row


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

    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
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
