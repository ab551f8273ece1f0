"""QuantizeLinear and DequantizeLinear: until a target has integer kernels, a quantised network is computed as ONNX
defines it, in fp32.

A constant behind DequantizeLinear becomes an fp32 constant. A run-time value between the two is rounded to its 8 bits
and scaled back in one pass, so every number a later layer sees is one that the integer network would see.
"""

from __future__ import annotations

import numpy as np
import onnx

from ..errors import DeployError
from .operators.elementwise import emit_unary
from .reader import Reader, Refuse


def quantize(reader: Reader, node: onnx.NodeProto) -> None:
    """QuantizeLinear, per tensor: `round(x / scale) + zero`, ties to even, saturated. Kept as the real number it
    stands for.
    """
    scale, zero = _per_tensor(reader, node)
    limits = np.iinfo(zero.dtype)
    low, high = float(int(limits.min) - int(zero)), float(int(limits.max) - int(zero))
    emit_unary(reader, node, "requantised", (float(scale), low, high), reader.value(node.input[0]))
    reader.quantised[node.output[0]] = _parameters(reader, node)


def dequantize(reader: Reader, node: onnx.NodeProto) -> None:
    """DequantizeLinear of a value that `quantize` wrote: nothing is left to do. (Of a constant, it is folded before.)

    Raises:
        DeployError: its numbers are not those the value was quantised with, or its input is no such value.
    """
    wanted, made = _parameters(reader, node), reader.quantised.get(node.input[0])
    if made != wanted:
        message = f"node '{node.name}' (DequantizeLinear) has a scale, zero point or type of its own"
        raise DeployError(message, kind="onnx", got=wanted, allowed=made or "the output of QuantizeLinear")
    reader.values[node.output[0]] = reader.values[node.input[0]]


def _parameters(reader: Reader, node: onnx.NodeProto) -> tuple[float, int, str]:
    scale, zero = _per_tensor(reader, node)
    return float(scale), int(zero), str(zero.dtype)


def _per_tensor(reader: Reader, node: onnx.NodeProto) -> tuple[np.ndarray, np.ndarray]:
    """Scale and zero point, each a number; QuantizeLinear's default zero point is uint8's 0."""
    scale = reader.constant(node.input[1], "the scale")
    zero = _zero(reader, node, np.uint8)
    if scale.size != 1 or zero.size != 1:
        raise Refuse("a run-time value has a scale for each channel")
    if zero.dtype not in (np.int8, np.uint8, np.int16, np.uint16):
        raise Refuse(f"its type is {zero.dtype}")
    return scale.reshape(()), zero.reshape(())


def _zero(reader: Reader, node: onnx.NodeProto, default: type) -> np.ndarray:
    """The zero point, 0 where the node names none."""
    given = len(node.input) > 2 and node.input[2]
    return reader.constant(node.input[2], "the zero point") if given else np.zeros(1, default)
