"""Passes that give one meaning one spelling, so that the lowering needs one kernel for it and not four.

Exporters write a global average as ReduceMean, AveragePool or GlobalAveragePool, a flattening as Reshape, Squeeze or
Flatten, a linear layer as MatMul and Add or as Gemm.
"""

from __future__ import annotations

import math

import onnx_ir as ir

from inception_deploy.graph.rewrite import (
    constant,
    dequantized,
    insert,
    integer,
    ints,
    nodes,
    only_reader,
    operand,
    rank,
    remove,
    replace,
    shape,
    text,
)


def fuse_gemm(model: ir.Model) -> int:
    """Given ``MatMul(x, W)`` or ``Add(MatMul(x, W), b)``, x (N, I), W (I, O) and b (O,) constant: ``Gemm(x, W, b)``.

    A constant may be quantized: the dequantization of one.
    """
    fired = 0
    for node in nodes(model, "MatMul"):
        x, weight = operand(node, 0), operand(node, 1)
        if rank(x) != 2 or not _is_constant(weight) or rank(weight) != 2:
            continue
        add, bias = _bias_after(node)
        end = node if add is None else add
        replace(end, "Gemm", [x, weight, *([] if bias is None else [bias])], name=node.name)
        if add is not None:
            remove(node)
        fired += 1
    return fired


def fuse_global_pool(model: ir.Model) -> int:
    """Write every mean over height and width as GlobalAveragePool.

    Given: x (N, C, H, W), and ``ReduceMean(x, [2, 3])``, or ``AveragePool(x, kernel=(H, W))`` without padding.
    Result: ``GlobalAveragePool(x)``, followed by Flatten where the mean dropped the two axes.
    """
    fired = 0
    for node in nodes(model, "ReduceMean", "AveragePool"):
        x = operand(node, 0)
        if x is None or rank(x) != 4 or not (_means_over_map(node) or _covers_map(node)):
            continue
        if integer(node, "keepdims", 1):
            replace(node, "GlobalAveragePool", [x])
        else:
            replace(node, "Flatten", insert(node, "GlobalAveragePool", f"{node.name}/pool", [x]), axis=1)
        fired += 1
    return fired


def fuse_flatten(model: ir.Model) -> int:
    """Write every reshape of (N, C, H, W) to (N, C*H*W) as Flatten: it keeps a symbolic N, and needs no shape tensor.

    Given: Reshape or Squeeze of x to a matrix whose second size is the product of x's sizes after the first (so the
    first must be N). Result: ``Flatten(x, axis=1)``.
    """
    fired = 0
    for node in nodes(model, "Reshape", "Squeeze"):
        x, output = operand(node, 0), node.outputs[0]
        if x is None or x.shape is None or output.shape is None or len(output.shape) != 2 or len(x.shape) < 2:
            continue
        inner, width = x.shape[1:], output.shape[1]
        if not all(isinstance(size, int) for size in inner) or width != math.prod(int(str(size)) for size in inner):
            continue
        replace(node, "Flatten", [x], axis=1)
        fired += 1
    return fired


def _bias_after(node: ir.Node) -> tuple[ir.Node | None, ir.Value | None]:
    """The Add of a constant vector that alone reads `node`, and that constant."""
    add, width = only_reader(node.outputs[0]), (shape(node.inputs[1]) or (0, 0))[1]
    if add is None or add.op_type != "Add" or add.domain or add.graph is not node.graph:
        return None, None
    other = add.inputs[1] if add.inputs[0] is node.outputs[0] else add.inputs[0]
    return (add, other) if _is_constant(other) and shape(other) == (width,) else (None, None)


def _is_constant(value: ir.Value | None) -> bool:
    return constant(value) is not None or dequantized(value) is not None


def _means_over_map(node: ir.Node) -> bool:
    axes = constant(operand(node, 1))
    return node.op_type == "ReduceMean" and axes is not None and sorted(int(a) % 4 for a in axes.reshape(-1)) == [2, 3]


def _covers_map(node: ir.Node) -> bool:
    sizes = shape(node.inputs[0])
    return (
        node.op_type == "AveragePool"
        and sizes is not None
        and tuple(ints(node, "kernel_shape")) == sizes[2:]
        and text(node, "auto_pad", "NOTSET") in ("NOTSET", "VALID")
        and not any(ints(node, "pads"))
        and all(dilation == 1 for dilation in ints(node, "dilations", [1]))
    )
