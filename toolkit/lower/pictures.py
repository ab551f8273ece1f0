"""Pictures as bytes on their way into a network, normalised in one step.

Given: uint8 that a Cast makes float, behind a Transpose of NHWC or of NCHW as it is, and constants of one value a
channel that are added or multiplied then. Result: one layer (`spec.Normalise`), which gives NCHW of fp32, as the first
convolution takes it. Networks from TensorFlow begin so, and those of `export --uint8-input`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx

from ..kernels.spec import Normalise
from .layers import Param, Storage, Value
from .operators.common import attributes
from .reader import Reader

_PLANES = [0, 3, 1, 2]

_STEPS: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]] = {
    "Add": lambda factor, summand, number: (factor, summand + number),
    "Sub": lambda factor, summand, number: (factor, summand - number),
    "Mul": lambda factor, summand, number: (factor * number, summand * number),
    "Div": lambda factor, summand, number: (factor / number, summand / number),
}
"""What an operator with a constant behind it makes of ``x * factor + summand``."""


def take(reader: Reader, node: onnx.NodeProto) -> bool:
    """Whether a node begins such a row of nodes, which is a layer now."""
    given = reader.values.get(node.input[0]) if node.input else None
    if given is None or given.storage.dtype != "uint8" or given.storage.blocked or len(given.shape) != 4:
        return False
    nodes, together = [node], False
    if node.op_type == "Transpose" and list(attributes(node).get("perm", ())) == _PLANES:
        behind = reader.only_reader(node.output[0])
        if behind is None:
            return False
        nodes, together = [node, behind], True
    if nodes[-1].op_type != "Cast" or attributes(nodes[-1]).get("to") != onnx.TensorProto.FLOAT:
        return False
    batch, channels, height, width = reader.shape(nodes[-1].output[0])
    if channels > 4:
        return False
    factor, summand = np.ones(channels), np.zeros(channels)
    while (behind := reader.only_reader(nodes[-1].output[0])) is not None and behind.op_type in _STEPS:
        number = _a_channel(reader, behind, nodes[-1].output[0], channels)
        if number is None:
            break
        factor, summand = _STEPS[behind.op_type](factor, summand, number.astype(np.float64))
        nodes.append(behind)
    out = nodes[-1].output[0]
    reader.folded.update(name for one in nodes[1:] for name in one.output)
    spec = Normalise(batch, channels, height * width, together)
    numbers = [Param("raw", values.astype(np.float32)) for values in (factor, summand)]
    storage = Storage(out, batch, channels * height * width)
    reader.emit("normalise", [one.name for one in nodes], spec, [(given.storage, ""), *numbers], storage, out)
    reader.values[out] = Value(out, reader.shape(out), storage)
    return True


def _a_channel(reader: Reader, node: onnx.NodeProto, name: str, channels: int) -> np.ndarray | None:
    """The constant behind a value of planes, one number a channel; None for anything else."""
    if len(node.input) != 2 or (node.input[0] != name and node.op_type not in ("Add", "Mul")):
        return None
    array = reader.constants.get(node.input[1] if node.input[0] == name else node.input[0])
    if array is None or array.dtype != np.float32 or array.size not in (1, channels) or array.ndim > 4:
        return None
    if array.size > 1 and array.shape not in ((channels, 1, 1), (1, channels, 1, 1)):
        return None
    return np.broadcast_to(array.reshape(-1), (channels,))
