"""Write the quantization into the graph: QuantizeLinear and DequantizeLinear around what computes in integers.

    Given     y = Relu(Conv(x, W, b))
    Result    y = Relu(Conv(DQ(Q(x)), DQ(W_int8), DQ(b_int32)));  DQ(Q(y)) goes to the readers of y

    Given     y = Relu(Add(Conv(x, W, b), s)), the Add in the accumulator
    Result    y = Relu(Add(Conv(DQ(Q(x)), DQ(W_int8), DQ(b_int32)), DQ(Q(s)))), nothing between Conv and Add

    Given     y = Relu(AveragePool(Conv1x1(x, W, b))) or y = Relu(Conv1x1(AveragePool(x), W, b)), the pooling summed
    Result    y = Relu(Conv1x1(AveragePool(DQ(Q(x))), DQ(W_int8), DQ(b_int32))), W with K 2^n for K places in a window

The result is an ordinary ONNX model: it runs in onnxruntime as it is, which puts its own integer kernels in the place
of each DQ-operator-Q, and so do other runtimes. `network.read` finds the integer layers in it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from inception_deploy.graph.branch import swap
from inception_deploy.graph.qoperators import OPSET_OF_SIXTEEN
from inception_deploy.graph.rewrite import constant, free_name, hand_over, operand, set_constant, shape
from inception_deploy.graph.skeleton import check

from .integer_weights import LARGEST_SHIFT, quantize_weights, scales
from .prepare import of_opset
from .scheme import Params, Scheme
from .structure import Layer, Structure

_FORMAT_OF_SIXTEEN = 10
"""ONNX's file format that came with that opset."""

SCHEME_KEY = "inception_deploy.scheme"
"""The entry of the model's metadata that names the scheme."""


def insert(
    model: ir.Model,
    structure: Structure,
    params: Mapping[ir.Value, Params],
    scheme: Scheme,
    *,
    rounded: Mapping[str, NDArray[np.int8]] | None = None,
    settled: bool = False,
) -> onnx.ModelProto:
    """Quantize `model`, which is changed.

    Args:
        structure: what `structure.analyse` found in this very model.
        params: of every tensor of ``structure.values``.
        rounded: int8 weights by the name of their node, in the place of rounding to the nearest.
        settled: the biases answer for the ties of adds already.

    Returns:
        A model that onnx's checker accepts, with the name of the scheme in its metadata. Same input, same bytes.
    """
    if scheme.power_of_two and not settled:
        settle_ties(structure, params)
    for layer in structure.layers:
        if layer.shortcut is not None:
            _bring_together(layer)
        if layer.kind == "pooled":
            _pool_first(layer)
    for layer in structure.layers:
        if layer.weighted is not None:
            _weights(layer, params, scheme, (rounded or {}).get(layer.name))
    nodes = {node for layer in structure.layers for node in layer.nodes}
    for value in structure.values:
        _tensor(value, params[value], nodes)
    model.metadata_props[SCHEME_KEY] = scheme.name
    model.producer_name = "inception-deploy"
    if any(how.wide for how in params.values()):
        model = of_opset(model, OPSET_OF_SIXTEEN)
        model.ir_version = max(_FORMAT_OF_SIXTEEN, model.ir_version)
    check(model)
    return ir.to_proto(model)


def _bring_together(layer: Layer) -> None:
    """Put a convolution right before the Add that is a part of it, behind all that makes the shortcut."""
    conv, add = layer.nodes[:2]
    graph = conv.graph
    assert isinstance(graph, ir.Graph)
    graph.remove(conv)
    graph.insert_before(add, conv)


def _pool_first(layer: Layer) -> None:
    """Put the pooling of a pooled layer before its convolution: a bias is then right where padding is counted, too."""
    pool, conv = layer.nodes[:2]
    if conv.inputs[0] is pool.outputs[0]:
        return
    before, after = shape(conv.inputs[0]), shape(pool.outputs[0])
    swap(conv, pool)
    conv.outputs[0].shape = ir.Shape(after) if after else None
    pool.outputs[0].shape = ir.Shape((*before[:2], *after[2:])) if before and after else None


def settle_ties(structure: Structure, params: Mapping[ir.Value, Params]) -> int:
    """Take the mean of rounding ties upwards out of the bias of a convolution before an add; in place.

    A sum that is shifted by `s` bits lies on a tie once in ``2^s``, and a tie goes up: ``2^-(s+1)`` of a step too much
    in the mean. A residual add shifts by one bit or two, and a network has dozens of them one behind the other. A
    convolution that only the add reads has a bias finer than the step, which gives that back. Gives how many did.
    """
    linear = {layer.outputs[0]: layer for layer in structure.layers if layer.kind == "linear" and len(layer.nodes) == 1}
    fired = 0
    for add in structure.layers:
        y = params.get(add.outputs[0])
        if add.kind != "add" or y is None:
            continue
        shift = y.exponent - min(params[value].exponent for value in add.inputs)
        before = next((linear[value] for value in add.inputs if value in linear and len(value.uses()) == 1), None)
        bias = constant(operand(before.nodes[0], 2)) if before is not None else None
        if shift > 0 and before is not None and bias is not None:
            set_constant(before.nodes[0], 2, "bias", (bias - np.ldexp(y.scale, -shift - 1)).astype(np.float32))
            fired += 1
    return fired


