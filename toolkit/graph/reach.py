"""How large a network's values become on given inputs: what a format with a short range cannot keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from ..errors import DeployError
from ..verify import run_onnx

LARGEST_HALF = 65504.0
"""Of IEEE's binary16."""

_IN_REGISTERS = ("Relu", "Clip", "Add", "BatchNormalization")
"""What a convolution's epilogue does before anything is stored."""


@dataclass(frozen=True)
class Reach:
    """The largest absolute value of a node's first output, or of a weight that it reads."""

    node: str
    largest: float


def beyond(
    model: onnx.ModelProto, given: Iterable[Mapping[str, NDArray[Any]]], *, largest: float, what: str
) -> list[Reach]:
    """The nodes that leave a range on one of some inputs, each once, as far as it goes.

    Args:
        largest: that can be kept.
        what: the format, for the message.

    Raises:
        DeployError: (kind ``precision``) names the first node whose result, or weight, is no number in fp32 either.
    """
    found: dict[str, float] = {}
    for reach in chain(constants(model), chain.from_iterable(results(model, feeds) for feeds in given)):
        if not np.isfinite(reach.largest):
            message = (
                f"{what} ends at {largest:g}, and '{reach.node}' reaches {reach.largest:.3g}, which fp32 does not hold "
                "either: check the network's weights"
            )
            raise DeployError(message, kind="precision", got=reach.largest, allowed=largest)
        if reach.largest > largest:
            found[reach.node] = max(reach.largest, found.get(reach.node, 0.0))
    return [Reach(*item) for item in found.items()]


def constants(model: onnx.ModelProto) -> list[Reach]:
    """How far the weights of each node go."""
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights = {name: array for name, array in arrays.items() if array.dtype.kind == "f" and array.ndim > 1}
    most = {name: float(np.abs(array).max(initial=0.0)) for name, array in weights.items()}
    return [Reach(node_name(node), most[name]) for node in model.graph.node for name in node.input if name in most]


def node_name(node: onnx.NodeProto) -> str:
    """What a node is called here: its name, or its first output's."""
    return str(node.name or node.output[0])


def results(model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]]) -> list[Reach]:
    """How far each result goes on an input, in the graph's order; what only an epilogue sees is left out."""
    readers: dict[str, list[str]] = {}
    for node in model.graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node.op_type)
    outputs = {value.name for value in model.graph.output}
    stored = [
        node
        for node in model.graph.node
        if node.output[0] in outputs or len(readers.get(node.output[0], [])) != 1
        or readers[node.output[0]][0] not in _IN_REGISTERS
    ]  # fmt: skip
    wide = onnx.ModelProto()
    wide.CopyFrom(model)
    del wide.graph.output[:]
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*model.graph.value_info, *model.graph.output)}
    floats = [node for node in stored if kinds.get(node.output[0]) == onnx.TensorProto.FLOAT]
    wide.graph.output.extend(helper.make_empty_tensor_value_info(node.output[0]) for node in floats)
    arrays = run_onnx(wide, dict(feeds)) if floats else []
    return [
        Reach(node_name(node), float(np.abs(array).max(initial=0.0)))
        for node, array in zip(floats, arrays, strict=True)
    ]
