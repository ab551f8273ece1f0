"""Passes that remove what computes nothing, and make constants recognisable as such. None of them changes a number."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import LiftConstantsToInitializersPass, RemoveUnusedNodesPass, RemoveUnusedOpsetsPass
from onnxscript import optimizer

from inception_deploy.graph.rewrite import (
    add_constant,
    bypass,
    constant,
    dequantized,
    integer,
    ints,
    nodes,
    numbers_of,
    operand,
    rank,
    same_shape,
    text,
)

FOLDABLE_ELEMENTS = 2**26
"""The largest constant that folding may compute: 256 MiB of float32, more than any network's largest weight."""


def lift_constants(model: ir.Model) -> int:
    """Turn Constant nodes into initialisers.

    Given: ``w = Constant(); y = Conv(x, w)``. Result: ``y = Conv(x, w)`` with ``w`` an initialiser. Every later pass
    asks "is this a constant" of initialisers only; onnxsim leaves some weights as Constant nodes.
    """
    fired = sum(1 for _ in nodes(model, "Constant"))
    if fired:
        LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(model)
    return fired


def fold_constants(model: ir.Model) -> int:
    """Compute at build time what depends on constants only.

    Given: ``y = f(c1, c2, ...)`` with every input constant (or only an input's known shape needed, as for Shape).
    Result: ``y`` is an initialiser. The dequantization of a quantized weight or bias stays: it is what tells that it is
    one. A float weight behind QuantizeLinear and DequantizeLinear becomes integers behind the latter.
    """
    before = len(model.graph)
    for node in nodes(model, "DequantizeLinear"):  # what computes constants below has none of opset 18 and older
        known = numbers_of(node) if dequantized(node.outputs[0]) is not None and _should_fold(node) else None
        if known is not None and not node.outputs[0].is_graph_output():
            bypass(node, add_constant(model.graph, node.outputs[0].name or node.op_type, known))
    optimizer.fold_constants(
        model,
        input_size_limit=FOLDABLE_ELEMENTS,
        output_size_limit=FOLDABLE_ELEMENTS,
        should_fold=_should_fold,
    )
    lift_constants(model)
    RemoveUnusedNodesPass()(model)
    return before - len(model.graph)


def _should_fold(node: ir.Node) -> bool | None:
    """No for a DequantizeLinear that a linear operator reads as its weight or bias; yes for what else quantizes."""
    if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
        return None
    weights = any(user.op_type in _WEIGHTED and index in (1, 2) for user, index in node.outputs[0].uses())
    return node.op_type == "QuantizeLinear" or not weights


_WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def remove_noops(model: ir.Model) -> int:
    """Remove nodes whose first output is their first input, whatever the data.

    Given: ``y = op(x, ...)`` with ``y == x`` by the rule of `NOOPS` for that operator. Result: readers of ``y`` read
    ``x``. A node stays where another of its outputs is read, or where ``x`` is a graph input and ``y`` a graph output.
    """
    fired = 0
    for node in nodes(model, *NOOPS):
        source = operand(node, 0)
        others_unused = not any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
        if source is not None and others_unused and NOOPS[node.op_type](node):
            fired += bypass(node, source)
    return fired


def remove_dead(model: ir.Model) -> int:
    """Remove nodes and initialisers that no output depends on.

    Given: a graph in which nothing reads ``y = f(x)``. Result: the same without ``f``, and without the weights that
    only ``f`` read. Counts both.
    """
    graph = model.graph
    before = len(graph) + len(graph.initializers)
    RemoveUnusedNodesPass()(model)
    RemoveUnusedOpsetsPass()(model)
    return before - len(graph) - len(graph.initializers)


def _same_shape(node: ir.Node) -> bool:
    return same_shape(node.inputs[0], node.outputs[0])


def _same_type(node: ir.Node) -> bool:
    source = node.inputs[0]
    return source is not None and source.dtype is not None and source.dtype == node.outputs[0].dtype


def _inactive_dropout(node: ir.Node) -> bool:
    training = operand(node, 2)
    flag = constant(training)
    return training is None or (flag is not None and not flag.any())


def _neutral(number: float) -> Callable[[ir.Node], bool]:
    """The second operand is `number` everywhere and does not widen the first."""

    def rule(node: ir.Node) -> bool:
        array = constant(operand(node, 1))
        return array is not None and bool(np.all(array == number)) and _same_shape(node)

    return rule


def _pads_nothing(node: ir.Node) -> bool:
    pads = constant(operand(node, 1))
    return pads is not None and not pads.any()


def _one_by_one(node: ir.Node) -> bool:
    kernel = ints(node, "kernel_shape")
    plain = text(node, "auto_pad", "NOTSET") in ("NOTSET", "VALID") and not any(ints(node, "pads"))
    return plain and all(size == 1 for size in (*kernel, *ints(node, "strides", [1])))


def _keeps_order(node: ir.Node) -> bool:
    permutation = ints(node, "perm")
    return bool(permutation) and permutation == sorted(permutation)


def _never_negative(node: ir.Node) -> bool:
    source = node.inputs[0]
    maker = None if source is None else source.producer()
    return maker is not None and maker.op_type in ("Relu", "Sigmoid", "Softmax") and maker.domain == ""


def _single(node: ir.Node) -> bool:
    return len(node.inputs) == 1


def _already_flat(node: ir.Node) -> bool:
    return rank(node.inputs[0]) == 2 and integer(node, "axis", 1) == 1


NOOPS: dict[str, Callable[[ir.Node], bool]] = {
    "Identity": lambda node: True,
    "Dropout": _inactive_dropout,
    "Cast": _same_type,
    "CastLike": _same_type,
    "Add": _neutral(0),
    "Sub": _neutral(0),
    "Mul": _neutral(1),
    "Div": _neutral(1),
    "Pad": _pads_nothing,
    "AveragePool": _one_by_one,
    "MaxPool": _one_by_one,
    "Reshape": _same_shape,
    "Expand": _same_shape,
    "Flatten": _already_flat,
    "Transpose": _keeps_order,
    "Concat": _single,
    "Sum": _single,
    "Max": _single,
    "Min": _single,
    "Relu": _never_negative,
}
"""Operator -> when its first output is its first input."""
