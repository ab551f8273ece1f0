"""Sums over a stack of maps, as attention between branches is written (SKNet, ResNeSt), without the stack."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from inception_deploy.graph.rewrite import (
    add_constant,
    bypass,
    constant,
    insert,
    integer,
    nodes,
    only_reader,
    operand,
    remove,
    shape,
)


def unstack_sums(model: ir.Model) -> int:
    """Add maps one to the other where they are stacked on a new axis to be summed over it.

    Given: ``S = Concat(Unsqueeze(p1, 1), Unsqueeze(p2, 1), ...)``, p (N, C, H, W), read only by ``ReduceSum(S, 1)``, as
    it is or multiplied by weights W (N, k, C, 1, 1). Result: ``p1 + p2 + ...``, and ``p1 * W[:, 0] + p2 * W[:, 1] +
    ...`` for the others: the same sums, without copying the maps together.
    """
    fired = 0
    for stack in nodes(model, "Concat"):
        parts = _stacked(stack)
        if not parts:
            continue
        sums: list[tuple[ir.Node, ir.Node | None]] = []
        for user, _ in list(stack.outputs[0].uses()):
            product = user if user.op_type == "Mul" and not user.domain else None
            total = user if product is None else only_reader(product.outputs[0])
            if total is None or not _sums_stack(total) or total.graph is not stack.graph:
                break
            if product is not None and not _weighs(product, stack, len(parts)):
                break
            sums.append((total, product))
        if stack.outputs[0].is_graph_output() or len(sums) != len(stack.outputs[0].uses()):
            continue
        for total, product in sums:
            _spell_sum(total, product, stack, parts)
        makers = [value.producer() for value in stack.inputs if value is not None]
        remove(stack)
        for maker in makers:
            if maker is not None and not maker.outputs[0].uses():
                remove(maker)
        fired += 1
    return fired


def _stacked(stack: ir.Node) -> list[ir.Value]:
    """The maps that a Concat puts side by side on a new second axis; none for any other Concat."""
    if integer(stack, "axis", 0) not in (1, -4) or len(stack.inputs) < 2:
        return []
    parts = []
    for value in stack.inputs:
        maker = None if value is None else value.producer()
        source = None if maker is None else operand(maker, 0)
        sizes = shape(source)
        if maker is None or maker.op_type not in ("Unsqueeze", "Reshape") or maker.domain or source is None:
            return []
        if sizes is None or len(sizes) != 4 or shape(value) != (sizes[0], 1, *sizes[1:]):
            return []
        parts.append(source)
    return parts


def _sums_stack(node: ir.Node) -> bool:
    axes = constant(operand(node, 1))
    return (
        node.op_type == "ReduceSum"
        and not node.domain
        and axes is not None
        and [int(axis) % 5 for axis in axes.reshape(-1)] == [1]
        and integer(node, "keepdims", 1) == 0
    )


def _weighs(product: ir.Node, stack: ir.Node, count: int) -> bool:
    """A product of the stack and of one number for each channel of each map."""
    weights, sizes = _weights(product, stack), shape(stack.outputs[0])
    return sizes is not None and shape(weights) == (sizes[0], count, sizes[2], 1, 1)


def _weights(product: ir.Node, stack: ir.Node) -> ir.Value | None:
    a, b = product.inputs
    return b if a is stack.outputs[0] else a


def _spell_sum(total: ir.Node, product: ir.Node | None, stack: ir.Node, parts: list[ir.Value]) -> None:
    graph = total.graph
    assert isinstance(graph, ir.Graph)
    terms = list(parts)
    if product is not None:
        weights = _weights(product, stack)
        sizes, flat = shape(parts[0]), shape(weights)
        assert sizes is not None
        assert flat is not None
        to = add_constant(graph, f"{product.name}/sizes", np.array([sizes[0], -1, 1, 1], np.int64))
        (line,) = insert(total, "Reshape", f"{product.name}/weights", [weights, to])
        lengths = add_constant(graph, f"{product.name}/lengths", np.full(len(parts), sizes[1], np.int64))
        each = insert(total, "Split", f"{product.name}/split", [line, lengths], outputs=len(parts), axis=1)
        terms = [
            insert(total, "Mul", f"{product.name}/{index}", [part, weight])[0]
            for index, (part, weight) in enumerate(zip(parts, each, strict=True))
        ]
    result = terms[0]
    for index, term in enumerate(terms[1:]):
        (result,) = insert(total, "Add", f"{total.name}/{index}", [result, term])
    bypass(total, result)
    if product is not None:
        remove(product)
