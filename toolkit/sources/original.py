"""What a user's ONNX file gives as it is: the reference that everything made of it is held to.

The file's own bytes run in onnxruntime with its optimisations off, before anything of ours has touched them. What
onnxruntime has no kernel for (opsets before 7, some operators) runs in onnx's reference evaluator, with the operators
of `_mended` in place of those in which that one is wrong. Operators on integers have their weights as unsigned bytes
(`_unsigned`), because on some CPUs onnxruntime is wrong in the others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from inception_deploy.errors import DeployError
from inception_deploy.verify import quiet_session

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray


def run_file(path: Path, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    """The file's outputs in the graph's order.

    Raises:
        DeployError: neither can run it; with both reasons.
    """
    import numpy as np

    try:
        changed = _unsigned(path)
        file = str(path) if changed is None else changed.SerializeToString()
        return [np.asarray(y) for y in quiet_session(file).run(None, dict(feeds))]
    except Exception as error:  # onnxruntime's exceptions share no base class of their own
        reason = _first_line(error)
    try:
        return _evaluated(path, feeds)
    except Exception as error:  # the evaluator raises whatever its operators stumble over
        message = (
            f"{path}: the file runs neither in onnxruntime ({reason}) nor in onnx's reference evaluator "
            f"({_first_line(error)}), so there is nothing to compare with; --no-verify exports it unseen"
        )
        raise DeployError(message, kind="verify", got=reason, allowed="a file that onnxruntime runs") from error


def on_integers(path: Path) -> bool:
    """Whether operators of the file take integers, and round sums that are whole: what comes of it is no float32's."""
    return any(node.op_type in _SUMS for node in described(path).graph.node)


_SUMS = ("QLinearConv", "QLinearMatMul", "QGemm")

_WEIGHTS = (2, 3, 5)
"""Operands of `_SUMS`: the data's zero point, the weights, and theirs."""


def _unsigned(path: Path) -> onnx.ModelProto | None:
    """The file with weights of int8 that meet uint8 as uint8, 128 higher, and so their zero points: the same sums, and
    onnxruntime keeps them whole. Of products of uint8 and int8 it adds two in 16 bits on x86 without VNNI, which may
    saturate, and its option (`ortsession.WHOLE_SUMS`) does nothing where its optimiser is off. None for a file
    that has none.
    """
    import numpy as np
    import onnx

    if not on_integers(path):  # nothing else is worth loading all weights for
        return None
    model = onnx.load(str(path))
    known = {tensor.name: tensor for tensor in model.graph.initializer}
    fired = False
    for node in model.graph.node:
        if node.op_type not in _SUMS:
            continue
        zero, *weights = (known.get(node.input[index]) for index in _WEIGHTS)
        if zero is None or zero.data_type != onnx.TensorProto.UINT8:
            continue
        for index, tensor in zip(_WEIGHTS[1:], weights, strict=True):
            if tensor is not None and tensor.data_type == onnx.TensorProto.INT8:
                name = f"{tensor.name}/unsigned"
                if name not in known:
                    higher = onnx.numpy_helper.to_array(tensor).astype(np.int16) + 128
                    model.graph.initializer.append(onnx.numpy_helper.from_array(higher.astype(np.uint8), name))
                    known[name] = model.graph.initializer[-1]
                node.input[index] = name
                fired = True
    return model if fired else None


def described(path: Path) -> onnx.ModelProto:
    """The file without the weights that lie beside it: what it says of itself."""
    import onnx

    return onnx.load(str(path), load_external_data=False)


def in_halves(path: Path) -> onnx.ModelProto | None:
    """The file, where a weight or a cast of it is a float of 16 bits; None elsewhere, and then nothing is kept."""
    import onnx

    model = onnx.load(str(path))
    halves = (onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16)
    casts = any(a.i in halves for node in model.graph.node if node.op_type == "Cast" for a in node.attribute)
    return model if casts or any(tensor.data_type in halves for tensor in model.graph.initializer) else None


def keep(path: Path, copy: Path) -> None:
    """Write the file to `copy`, byte for byte; with the data that lies outside of it inside, where there is some."""
    import onnx

    content = path.read_bytes()
    tensors = onnx.load_model_from_string(content).graph.initializer
    if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in tensors):
        onnx.save(onnx.load(str(path)), str(copy))
    else:
        copy.write_bytes(content)


def _evaluated(path: Path, feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
    import numpy as np
    import onnx
    from onnx.reference import ReferenceEvaluator

    model = onnx.load(str(path))
    version = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    with np.errstate(all="ignore"):
        return [np.asarray(y) for y in ReferenceEvaluator(model, new_ops=_mended(version)).run(None, dict(feeds))]


def _mended(version: int) -> list[Any]:
    """Operators in which onnx's reference evaluator (1.23) is wrong: LRN looks at as many channels as the batch has;
    before opset 7 `axis` of a broadcast is ignored; before opset 14 batch normalisation takes itself to be training.
    """
    import numpy as np
    from onnx.reference.op_run import OpRun

    class LRN(OpRun):  # type: ignore[misc, unused-ignore]
        def _run(self, x: Any, alpha: Any = None, beta: Any = None, bias: Any = None, size: Any = None) -> tuple[Any]:
            below, above = math.floor((size - 1) / 2), math.ceil((size - 1) / 2)
            channels = x.shape[1]
            around = [slice(max(0, c - below), min(channels, c + above + 1)) for c in range(channels)]
            squares = np.stack([(x[:, part] ** 2).sum(axis=1) for part in around], axis=1)
            return ((x / (bias + alpha / size * squares) ** beta).astype(x.dtype),)

    class BatchNormalization(OpRun):  # type: ignore[misc, unused-ignore]
        def _run(self, x: Any, *rest: Any, epsilon: Any = None, **_: Any) -> tuple[Any]:
            scale, bias, mean, var = (p.reshape(1, -1, *[1] * (x.ndim - 2)) for p in rest)
            return ((scale * (x - mean) / np.sqrt(var + (epsilon or 1e-5)) + bias).astype(x.dtype),)

    def legacy(name: str, function: Any) -> Any:
        def run(_: Any, a: Any, b: Any, axis: Any = None, broadcast: Any = None, **__: Any) -> tuple[Any]:
            if broadcast and axis is not None:
                b = b.reshape(*b.shape, *[1] * (a.ndim - axis % a.ndim - b.ndim))
            result = function(a, b)
            return (result.astype(a.dtype) if name in arithmetic else result,)

        return type(name, (OpRun,), {"op_domain": "", "_run": run})

    arithmetic = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide, "Pow": np.power}
    logic = {"Equal": np.equal, "Greater": np.greater, "Less": np.less, "And": np.logical_and, "Or": np.logical_or}
    old = [legacy(name, function) for name, function in (arithmetic | logic).items()] if version < 7 else []
    return [LRN, *old, *([BatchNormalization] if version < 14 else [])]


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
