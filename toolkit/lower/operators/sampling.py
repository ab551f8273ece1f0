"""Which input places an output place of Resize is made of, and with which weights: one axis at a time.

A resized axis is a linear map with few entries a row: ``y[i] = sum over k of weights[i, k] * x[places[i, k]]``, with
one entry for "nearest", two for "linear", four for "cubic", more where antialias widens the filter. Coordinates are
computed in float32, step by step as onnxruntime does it, because at a tie the last bit decides which place is nearest.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Sampling:
    """One resized axis.

    Attributes:
        axis: which.
        places, weights: (out, k) int32 and float32.
        outside: (out,), where a crop leaves the input; its weights are 0.
    """

    axis: int
    places: NDArray[np.int32]
    weights: Floats
    outside: NDArray[np.bool_]


@dataclass(frozen=True)
class Rule:
    """The attributes of a Resize that say how."""

    mode: str = "nearest"
    coordinates: str = "half_pixel"
    nearest: str = "round_prefer_floor"
    cubic: float = -0.75
    exclude_outside: bool = False
    antialias: bool = False


def sampling(axis: int, size: int, out: int, scale: float, rule: Rule, roi: tuple[float, float] = (0, 1)) -> Sampling:
    """The map of an axis of `size` places to `out`, `scale` as the file states or implies it."""
    x = coordinates(size, out, scale, rule.coordinates, roi)
    outside = np.zeros(out, np.bool_)
    if rule.coordinates == "tf_crop_and_resize":
        outside = (x < 0) | (x > size - 1)
    if rule.mode == "nearest":
        places, weights = _nearest(x, rule.nearest)[:, None], np.ones((out, 1), np.float32)
    else:
        places, weights = _filtered(x, scale, rule)
    inside = (places >= 0) & (places < size)
    if rule.exclude_outside and rule.mode != "nearest":
        weights = np.where(inside, weights, np.float32(0))
        weights = weights / weights.sum(axis=1, keepdims=True)
    weights = np.where(outside[:, None], np.float32(0), weights)
    return Sampling(axis, np.clip(places, 0, size - 1).astype(np.int32), weights.astype(np.float32), outside)


def coordinates(size: int, out: int, scale: float, how: str, roi: tuple[float, float]) -> Any:
    """Where in the input the output's places lie (ONNX's `coordinate_transformation_mode`); (out,) float32."""
    f = np.float32
    i, s, half = np.arange(out, dtype=f), f(scale), f(0.5)
    if how == "asymmetric":
        return i / s
    if how == "align_corners":
        return i * f(0) if out == 1 else i * f(size - 1) / f(out - 1)
    if how == "tf_crop_and_resize":
        start, end = f(roi[0]), f(roi[1])
        if out == 1:
            return np.full(1, half * (start + end) * f(size - 1), f)
        return start * f(size - 1) + i * (end - start) * f(size - 1) / f(out - 1)
    if how == "pytorch_half_pixel" and out == 1:
        return i * f(0)
    if how == "tf_half_pixel_for_nn":
        return (i + half) / s
    x = (i + half) / s - half
    if how == "half_pixel_symmetric":
        center = f(size) / f(2)
        x = center * (f(1) - f(out) / (s * f(size))) + x
    return x


def _nearest(x: Floats, how: str) -> NDArray[np.int64]:
    rounded: Floats = {
        "floor": np.floor(x),
        "ceil": np.ceil(x),
        "round_prefer_floor": np.ceil(x - np.float32(0.5)),
        "round_prefer_ceil": np.floor(x + np.float32(0.5)),
    }[how]
    return np.asarray(rounded, np.int64)


def _filtered(x: Floats, scale: float, rule: Rule) -> tuple[NDArray[np.int64], Floats]:
    """The places that the filter around each coordinate reaches, and its values there. Down-sampling with antialias
    widens it by the scale, and makes its sum one again.
    """
    reach = 1.0 if rule.mode == "linear" else 2.0
    wider = max(1.0, 1.0 / scale) if rule.antialias else 1.0
    exact = x.astype(np.float64)
    if wider == 1.0:
        first = np.floor(exact).astype(np.int64) - int(reach) + 1
        places = first[:, None] + np.arange(int(2 * reach))
    else:
        first = np.floor(exact + 1 - reach * wider).astype(np.int64)
        places = first[:, None] + np.arange(int(np.ceil(2 * reach * wider)) + 1)
    distance = np.abs(places - exact[:, None]) / wider
    weights: Any = np.maximum(0, 1 - distance) if rule.mode == "linear" else _cubic(distance, rule.cubic)
    return places, weights / weights.sum(axis=1, keepdims=True)


def _cubic(d: NDArray[np.float64], a: float) -> NDArray[np.float64]:
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))
