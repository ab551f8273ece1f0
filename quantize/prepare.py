"""The last float changes before the insertion: one spelling for each thing, and none that int8 would pay for."""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from inception_deploy.errors import DeployError
from inception_deploy.graph.fold import AFFINE, affine_of
from inception_deploy.graph.rewrite import (
    add_constant,
    bypass,
    constant,
    insert,
    integer,
    nodes,
    number,
    only_reader,
    operand,
    rank,
    remove,
    set_constant,
    shape,
    text,
)
from inception_deploy.graph.skeleton import check, restore, skeleton

from .structure import normalises

OPSET = 20
OLDEST_OPSET = 19
"""QuantizeLinear and DequantizeLinear know bfloat16 and float8 since this one, and runtimes fuse its QDQ patterns."""

INTEGER_OPERATORS = (
    "QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger",
    "MatMulInteger",
)  # fmt: skip


def prepare(model: onnx.ModelProto) -> ir.Model:
    """A copy of an optimised float model, ready for `structure.analyse`.

    Raises:
        DeployError: (kind ``quantize``) the model is quantized already, has no convolution and no linear layer, or its
            opset cannot be converted.
    """
    found = [node.name or node.op_type for node in model.graph.node if node.op_type in INTEGER_OPERATORS]
    if found:
        message = f"the model is quantized already: {', '.join(found[:3])}"
        raise DeployError(message, kind="quantize", got=found[:10], allowed="a float32 model")
    if not quantizable(model):
        message = "there is nothing to quantize: the model has no convolution and no linear layer"
        raise DeployError(message, kind="quantize", got=0, allowed="at least one Conv or Gemm")
    prepared = _modern(ir.from_proto(model))
    for rule in (name_nodes, bias_into_convolution, affine_to_convolution, transpose_weights):
        rule(prepared)
    check(prepared)
    return prepared


def quantizable(model: onnx.ModelProto) -> bool:
    """Whether there is anything that gains by int8 in an optimised model."""
    return any(node.op_type in ("Conv", "Gemm") for node in model.graph.node)


def name_nodes(model: ir.Model) -> int:
    """Give every node a name of its own: choices, errors and reports name nodes."""
    seen: set[str] = set()
    fired = 0
    for index, node in enumerate(model.graph):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{index}"
            fired += 1
        seen.add(node.name)
    return fired


def bias_into_convolution(model: ir.Model) -> int:
    """Undo `commute_pool` where it left a bias outside.

    Given: ``AveragePool(Conv1x1(x, W, 0)) + b`` of a pooling that counts its padding. Result:
    ``Conv1x1(AveragePool(x), W, b)``. In float the first is less work. In int8 its bias would be one more rounding of
    an 8-bit tensor, where the second adds it to a 32-bit accumulator.
    """
    fired = 0
    for pool in nodes(model, "AveragePool"):
        source, add = operand(pool, 0), only_reader(pool.outputs[0])
        conv = source.producer() if source is not None else None
        if conv is None or conv.op_type != "Conv" or add is None or add.op_type != "Add":
            continue
        if only_reader(conv.outputs[0]) is not pool or text(pool, "auto_pad", "NOTSET") != "NOTSET":
            continue
        column = next((constant(value) for value in add.inputs if constant(value) is not None), None)
        weight, old = constant(operand(conv, 1)), constant(operand(conv, 2))
        if weight is None or column is None or column.shape != (len(weight), 1, 1) or (old is not None and old.any()):
            continue
        if weight.shape[2:] != (1, 1) or integer(conv, "group", 1) != 1:
            continue
        graph = conv.graph
        assert isinstance(graph, ir.Graph)
        before = shape(conv.inputs[0])
        pool.replace_input_with(0, conv.inputs[0])
        graph.remove(conv)
        graph.insert_after(pool, conv)
        after = shape(pool.outputs[0])
        sizes = (*before[:2], *after[2:]) if before and after else None
        conv.outputs[0].shape, pool.outputs[0].shape = pool.outputs[0].shape, ir.Shape(sizes) if sizes else None
        bypass(add, conv.outputs[0])
        conv.replace_input_with(0, pool.outputs[0])
        set_constant(conv, 2, "bias", column.reshape(-1))
        fired += 1
    return fired