def weight_scales(layer: Layer, params: Mapping[ir.Value, Params], scheme: Scheme) -> NDArray[np.float32]:
    """The scale of each output channel of a layer with weights, float32 (O,)."""
    node = layer.weighted
    assert node is not None
    weight, bias = constant(node.inputs[1]), constant(operand(node, 2))
    assert weight is not None
    x, y = params[layer.inputs[0]], params.get(layer.outputs[0])
    finest = y.exponent - x.exponent - LARGEST_SHIFT if scheme.power_of_two and y is not None else None
    shortcut = params[layer.shortcut] if layer.shortcut is not None else None
    added = 0.0 if shortcut is None else -shortcut.limits[0] * shortcut.scale
    factors = layer.factors if layer.kind == "pooled" else None
    bits = 0 if factors is None else int(factors[1].max())
    return scales(weight, bias, x, scheme, finest, added, layer.taps, bits)


def too_fine(structure: Structure, params: Mapping[ir.Value, Params], scheme: Scheme) -> set[str]:
    """The convolutions whose shortcut has a finer scale than their accumulators, so that it cannot join them."""
    return {
        layer.name
        for layer in structure.layers
        if layer.shortcut is not None
        and params[layer.shortcut].scale < params[layer.inputs[0]].scale * weight_scales(layer, params, scheme).max()
    }


def _weights(layer: Layer, params: Mapping[ir.Value, Params], scheme: Scheme, rounded: NDArray[np.int8] | None) -> None:
    node = layer.weighted
    assert node is not None
    weight, bias = constant(node.inputs[1]), constant(operand(node, 2))
    assert weight is not None
    x, scale = params[layer.inputs[0]], weight_scales(layer, params, scheme)
    result = quantize_weights(weight, bias, scale, x, scheme, rounded, layer.taps)
    single = scheme.weights == "tensor"
    _dequantized(node, 1, "weight", result.weight, scale, single, np.zeros_like(scale, np.int8))
    if result.bias is not None:
        steps = (np.float32(x.scale) * (scale / np.float32(layer.taps))).astype(np.float32)
        _dequantized(node, 2, "bias", result.bias, steps, single, None)


def _dequantized(
    node: ir.Node,
    index: int,
    name: str,
    q: NDArray[np.int8] | NDArray[np.int32],
    scale: NDArray[np.float32],
    single: bool,
    zero: NDArray[np.int8] | None,
) -> None:
    """Make the `index`-th input of `node` the DequantizeLinear of constants."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    # In place of the float constant, which goes if nobody else reads it.
    set_constant(node, index, f"{name}_q", q)
    stored = node.inputs[index]
    assert stored is not None
    constants = [_add_constant(graph, f"{node.name}/{name}_scale", scale[0] if single else scale)]
    if zero is not None:
        constants.append(_add_constant(graph, f"{node.name}/{name}_zero", zero[0] if single else zero))
    full = free_name(graph, f"{node.name}/{name}_dq")
    output = ir.Value(name=full, shape=ir.Shape(q.shape), type=ir.TensorType(ir.DataType.FLOAT))
    attributes = {} if single else {"axis": 0}
    made = ir.node("DequantizeLinear", [stored, *constants], attributes=attributes, name=full, outputs=[output])
    graph.insert_before(node, made)
    node.replace_input_with(index, output)


def _tensor(value: ir.Value, params: Params, integer_nodes: set[ir.Node]) -> None:
    """``DQ(Q(value))`` for the integer readers of a tensor, and for all where an integer layer made it."""
    maker = value.producer()
    reader = next(iter(value.uses())).node
    graph = reader.graph
    assert isinstance(graph, ir.Graph)
    scale = _add_constant(graph, f"{value.name}/scale", np.float32(params.scale))
    zero = _add_constant(graph, f"{value.name}/zero", np.array(params.zero, params.dtype))
    kind = ir.DataType[params.dtype.upper()]
    # Q reads the value only after the others were handed over.
    q = ir.Value(name=free_name(graph, f"{value.name}/q"), shape=value.shape, type=ir.TensorType(kind))
    float_type = ir.TensorType(ir.DataType.FLOAT)
    dq = ir.Value(name=free_name(graph, f"{value.name}/dq"), shape=value.shape, type=float_type)
    to_int = ir.node("QuantizeLinear", [None, scale, zero], name=q.name, outputs=[q])
    to_float = ir.node("DequantizeLinear", [q, scale, zero], name=dq.name, outputs=[dq])
    if maker is None:
        graph.insert_before(next(iter(graph)), [to_int, to_float])
    else:
        graph.insert_after(maker, [to_int, to_float])
    if maker in integer_nodes:
        hand_over(value, dq)
    else:
        for user, index in list(value.uses()):
            if user in integer_nodes:
                user.replace_input_with(index, dq)
    to_int.replace_input_with(0, value)


def _add_constant(graph: ir.Graph, name: str, array: NDArray[Any] | np.generic) -> ir.Value:
    """A new initialiser of the very shape of `array`: a scale must be a scalar, not a vector of one."""
    free = free_name(graph, name)
    value = ir.val(free, const_value=ir.tensor(np.asarray(array), name=free))
    graph.register_initializer(value)
    return value
