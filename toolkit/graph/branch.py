"""Passes for networks whose layers fork and join: Inception blocks, residual sums, dense concatenations."""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np
import onnx_ir as ir

from inception_deploy.graph.rewrite import (
    add_constant,
    bypass,
    constant,
    free_name,
    hand_over,
    insert,
    integer,
    ints,
    nodes,
    only_reader,
    operand,
    places,
    rank,
    remove,
    set_constant,
    text,
)


def flatten_concats(model: ir.Model) -> int:
    """Join in one step what is joined in several.

    Given: ``Concat(a, Concat(b, c), d)`` on one axis, the inner one with no other reader.
    Result: ``Concat(a, b, c, d)``. The lowering writes each branch into its slice of one buffer; nested joins copy.
    """
    fired = 0
    for inner in nodes(model, "Concat"):
        outer, axes = only_reader(inner.outputs[0]), rank(inner.outputs[0])
        if outer is None or outer.op_type != "Concat" or outer.domain or outer.graph is not inner.graph or axes is None:
            continue
        if (integer(inner, "axis", 0) - integer(outer, "axis", 0)) % axes:
            continue
        joined: list[ir.Value | None] = []
        for value in outer.inputs:
            joined.extend(inner.inputs if value is inner.outputs[0] else [value])
        outer.resize_inputs(len(joined))
        for index, value in enumerate(joined):
            outer.replace_input_with(index, value)
        remove(inner)
        fired += 1
    return fired


def commute_pool(model: ir.Model) -> int:
    """Swap an average pooling with the 1x1 convolution beside it, where that is exact and less work.

    A 1x1 convolution mixes channels and a pooling mixes places, so they commute: ``pool(W x) = W pool(x)``. The bias
    passes through a pooling whose weights sum to one at every place, which they do unless it counts padding:
    ``pool(W x + b) = W pool(x) + b``. Where it counts padding only ``b = 0`` is exact; a bias then follows as an Add
    when the pooling goes last, and forbids the swap when it goes first.

    Given: ``Conv1x1(AveragePool(x), W, b)`` or ``AveragePool(Conv1x1(x, W, b))``, the middle value with one reader.
    Result: the other order, when its multiplications and additions are fewer: a convolution that shrinks the channels
    goes before a pooling that keeps the map (Inception's pool branch), and behind one that shrinks it (DenseNet's
    transition).
    """
    fired = 0
    for first in nodes(model, "AveragePool", "Conv"):
        second = only_reader(first.outputs[0])
        if second is None or second.domain or second.graph is not first.graph:
            continue
        pool, conv = (first, second) if first.op_type == "AveragePool" else (second, first)
        if pool.op_type != "AveragePool" or conv.op_type != "Conv" or operand(second, 0) is not first.outputs[0]:
            continue
        if _is_pointwise(conv) and _commutes(pool) and _swap_saves(first, second, pool, conv):
            fired += _pool_last(pool, conv) if first is pool else _pool_first(pool, conv)
    return fired


def merge_siblings(model: ir.Model) -> int:
    """Compute convolutions that read the same value as one, and split its output.

    Given: ``y1 = Conv(x, W1, b1)``, ``y2 = Conv(x, W2, b2)``, ... of one kernel size, stride, padding and dilation,
    without groups. Result: ``y1, y2, ... = Split(Conv(x, [W1; W2; ...], [b1; b2; ...]), axis=1)``, with a Relu between
    the two where all of them are followed by nothing but a Relu. The same multiplications in one longer run.
    """
    families: dict[tuple[object, ...], list[ir.Node]] = defaultdict(list)
    for node in nodes(model, "Conv"):
        weight, bias = constant(operand(node, 1)), operand(node, 2)
        if weight is None or (bias is not None and constant(bias) is None) or integer(node, "group", 1) != 1:
            continue
        geometry = tuple(tuple(ints(node, name)) for name in ("kernel_shape", "strides", "pads", "dilations"))
        key = (id(node.inputs[0]), weight.shape[1:], weight.dtype, geometry, text(node, "auto_pad", "NOTSET"))
        families[key].append(node)
    families = {key: family for key, family in families.items() if len(family) > 1}
    for family in families.values():
        _merge(family)
    return len(families)


# -- average pooling and 1x1 convolution ----------------------------------------------------------------------------


def _is_pointwise(conv: ir.Node) -> bool:
    weight, bias = constant(operand(conv, 1)), operand(conv, 2)
    return (
        weight is not None
        and weight.ndim == 4
        and weight.shape[2:] == (1, 1)
        and (bias is None or constant(bias) is not None)
        and integer(conv, "group", 1) == 1
        and all(stride == 1 for stride in ints(conv, "strides", [1]))
        and not any(ints(conv, "pads"))
    )