def affine_to_convolution(model: ir.Model) -> int:
    """Write what scales and shifts each channel of a map for itself, and no operator could take in, as a convolution.

    Given: ``Add(Mul(x, s), t)`` or any chain of Mul, Div, Add and Sub, x (N, C, H, W), and not one number for all
    channels, which is a function of a value. Result: ``Conv(x, s, t)``, 1x1 in C groups: a batch norm before its Relu.
    """
    fired = 0
    for node in nodes(model, *AFFINE):
        found, chain = affine_of(node), [node]
        if found is None or rank(found.x) != 4 or normalises(node):
            continue
        scale, shift = found.scale, found.shift
        while (reader := only_reader(chain[-1].outputs[0])) is not None and reader.op_type in AFFINE:
            after = affine_of(reader)
            if after is None or after.x is not chain[-1].outputs[0] or reader.graph is not node.graph:
                break
            scale, shift = scale * after.scale, shift * after.scale + after.shift
            chain.append(reader)
        if len(np.unique(scale)) == len(np.unique(shift)) == 1:
            continue
        graph, old = node.graph, chain[-1].outputs[0]
        assert isinstance(graph, ir.Graph)
        weight = add_constant(graph, f"{node.name}/weight", scale.reshape(-1, 1, 1, 1).astype(np.float32))
        bias = add_constant(graph, f"{node.name}/bias", shift.astype(np.float32))
        name, whole = old.name, f"{node.name}/affine"
        (made,) = insert(chain[-1], "Conv", whole, [found.x, weight, bias], group=len(scale), kernel_shape=[1, 1])
        made.shape, made.type = old.shape, old.type
        bypass(chain[-1], made)
        for part in reversed(chain[:-1]):
            remove(part)
        made.name = name
        fired += 1
    return fired


def transpose_weights(model: ir.Model) -> int:
    """Store every constant Gemm weight as (outputs, inputs), with a factor of 1: one layout for linear layers."""
    fired = 0
    for node in nodes(model, "Gemm"):
        weight, bias = constant(operand(node, 1)), constant(operand(node, 2))
        alpha, beta = number(node, "alpha", 1.0), number(node, "beta", 1.0)
        done = integer(node, "transB", 0) == 1 and alpha == 1.0 and beta == 1.0
        if weight is None or done or (operand(node, 2) is not None and bias is None):
            continue
        matrix = weight if integer(node, "transB", 0) else weight.T
        set_constant(node, 1, "weight", (matrix * np.float32(alpha)).astype(np.float32))
        if bias is not None:
            set_constant(node, 2, "bias", (bias * np.float32(beta)).astype(np.float32))
        for name in ("alpha", "beta"):
            node.attributes.pop(name, None)
        node.attributes["transB"] = ir.AttrInt64("transB", 1)
        fired += 1
    return fired


def _modern(model: ir.Model) -> ir.Model:
    if model.opset_imports.get("", 0) >= OLDEST_OPSET:
        return model
    check(model)
    return of_opset(model, OPSET)


def of_opset(model: ir.Model, opset: int) -> ir.Model:
    """`model` in an opset, unless it is in a newer one.

    Raises:
        DeployError: (kind ``quantize``) it cannot be converted.
    """
    version = model.opset_imports.get("", 0)
    if version >= opset:
        return model
    try:
        return restore(onnx.version_converter.convert_version(skeleton(model), opset), model)
    except RuntimeError as error:  # what the C++ converter raises where it lacks a step
        message = f"opset {version} cannot be converted to {opset}"
        raise DeployError(message, kind="quantize", got=version, allowed=f"opset {opset} or newer") from error
