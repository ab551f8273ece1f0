"""Lowering: an optimised ONNX model becomes a `Plan`. Nothing heavy is loaded before it is used."""

from __future__ import annotations
