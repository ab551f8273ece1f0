"""Maps that are quantized with a scale for each channel, with one for all."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from inception_deploy.graph.rewrite import (
    Array,
    add_constant,
    bypass,
    constant,
    dequantized,
    free_name,
    insert,
    integer,
    nodes,
    only_reader,
    operand,
    rank,
    shape,
)


def even_scales(model: ir.Model) -> int:
    """Move the scales of a map's channels into the convolutions on both of its sides, as NNCF has them before
    depthwise ones.

    Given: ``Depthwise(DQ(Q(f(Conv(x, W, b)), s, z), s, z), V, d)`` with s one number a channel and z the same for all,
    W and V dequantized constants; f is nothing, a Relu, or a Clip whose ends the quantization does not reach or a 0.
    Algebra: with S the largest of s, ``Q(y, s) = Q(y * S / s, S)``, and f commutes with positive factors.
    Result: ``Depthwise(DQ(Q(f(Conv(x, W * S / s, b * S / s)), S, z), S, z), V * s / S, d)``; the integers stay what
    they are, also those of the weights, whose own scales take the factors.

    Where that cannot be, what the channels have of their own becomes operators of real numbers, with Z the first of z:
    ``Q(x * S / s + (z - Z) * S, S, Z)`` and ``DQ(q, S, Z) * s / S + (Z - z) * s``.
    """
    fired = 0
    for node in nodes(model, "QuantizeLinear"):
        scale, zero = constant(operand(node, 1)), constant(operand(node, 2))
        if scale is None or zero is None or scale.size == 1 or rank(node.inputs[0]) is None:
            continue
        if integer(node, "block_size", 0) or not (np.isfinite(scale).all() and scale.min() > 0):
            continue
        fired += _even(node, scale, zero) or _apart(node, scale, zero)
    return fired


def _even(node: ir.Node, scale: Array, zero: Array) -> bool:
    """The first result of `even_scales`."""
    if integer(node, "axis", 1) % (rank(node.inputs[0]) or 4) != 1 or len(np.unique(zero)) > 1:
        return False
    made, readers = _made_by(node, scale, int(zero.flat[0])), _read_by(node, scale, zero)
    if made is None or not readers:
        return False
    conv, clip = made
    one = np.float32(scale.max())
    factors = (np.float64(one) / scale).astype(np.float32)
    for index in (1, 2):
        _scale(conv, index, factors)
    if clip is not None:
        _relu(clip)
    same = _one_for_all(node, one, zero)
    for each in (node, *(reader for reader, _ in readers)):
        each.attributes.pop("axis", None)
        for index, value in enumerate(same, 1):
            each.replace_input_with(index, value)
    for _, depthwise in readers:
        outputs = (shape(depthwise.inputs[1]) or (scale.size,))[0]
        _scale(depthwise, 1, np.repeat(1 / factors, outputs // scale.size))
    return True


def _one_for_all(node: ir.Node, scale: np.float32, zero: Array) -> list[ir.Value]:
    """A scale and the first zero point as operands."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    numbers = {"scale": np.asarray(scale), "zero": zero.reshape(-1)[0]}
    return [add_constant(graph, f"{node.name}/{name}", number) for name, number in numbers.items()]


def _apart(node: ir.Node, scale: Array, zero: Array) -> bool:
    """The second result of `even_scales`."""
    graph, source = node.graph, node.inputs[0]
    readers = [reader for reader, _ in node.outputs[0].uses()]
    known = all(constant(operand(reader, index)) is not None for reader in readers for index in (1, 2))
    alone = node.outputs[0].is_graph_output() or any(reader.op_type != "DequantizeLinear" for reader in readers)
    if alone or not known or source is None or not isinstance(graph, ir.Graph):
        return False
    one, first, axis = np.float32(scale.max()), float(zero.reshape(-1)[0]), integer(node, "axis", 1)
    same, wide = _one_for_all(node, one, zero), scale.astype(np.float64)
    for reader in readers:
        own, offset = (constant(operand(reader, index)) for index in (1, 2))
        assert own is not None
        assert offset is not None
        real = ir.Value(name=free_name(graph, f"{reader.name}/real"), shape=source.shape, type=source.type)
        graph.insert_before(
            reader, ir.node("DequantizeLinear", [node.outputs[0], *same], name=real.name, outputs=[real])
        )
        factor = np.broadcast_to(own.astype(np.float64).reshape(-1), scale.shape)
        shift = (first - offset.astype(np.float64).reshape(-1)) * factor
        bypass(reader, _affine(reader, real, factor / one, shift, axis))
    shift = (zero.astype(np.float64) - first) * one
    node.replace_input_with(0, _affine(node, source, one / wide, shift, axis))
    for index, value in enumerate(same, 1):
        node.replace_input_with(index, value)
    node.attributes.pop("axis", None)
    return True


