"""QuantizeLinear and DequantizeLinear: until a target has integer kernels, a quantized network is computed as ONNX
defines it, in fp32.

A constant behind DequantizeLinear becomes an fp32 constant. A run-time value between the two is rounded to its 8 bits
and scaled back in one pass, so every number a later layer sees is one that the integer network would see.
"""

from __future__ import annotations

import numpy as np
import onnx

from ..errors import DeployError
from .operators.common import attributes
from .operators.elementwise import emit_unary
from .reader import Reader, Refuse


def quantize(reader: Reader, node: onnx.NodeProto) -> None:
    """QuantizeLinear, per tensor: `round(x / scale) + zero`, ties to even, saturated. Kept as the real number it
    stands for.
    """
    scale, zero = _per_tensor(reader, node)
    limits = np.iinfo(zero.dtype)
    low, high = float(int(limits.min) - int(zero)), float(int(limits.max) - int(zero))
    emit_unary(reader, node, "requantized", (float(scale), low, high), reader.value(node.input[0]))
    reader.quantized[node.output[0]] = _parameters(reader, node)


def dequantize(reader: Reader, node: onnx.NodeProto) -> None:
    """DequantizeLinear of what `quantize` made: the value itself, or, with a scale or zero point of its own, an affine
    map of it. Of a constant: a constant.

    With ``r = (q - z) * s`` given, ``(q - z') * s'`` is ``r * (s' / s) + (z - z') * s'``.

    Raises:
        DeployError: its input is nothing that QuantizeLinear made.
    """
    name = node.input[0]
    if name in reader.constants:
        reader.constants[node.output[0]] = _real(reader, node)
        return
    made = reader.quantized.get(name)
    if made is None:
        message = f"node '{node.name}' (DequantizeLinear) reads '{name}', which QuantizeLinear did not make"
        raise DeployError(message, kind="onnx", got=name, allowed="the output of QuantizeLinear")
    scale, zero, _ = _parameters(reader, node)
    if (scale, zero) == made[:2]:
        reader.values[node.output[0]] = reader.values[name]
        return
    emit_unary(reader, node, "affine", (scale / made[0], (made[1] - zero) * scale), reader.values[name])


def _real(reader: Reader, node: onnx.NodeProto) -> np.ndarray:
    """The numbers that a constant stands for."""
    q, scale = reader.constants[node.input[0]], reader.constant(node.input[1], "the scale")
    zero = _zero(reader, node, np.uint8)
    sizes = [1] * q.ndim
    if attributes(node).get("block_size", 0):
        raise Refuse("a constant is quantized in blocks")
    if scale.size > 1:
        sizes[attributes(node).get("axis", 1)] = -1
        zero = np.broadcast_to(zero.reshape(-1), scale.shape)
    centred = (q.astype(np.int64) - zero.astype(np.int64).reshape(sizes)).astype(np.float32)
    return np.asarray(centred * scale.astype(np.float32).reshape(sizes), np.float32)


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
