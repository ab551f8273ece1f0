"""The pass that writes operators by others: those whose meaning ONNX gives as a formula, and that few tools have.

It runs where a file comes in. Some of these operators onnx itself cannot infer the shape of, or calls deprecated.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from inception_deploy.graph.rewrite import (
    add_constant,
    hand_over,
    insert,
    integer,
    ints,
    nodes,
    number,
    operand,
    rank,
    remove,
    shape,
)


def spell_out(model: ir.Model) -> int:
    """Write every operator of `SPELLINGS` by others, where what it asks about its input is known.

    Given: ``y = op(x, ...)``. Result: the formula in the docstring of its function; y keeps its name.
    """
    fired = 0
    for node in nodes(model, *SPELLINGS):
        y = SPELLINGS[node.op_type](_Formula(node))
        if y is not None and hand_over(node.outputs[0], y):
            y.shape, y.type = node.outputs[0].shape, node.outputs[0].type
            remove(node)
            fired += 1
    return fired


class _Formula:
    """Inserts nodes before one."""

    def __init__(self, node: ir.Node) -> None:
        self.node = node
        self.name = node.name or node.op_type

    def __call__(self, op_type: str, *inputs: ir.Value | None, **attributes: Any) -> ir.Value:
        (value,) = insert(self.node, op_type, f"{self.name}/{op_type.lower()}", inputs, **attributes)
        return value

    def constant(self, name: str, values: Any, dtype: type = np.float32) -> ir.Value:
        graph = self.node.graph
        assert isinstance(graph, ir.Graph)
        return add_constant(graph, f"{self.name}/{name}", np.asarray(values, dtype))

    def normal(self, x: ir.Value, axes: list[int], epsilon: float) -> tuple[ir.Value, ir.Value, ir.Value]:
        """``(x - mean) / sqrt(var + epsilon)`` over `axes`, the mean and the variance."""
        over = self.constant("axes", axes, np.int64)
        mean = self("ReduceMean", x, over, keepdims=1)
        centred = self("Sub", x, mean)
        var = self("ReduceMean", self("Mul", centred, centred), over, keepdims=1)
        deviation = self("Sqrt", self("Add", var, self.constant("epsilon", epsilon)))
        return self("Div", centred, deviation), mean, var


def _group_norm(f: _Formula) -> ir.Value | None:
    """``normal(x as (N, groups, rest)) * scale + bias``, with as many scales as groups (opset 18) or as channels."""
    x, scale, bias = (operand(f.node, index) for index in range(3))
    sizes = shape(scale)
    if x is None or sizes is None:
        return None
    groups = integer(f.node, "num_groups", 1)
    epsilon = number(f.node, "epsilon", 1e-5)
    sizes_of_x = f("Shape", x)
    grouped = f("Reshape", x, f.constant("groups", [0, groups, -1], np.int64))
    y, _, _ = f.normal(grouped, [2], epsilon)
    # The rank of x may not be known yet: a column of channels is (-1, 1, 1 ...), with a 1 for each size of the map.
    until = f.constant("last", [np.iinfo(np.int64).max], np.int64)
    places = f("Slice", sizes_of_x, f.constant("two", [2], np.int64), until)
    column = f("Concat", f.constant("all", [-1], np.int64), f("Div", places, places), axis=0)
    if sizes == (groups,):
        channels = f("Slice", sizes_of_x, f.constant("one", [1], np.int64), f.constant("two", [2], np.int64))
        count = f.constant("count", [groups], np.int64)
        wide = f("Concat", count, f("Div", channels, count), axis=0)
        up = f.constant("up", [-1, 1], np.int64)
        scale, bias = (f("Expand", f("Reshape", value, up), wide) for value in (scale, bias))
    scale, bias = (f("Reshape", value, column) for value in (scale, bias))
    return f("Add", f("Mul", f("Reshape", y, sizes_of_x), scale), bias)


def _lp_norm(f: _Formula) -> ir.Value | None:
    """``x / max(|x|_p, smallest normal float)``: where the norm is 0, x is 0 too, and so is the result."""
    axis = f.constant("axis", [integer(f.node, "axis", -1)], np.int64)
    norm = f("ReduceL1" if integer(f.node, "p", 2) == 1 else "ReduceL2", operand(f.node, 0), axis, keepdims=1)
    return f("Div", operand(f.node, 0), f("Max", norm, f.constant("tiny", np.finfo(np.float32).tiny)))


def _mvn(f: _Formula) -> ir.Value | None:
    """``(x - mean) / (sqrt(var) + 1e-9)`` over the axes."""
    x = operand(f.node, 0)
    over = f.constant("axes", ints(f.node, "axes", [0, 2, 3]), np.int64)
    centred = f("Sub", x, f("ReduceMean", x, over, keepdims=1))
    deviation = f("Sqrt", f("ReduceMean", f("Mul", centred, centred), over, keepdims=1))
    return f("Div", centred, f("Add", deviation, f.constant("epsilon", 1e-9)))


def _swish(f: _Formula) -> ir.Value | None:
    """``x * sigmoid(alpha * x)``."""
    x, alpha = operand(f.node, 0), number(f.node, "alpha", 1.0)
    scaled = x if alpha == 1 else f("Mul", x, f.constant("alpha", alpha))
    return f("Mul", x, f("Sigmoid", scaled))


def _batch_norm(f: _Formula) -> ir.Value | None:
    """In training ``normal(x over all axes but channels) * scale + bias``, and the running statistics where they are
    read: ``momentum * old + (1 - momentum) * new``. With statistics that the network computes itself, ``(x - mean) /
    sqrt(var + epsilon) * scale + bias``. One with constants stays: it is folded into its neighbours.
    """
    x, axes = operand(f.node, 0), rank(operand(f.node, 0))
    training, epsilon = integer(f.node, "training_mode", 0), number(f.node, "epsilon", 1e-5)
    makers = [value.producer() for value in f.node.inputs[3:5] if value is not None]
    computed = any(maker is not None and maker.op_type in _STATISTICS for maker in makers)
    if x is None or axes is None or not (training or computed):
        return None
    column = f.constant("column", [-1, *[1] * (axes - 2)], np.int64)
    scale, bias, mean, var = (f("Reshape", operand(f.node, index), column) for index in range(1, 5))
    if not training:
        deviation = f("Sqrt", f("Add", var, f.constant("epsilon", epsilon)))
        return f("Add", f("Mul", f("Div", f("Sub", x, mean), deviation), scale), bias)
    y, mean, var = f.normal(x, [0, *range(2, axes)], epsilon)
    momentum = number(f.node, "momentum", 0.9)
    flat = f.constant("flat", [-1], np.int64)
    for index, new in ((1, mean), (2, var)):
        old = operand(f.node, index + 2)
        output = f.node.outputs[index] if len(f.node.outputs) > index else None
        if output is not None and (output.uses() or output.is_graph_output()):
            kept = f("Mul", old, f.constant("momentum", momentum))
            added = f("Mul", f("Reshape", new, flat), f.constant("rest", 1 - momentum))
            hand_over(output, f("Add", kept, added))
    return f("Add", f("Mul", y, scale), bias)


_STATISTICS = ("Add", "Div", "Mul", "ReduceMean", "ReduceSum", "ReduceSumSquare", "Reshape", "Squeeze", "Sub")
"""What a mean or a variance that is computed comes out of."""

SPELLINGS: dict[str, Callable[[_Formula], ir.Value | None]] = {
    "BatchNormalization": _batch_norm,
    "GroupNormalization": _group_norm,
    "LpNormalization": _lp_norm,
    "MeanVarianceNormalization": _mvn,
    "Swish": _swish,
}
"""Operator -> what gives its result by others; None where it stays."""
