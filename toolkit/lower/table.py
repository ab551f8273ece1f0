"""Every ONNX operator that has a handler; all others take TVM's default."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from . import ops, quantised
from .reader import Reader

OPS: dict[str, Callable[[Reader, onnx.NodeProto], None]] = {
    **ops.OPS,
    "DequantizeLinear": quantised.dequantize,
    "QuantizeLinear": quantised.quantize,
}
