"""Float networks in the forms of other tools that int8 must take whole: Keras' padding, Relu6, NHWC, and odd corners."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

from .int8_files import Graph


@dataclass(frozen=True)
class Network:
    """A float network, and the operators of it that stay float in int8, in order."""

    name: str
    model: onnx.ModelProto
    floats: tuple[str, ...] = ()


def _conv(g: Graph, y: str, channels: int, out: int, kernel: int = 3, **how: Any) -> str:
    weight = g.constant(g.normal(out, channels // how.get("group", 1), kernel, kernel))
    made: str = g.op("Conv", y, weight, g.constant(g.normal(out, 1).reshape(-1) / 4), **how)
    return made


def _head(g: Graph, y: str, channels: int) -> str:
    flat = g.op("Flatten", g.op("GlobalAveragePool", y))
    made: str = g.op("Gemm", flat, g.constant(g.normal(channels, 7)), g.constant(g.normal(7, 1).reshape(-1)))
    return made


def keras() -> Iterator[Network]:
    """SAME and VALID, strides on even and odd maps, Relu6 as Clip with bounds of either rank, ZeroPadding before a
    depthwise convolution, a residual add, a softmax at the end.
    """
    for mode in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        for bound in (0.0, [0.0]):
            g = Graph(30, 18)
            six = g.constant(np.zeros_like(bound)), g.constant(np.full_like(bound, 6.0))
            y = g.op("Clip", _conv(g, "x", 3, 16, strides=[2, 2], auto_pad=mode), *six)
            y = g.op("Pad", y, g.constant([0, 0, 0, 0, 0, 0, 1, 1], "int64"), g.constant(0.0))
            y = g.op("Clip", _conv(g, y, 16, 16, group=16, strides=[2, 2], auto_pad="VALID"), *six)
            y = _conv(g, y, 16, 16, 1, auto_pad="SAME_UPPER")
            z = g.op("Clip", _conv(g, y, 16, 16, auto_pad="SAME_UPPER", group=16), *six)
            y = g.op("Add", y, _conv(g, z, 16, 16, 1, auto_pad="VALID"))
            y = g.op("Softmax", _head(g, y, 16), axis=-1)
            yield Network(f"keras-{mode}-{'rank' if isinstance(bound, list) else 'number'}", g.model(y), ("Softmax",))


def nhwc() -> Iterator[Network]:
    """A transpose to NHWC and back around an operator in the middle, and at the end."""
    for where in ("middle", "end"):
        g = Graph(31, 18)
        y = g.op("Relu", _conv(g, "x", 3, 8, pads=[1] * 4))
        last = g.op("Transpose", y, perm=[0, 2, 3, 1])
        if where == "middle":
            y = g.op("Transpose", g.op("Relu", last), perm=[0, 3, 1, 2])
            yield Network("nhwc-middle", g.model(_head(g, _conv(g, y, 8, 8), 8)))
        else:
            yield Network("nhwc-end", g.model(last), ("Transpose",))


def corners() -> Iterator[Network]:
    """A split of what a split gives, of which float reads a part; constants less, and divided by, a tensor; a weight
    that is an output.
    """
    g = Graph(32, 18)
    y = g.op("Relu", _conv(g, "x", 3, 12, pads=[1] * 4))
    one, two, _ = g.op("Split", y, g.constant([4, 5, 3], "int64"), outputs=3, axis=1)
    up, down = g.op("Split", two, g.constant([7, 7], "int64"), outputs=2, axis=2)
    yield Network("split-of-a-split", g.model(_conv(g, one, 4, 6), g.op("Mul", up, down)))
    g = Graph(33, 18)
    y = g.op("Relu", _conv(g, "x", 3, 12, pads=[1] * 4))
    less = g.op("Sub", g.constant(g.normal(1, 12, 1, 1)), y)
    over = g.op("Div", g.constant(2.0), g.op("Add", y, g.constant(3.0)))
    yield Network("constant-first", g.model(g.op("GlobalAveragePool", less), _conv(g, over, 12, 5)))
    g = Graph(34, 18)
    model = g.model(_head(g, g.op("Relu", _conv(g, "x", 3, 8)), 8))
    weight = model.graph.initializer[0]
    model.graph.output.append(helper.make_tensor_value_info(weight.name, TensorProto.FLOAT, list(weight.dims)))
    yield Network("weight-as-output", model)


KINDS = (keras, nhwc, corners)
