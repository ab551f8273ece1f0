"""int8 from an optimised float ONNX: schemes, calibration, QDQ insertion. Nothing heavy is loaded until it is used.

>>> quantized = quantize(model, "photos/", preprocessing=how, scheme="float-scale")
>>> onnx.save(quantized.model, "model.int8.onnx")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from inception_deploy import front

if TYPE_CHECKING:
    import onnx

    from .quantizer import QuantizedModel

__all__ = ["quantize"]


front(__name__)


def quantize(model: onnx.ModelProto, calibration: Any = None, **options: Any) -> QuantizedModel:
    """Turn an optimised float32 ONNX into a QDQ ONNX; see `quantizer.quantize` for the options."""
    from .quantizer import quantize as run

    return run(model, calibration, **options)
