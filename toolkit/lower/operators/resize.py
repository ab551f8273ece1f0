"""Resize of any kind, as loops over the few input places that an output place is made of (`sampling`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx

from ..reader import Reader, Refuse
from .common import attributes, identity, text
from .sampling import Rule, Sampling, sampling
from .written import write


def resize(reader: Reader, node: onnx.NodeProto) -> None:
    """Resize: nearest in one nest of loops, everything else one axis at a time, the one that shrinks most first."""
    shape, out = reader.shape(node.input[0]), reader.shape(node.output[0])
    attrs = attributes(node)
    rule = Rule(
        text(attrs.get("mode", "nearest")),
        text(attrs.get("coordinate_transformation_mode", "half_pixel")),
        text(attrs.get("nearest_mode", "round_prefer_floor")),
        float(attrs.get("cubic_coeff_a", -0.75)),
        bool(attrs.get("exclude_outside", 0)),
        bool(attrs.get("antialias", 0)),
    )
    scales, regions = _scales(reader, node, attrs, shape, out), _regions(reader, node, attrs, shape)
    maps = [
        sampling(axis, shape[axis], out[axis], scales[axis], rule, regions[axis])
        for axis in range(len(shape))
        if (out[axis], scales[axis], regions[axis]) != (shape[axis], 1.0, (0.0, 1.0))
    ]
    if shape == out or not maps:  # onnxruntime copies where no size changes, whatever the scales and the region say
        identity(reader, node)
        return
    if reader.dtype(node.input[0]) != "float32" and rule.mode != "nearest":
        raise Refuse(f"it interpolates {reader.dtype(node.input[0])} values")
    constants: dict[str, np.ndarray] = {}
    for one in maps:
        constants[f"p{one.axis}"] = one.places
        if rule.mode != "nearest":
            constants[f"w{one.axis}"] = one.weights
        if one.outside.any():
            constants[f"m{one.axis}"] = one.outside.astype(np.int32)
    names = list(constants)
    value = float(attrs.get("extrapolation_value", 0.0))

    def compute(x: Any, *given: Any) -> list[Any]:
        tables = dict(zip(names, given, strict=True))
        make = _gathered if rule.mode == "nearest" else _weighted
        made = make(x, shape, sorted(maps, key=lambda m: out[m.axis] / shape[m.axis]), tables)
        outside = {int(name[1:]): table for name, table in tables.items() if name[0] == "m"}
        return [_filled(made, out, outside, value) if outside else made]

    write(reader, node, [node.input[0]], [node.output[0]], compute, constants)


def _scales(
    reader: Reader, node: onnx.NodeProto, attrs: dict[str, Any], shape: Sequence[int], out: Sequence[int]
) -> list[float]:
    """A scale for every axis, as the file states it, or as its sizes imply it."""
    axes = _axes(attrs, len(shape))
    result = [1.0] * len(shape)
    stated = _numbers(reader, node, 2, "the list of scales")
    sizes = _numbers(reader, node, 3, "the list of sizes")
    policy = text(attrs.get("keep_aspect_ratio_policy", "stretch"))
    if stated:
        for axis, scale in zip(axes, stated, strict=True):
            result[axis] = scale
    elif policy != "stretch":
        choose: Callable[..., float] = min if policy == "not_larger" else max
        scale = choose(size / shape[axis] for axis, size in zip(axes, sizes, strict=True))
        for axis in axes:
            result[axis] = scale
    else:
        result = [o / s for o, s in zip(out, shape, strict=True)]
    return result


def _regions(reader: Reader, node: onnx.NodeProto, attrs: dict[str, Any], shape: Sequence[int]) -> list[Any]:
    """The part of every axis that a crop takes; all of it otherwise."""
    result = [(0.0, 1.0)] * len(shape)
    if text(attrs.get("coordinate_transformation_mode", "half_pixel")) == "tf_crop_and_resize":
        roi, axes = _numbers(reader, node, 1, "the region of interest"), _axes(attrs, len(shape))
        for index, axis in enumerate(axes):
            result[axis] = (roi[index], roi[index + len(axes)])
    return result


def _axes(attrs: dict[str, Any], rank: int) -> list[int]:
    return [axis % rank for axis in attrs.get("axes", range(rank))]


def _numbers(reader: Reader, node: onnx.NodeProto, index: int, what: str) -> list[float]:
    """A constant input; none where it is left out or empty."""
    if len(node.input) <= index or not node.input[index]:
        return []
    return [float(number) for number in reader.constant(node.input[index], what).reshape(-1)]


def _gathered(x: Any, shape: Sequence[int], maps: Sequence[Sampling], tables: dict[str, Any]) -> Any:
    """``y[.., i, ..] = x[.., places[i], ..]``, all axes at once."""
    from tvm import te, tirx

    sizes = list(shape)
    for one in maps:
        sizes[one.axis] = len(one.places)

    def value(*place: Any) -> Any:
        at = list(place)
        for one in maps:
            at[one.axis] = tables[f"p{one.axis}"](place[one.axis], tirx.const(0, "int32"))
        return x(*at)

    return te.compute(sizes, value, "gathered")


def _weighted(x: Any, shape: Sequence[int], maps: Sequence[Sampling], tables: dict[str, Any]) -> Any:
    """``y[.., i, ..] = sum over k of weights[i, k] * x[.., places[i, k], ..]``, an axis after the other."""
    from tvm import te

    sizes = list(shape)
    for one in maps:
        sizes[one.axis] = len(one.places)
        x = _along(te, x, list(sizes), one, tables)
    return x


def _along(te: Any, x: Any, sizes: list[int], one: Sampling, tables: dict[str, Any]) -> Any:
    places, weights = tables[f"p{one.axis}"], tables[f"w{one.axis}"]
    k = te.reduce_axis((0, one.weights.shape[1]), f"k{one.axis}")

    def value(*place: Any) -> Any:
        i = place[one.axis]
        return te.sum(weights(i, k) * x(*place[: one.axis], places(i, k), *place[one.axis + 1 :]), k)

    return te.compute(sizes, value, f"along{one.axis}")


def _filled(y: Any, sizes: Sequence[int], outside: dict[int, Any], value: float) -> Any:
    """`value` where a crop leaves the input."""
    from tvm import te, tirx

    def filled(*place: Any) -> Any:
        left = [table(place[axis]) > 0 for axis, table in outside.items()]
        return tirx.if_then_else(tirx.any(*left), tirx.const(value, y.dtype), y(*place))

    return te.compute(sizes, filled, "filled")