def _affine(before: ir.Node, x: ir.Value, factor: Array, shift: Array, axis: int) -> ir.Value:
    """``x * factor + shift`` along an axis."""
    graph, sizes = before.graph, [1] * (rank(x) or 0)
    assert isinstance(graph, ir.Graph)
    sizes[axis] = -1
    for op, array in (("Mul", factor), ("Add", shift)):
        name = f"{before.name}/{op.lower()}"
        (made,) = insert(before, op, name, [x, add_constant(graph, name, array.astype(np.float32).reshape(sizes))])
        made.shape, made.type = x.shape, x.type
        x = made
    return x


def _made_by(node: ir.Node, scale: Array, zero: int) -> tuple[ir.Node, ir.Node | None] | None:
    """The convolution that what is quantized is from, and the activation between, if it may be scaled."""
    value, clip = node.inputs[0], None
    maker = None if value is None else value.producer()
    if maker is None or value is None or only_reader(value) is not node:
        return None
    if maker.op_type in ("Relu", "Clip"):
        if maker.op_type == "Clip" and not _idle(maker, scale, node, zero):
            return None
        clip, value = maker, maker.inputs[0]
        maker = None if value is None else value.producer()
        if maker is None or value is None or only_reader(value) is not clip:
            return None
    known = maker.op_type == "Conv" and dequantized(maker.inputs[1]) is not None
    bias = operand(maker, 2)
    return (maker, clip) if known and (bias is None or _is_known(bias)) else None


def _idle(clip: ir.Node, scale: Array, node: ir.Node, zero: int) -> bool:
    """Of a Clip at 0: its upper end is not below the largest number of any channel. A Relu does what it does."""
    ends = [constant(operand(clip, index)) for index in (1, 2)]
    kind = constant(operand(node, 2))
    assert kind is not None
    low, high = ends
    if low is None or low.size != 1 or low.item() != 0 or (operand(clip, 2) is not None and high is None):
        return False
    return high is None or bool((np.rint(high.item() / scale) + zero >= np.iinfo(kind.dtype).max).all())


def _is_known(bias: ir.Value) -> bool:
    return constant(bias) is not None or dequantized(bias) is not None


def _read_by(node: ir.Node, scale: Array, zero: Array) -> list[tuple[ir.Node, ir.Node]]:
    """The DequantizeLinear nodes that read the integers, each with its depthwise convolution; none where anything else
    does.
    """
    found = []
    if node.outputs[0].is_graph_output():
        return []
    for reader, _ in node.outputs[0].uses():
        conv = only_reader(reader.outputs[0])
        if reader.op_type != "DequantizeLinear" or conv is None or conv.op_type != "Conv":
            return []
        numbers = zip((1, 2), (scale, zero), strict=True)
        same = all(np.array_equal(constant(operand(reader, index)), mine) for index, mine in numbers)  # type: ignore[arg-type]
        weight = shape(conv.inputs[1])
        if not same or weight is None or weight[1] != 1 or integer(conv, "group", 1) != scale.size:
            return []
        if conv.inputs[0] is not reader.outputs[0] or dequantized(conv.inputs[1]) is None:
            return []
        found.append((reader, conv))
    return found


def _scale(conv: ir.Node, index: int, factors: Array) -> None:
    """Multiply a convolution's weight or bias by a factor for each output: the scale where it is dequantized."""
    value, graph = operand(conv, index), conv.graph
    if value is None:
        return
    assert isinstance(graph, ir.Graph)
    name, kept, real = f"{conv.name}/scaled{index}", dequantized(value), constant(value)
    if kept is None:
        assert real is not None
        conv.replace_input_with(index, add_constant(graph, name, (real * factors).astype(np.float32)))
        return
    scale, zero = constant(operand(kept, 1)), constant(operand(kept, 2))
    assert scale is not None
    scaled = add_constant(graph, f"{name}/scale", np.asarray(scale.reshape(-1) * factors, np.float32))
    inputs = [kept.inputs[0], scaled]
    if zero is not None:
        inputs.append(add_constant(graph, f"{name}/zero", np.broadcast_to(zero.reshape(-1), factors.shape).copy()))
    (made,) = insert(conv, "DequantizeLinear", name, inputs, axis=0)
    made.shape, made.type = value.shape, value.type
    conv.replace_input_with(index, made)


def _relu(node: ir.Node) -> None:
    """Let a Clip at 0 be a Relu."""
    if node.op_type == "Clip":
        (made,) = insert(node, "Relu", f"{node.name}/relu", [node.inputs[0]])
        made.shape, made.type = node.outputs[0].shape, node.outputs[0].type
        ir.convenience.replace_all_uses_with(node.outputs[0], made)
        graph = node.graph
        assert isinstance(graph, ir.Graph)
        graph.remove(node, safe=True)
