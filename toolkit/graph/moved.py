"""Quantized numbers that are moved stay what they are."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import onnx_ir as ir

from inception_deploy.graph.rewrite import constant, dequantized, free_name, nodes, only_reader, operand, text

MOVES = (
    "MaxPool", "GlobalMaxPool", "Relu", "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split",
    "Gather", "Pad", "Resize", "DepthToSpace", "SpaceToDepth", "Concat",
)  # fmt: skip
"""What gives some of the numbers that it is given, or zero."""


def quantize_moved(model: ir.Model) -> int:
    """Quantize what only moves quantized numbers on both of its sides, so that it moves integers.

    Given: ``y = MaxPool(DQ(q, s, z))`` or another of `MOVES`, with no QuantizeLinear behind it, as other tools leave
    it. Result: ``DQ(Q(y, s, z), s, z)`` for the readers of y: exact, because y is a number of that scale already. The
    parts of a Concat must have one scale and one zero point.

    Given: ``Q(MaxPool(x), s, z)``, x with no other reader and no DequantizeLinear. Result: ``Q(MaxPool(DQ(Q(x))))``,
    all with that scale and zero point: exact, because rounding and the choice of a largest number commute.
    """
    fired = 0
    for node in nodes(model, *MOVES):
        given = _numbers(node)
        if given is None or not _only_moves(node):
            continue
        for value in node.outputs:
            reader = only_reader(value)
            done = reader is not None and reader.op_type == "QuantizeLinear"
            if done or not value.uses() or value.is_graph_output():
                continue
            _again(node, value, given, list(value.uses()))
            fired += 1
    for node in reversed(list(nodes(model, *MOVES))):
        reader = only_reader(node.outputs[0]) if len(node.outputs) == 1 else None
        if node.op_type == "Relu" or reader is None or reader.op_type != "QuantizeLinear" or not _only_moves(node):
            continue
        scale, zero = operand(reader, 1), operand(reader, 2)
        s, z = constant(scale), constant(zero)
        if scale is None or zero is None or s is None or z is None or s.size != 1 or z.size != 1:
            continue
        for source in dict.fromkeys(node.inputs if node.op_type == "Concat" else node.inputs[:1]):
            maker = None if source is None else source.producer()
            if source is None or maker is None or maker.op_type == "DequantizeLinear":
                continue
            if source.is_graph_output() or {user for user, _ in source.uses()} != {node}:
                continue
            _again(maker, source, (scale, zero, reader.outputs[0]), list(source.uses()))
            fired += 1
    return fired


def _numbers(node: ir.Node) -> tuple[ir.Value, ir.Value, ir.Value] | None:
    """The scale, the zero point, and integers, of what all of a node's data is the dequantization of."""
    found: tuple[ir.Value, ir.Value, ir.Value] | None = None
    for value in node.inputs if node.op_type == "Concat" else node.inputs[:1]:
        maker = None if value is None else value.producer()
        if maker is None or maker.op_type != "DequantizeLinear" or maker.domain or dequantized(value) is not None:
            return None
        q, scale, zero = (operand(maker, index) for index in range(3))
        s, z = constant(scale), constant(zero)
        if q is None or scale is None or zero is None or s is None or z is None or s.size != 1 or z.size != 1:
            return None
        if found is not None and (s != constant(found[0]) or z != constant(found[1]) or z.dtype != _type(found[1])):
            return None
        found = (scale, zero, q)
    return found


def _type(zero: ir.Value) -> np.dtype | None:
    array = constant(zero)
    return None if array is None else array.dtype


def _only_moves(node: ir.Node) -> bool:
    if node.op_type == "Resize":
        cropped = text(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
        return text(node, "mode", "nearest") == "nearest" and not cropped
    if node.op_type == "MaxPool":
        return not any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    filling = operand(node, 2) if node.op_type == "Pad" else None
    value = constant(filling)
    return filling is None or (value is not None and not value.any())


def _again(
    node: ir.Node, value: ir.Value, numbers: tuple[ir.Value, ir.Value, ir.Value], users: Iterable[tuple[ir.Node, int]]
) -> None:
    """``DQ(Q(value))`` for `users`, behind `node`.

    Args:
        numbers: scale, zero point, and a value that has the integers' type.
    """
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    scale, zero, like = numbers
    integers = ir.Value(name=free_name(graph, f"{value.name}/q"), shape=value.shape, type=like.type)
    real = ir.Value(name=free_name(graph, f"{value.name}/dq"), shape=value.shape, type=value.type)
    to_int = ir.node("QuantizeLinear", [None, scale, zero], name=integers.name, outputs=[integers])
    to_real = ir.node("DequantizeLinear", [integers, scale, zero], name=real.name, outputs=[real])
    graph.insert_after(node, [to_int, to_real])
    for user, index in users:
        user.replace_input_with(index, real)
    to_int.replace_input_with(0, value)
