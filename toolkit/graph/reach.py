"""How large a network's values become on given inputs: what a format with a short range cannot keep."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
    """The largest absolute value of a node's first output, or of a constant (`node` is its name then)."""

    node: str
    value: str
    largest: float


def require(model: onnx.ModelProto, given: Iterable[Mapping[str, NDArray[Any]]], *, largest: float, what: str) -> None:
    """Refuse a network that leaves a range on one of some inputs.

    Args:
        largest: that can be kept.
        what: the format, for the message.

    Raises:
        DeployError: (kind ``precision``) names the first node whose result is larger, or the constant.
    """
    for feeds in given:
        for reach in reaches(model, feeds):
            if not reach.largest <= largest:
                message = (
                    f"{what} ends at {largest:g}, and '{reach.node}' reaches {reach.largest:.3g}; compile it in fp32, "
                    "or scale the weights before it"
                )
                raise DeployError(message, kind="precision", got=reach.largest, allowed=largest)


def reaches(model: onnx.ModelProto, feeds: Mapping[str, NDArray[Any]]) -> list[Reach]:
    """How far each constant and each result goes, in the graph's order; what only an epilogue sees is left out."""
    found = []
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype.kind == "f" and array.ndim > 1 and array.size:
            found.append(Reach(tensor.name, tensor.name, float(np.abs(array).max())))
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
    for node, array in zip(floats, run_onnx(wide, dict(feeds)) if floats else [], strict=True):
        largest = float(np.abs(array).max(initial=0.0))
        found.append(Reach(node.name or node.output[0], node.output[0], largest))
    return found
