"""Files in float16 or bfloat16 as files in float32: the same graph, its weights widened, which is exact.

No CPU kernel here computes in 16 bits, nor do onnxruntime's on CPUs: what a file loses by rounding every value to 16
bits is left out, so the result is nearer to the network that was trained than the file's own.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

_DTYPE_ATTRIBUTES = ("to", "dtype")
"""Attributes of Cast, RandomNormal, EyeLike ... that are a tensor's type."""


def widen(
    graphs: Iterable[onnx.GraphProto], nodes: Iterable[onnx.NodeProto], tensors: Iterable[onnx.TensorProto]
) -> int:
    """Make float32 of every 16-bit float, in place; gives how many tensors and types that were.

    Args:
        graphs, nodes, tensors: all of a model, those in bodies too.
    """
    import numpy as np
    from onnx import TensorProto, numpy_helper

    halves = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
    count = 0
    for tensor in tensors:
        if tensor.data_type in halves:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
            count += 1
    for node in nodes:
        for attribute in node.attribute:
            if attribute.name in _DTYPE_ATTRIBUTES and attribute.i in halves:
                attribute.i = TensorProto.FLOAT
                count += 1
    for graph in graphs:
        for value in (*graph.input, *graph.output, *graph.value_info):
            if value.type.HasField("tensor_type") and value.type.tensor_type.elem_type in halves:
                value.type.tensor_type.elem_type = TensorProto.FLOAT
                count += 1
    return count