def _commutes(pool: ir.Node) -> bool:
    """Whether the pooling is a fixed weighted sum of each channel, by rules that all runtimes share."""
    return text(pool, "auto_pad", "NOTSET") in ("NOTSET", "VALID") and not integer(pool, "ceil_mode", 0)


def _sums_to_one(pool: ir.Node) -> bool:
    return not any(ints(pool, "pads")) or not integer(pool, "count_include_pad", 0)


def _has_bias(conv: ir.Node) -> bool:
    bias = constant(operand(conv, 2))
    return bias is not None and bool(bias.any())


def _swap_saves(first: ir.Node, second: ir.Node, pool: ir.Node, conv: ir.Node) -> bool:
    """Whether the other order takes fewer multiplications and additions."""
    weight, before, after = constant(conv.inputs[1]), places(first.inputs[0]), places(second.outputs[0])
    if weight is None or before is None or after is None:
        return False
    outs, ins = weight.shape[:2]
    window = math.prod(ints(pool, "kernel_shape"))
    conv_first = outs * ins * before + outs * window * after
    if not _sums_to_one(pool) and _has_bias(conv):
        conv_first += outs * after
    pool_first = ins * window * after + outs * ins * after
    return bool(conv_first < pool_first if first is pool else pool_first < conv_first)


def _pool_last(pool: ir.Node, conv: ir.Node) -> bool:
    """``Conv(AveragePool(x), W, b)`` becomes ``AveragePool(Conv(x, W, b))``, or ``AveragePool(Conv(x, W)) + b``."""
    graph, bias = conv.graph, constant(operand(conv, 2))
    assert isinstance(graph, ir.Graph)
    outside = bias is not None and _has_bias(conv) and not _sums_to_one(pool)
    if not swap(pool, conv):
        return False
    if outside:
        assert bias is not None
        column = add_constant(graph, f"{conv.name}/shift", bias.reshape(-1, 1, 1))
        set_constant(conv, 2, "bias", np.zeros_like(bias))
        _add_after(pool, column, f"{conv.name}/add")
    return True


def _pool_first(pool: ir.Node, conv: ir.Node) -> bool:
    """``AveragePool(Conv(x, W, b))`` becomes ``Conv(AveragePool(x), W, b)``."""
    return not (_has_bias(conv) and not _sums_to_one(pool)) and swap(conv, pool)


def swap(first: ir.Node, second: ir.Node) -> bool:
    """Exchange two nodes, the first of which only the second reads; both keep their names."""
    graph = first.graph
    assert isinstance(graph, ir.Graph)
    if not hand_over(second.outputs[0], first.outputs[0]):
        return False
    second.replace_input_with(0, first.inputs[0])
    first.replace_input_with(0, second.outputs[0])
    graph.remove(second)
    graph.insert_before(first, second)
    return True


def _add_after(node: ir.Node, column: ir.Value, name: str) -> None:
    """Readers of `node` read its sum with a constant."""
    graph, output = node.graph, node.outputs[0]
    assert isinstance(graph, ir.Graph)
    total = ir.Value(name=free_name(graph, name))
    add = ir.node("Add", [None, column], name=name, outputs=[total])
    graph.insert_after(node, add)
    hand_over(output, total)  # before the Add itself reads it
    add.replace_input_with(0, output)


# -- siblings -------------------------------------------------------------------------------------------------------


def _merge(family: list[ir.Node]) -> None:
    first, graph = family[0], family[0].graph
    assert isinstance(graph, ir.Graph)
    weights = [np.asarray(constant(node.inputs[1])) for node in family]
    biases = [constant(operand(node, 2)) for node in family]
    sizes = [len(weight) for weight in weights]
    (output,) = insert(first, "Conv", f"{first.name}/merged", [first.inputs[0], None])
    merged = output.producer()
    assert merged is not None
    merged.attributes.update(first.attributes)
    set_constant(merged, 1, "weight", np.concatenate(weights))
    if any(bias is not None for bias in biases):
        filled = [np.zeros(n, weights[0].dtype) if b is None else b for b, n in zip(biases, sizes, strict=True)]
        set_constant(merged, 2, "bias", np.concatenate(filled))
    ends = [only_reader(node.outputs[0]) for node in family]
    relus = [end for end in ends if end is not None and end.op_type == "Relu" and end.graph is graph]
    if len(relus) == len(family):
        (output,) = insert(first, "Relu", f"{first.name}/merged/relu", [output])
    split = add_constant(graph, f"{first.name}/split/sizes", np.array(sizes, np.int64))
    parts = insert(first, "Split", f"{first.name}/split", [output, split], outputs=len(family), axis=1)
    for index, (node, part) in enumerate(zip(family, parts, strict=True)):
        if len(relus) == len(family):
            bypass(relus[index], part)
            remove(node)
        else:
            bypass(node, part)
