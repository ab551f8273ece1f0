"""Passes that fold an affine map of channels into the linear operator beside it.

Batch normalisation at inference, a residual scale, a bias added by hand, a normalisation of the input: each is
``y[c] = scale[c] * x[c] + shift[c]`` over the channel axis. Beside a linear operator ``x = W * z + b`` it is free:

* after it:   ``scale * (W * z + b) + shift  =  (scale * W) * z + (scale * b + shift)``, scaling W by output channel;
* before it:  ``W * (scale * z + shift) + b  =  (W * scale) * z + (b + W * shift)``, scaling W by input channel. A
  convolution that pads does so after the affine map, with zeros that the map did not see, so there ``shift`` must be 0.

The arithmetic is float64, rounded once to the weight's own type.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from inception_deploy.graph.rewrite import (
    Array,
    add_constant,
    bypass,
    channels,
    constant,
    insert,
    integer,
    ints,
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

LINEAR = ("Conv", "ConvTranspose", "Gemm")
AFFINE = ("Mul", "Div", "Add", "Sub")


class Affine(NamedTuple):
    """``y[:, c] = scale[c] * x[:, c] + shift[c]``; both vectors are float64 of x's channel count."""

    x: ir.Value
    scale: Array
    shift: Array


def fold_batchnorm(model: ir.Model) -> int:
    """Make every BatchNormalization part of a neighbour, or else one Mul and one Add.

    Given: ``BatchNormalization(x, gamma, beta, mean, var)`` with constant statistics, x (N, C, ...).
    Algebra: ``scale = gamma / sqrt(var + epsilon)``, ``shift = beta - mean * scale``.
    Result: folded into the linear operator that makes x, when nothing else reads x; else into all the operators that
    read it, when all are linear; else ``Add(Mul(x, scale), shift)`` with constants of shape (C, 1, ...).
    """
    fired = 0
    for node in nodes(model, "BatchNormalization"):
        affine = affine_of(node)
        if affine is not None:
            if not (_fold_back(node, affine) or _fold_forward(node, affine)):
                _expand(node, affine)
            fired += 1
    return fired


def fold_affine(model: ir.Model) -> int:
    """Fold multiplications by and additions of per-channel constants into linear operators: the residual scale first.

    Given: ``Mul(Conv(x, W, b), s)``, s a scalar or (C, 1, 1), or the same with Div, Add or Sub, in either order.
    Result: ``Conv(x, s * W, s * b)``. Where the operator before is not linear but all that follow are, it goes there.
    """
    fired = 0
    for node in nodes(model, *AFFINE):
        affine = affine_of(node)
        fired += affine is not None and _fold_back(node, affine)
    # Of a chain before an operator, the last must go first.
    for node in reversed(list(nodes(model, *AFFINE))):
        affine = affine_of(node)
        fired += affine is not None and _fold_forward(node, affine)
    return fired


def fold_pads(model: ir.Model) -> int:
    """Let a convolution or a pooling do the padding that a Pad node does before it.

    Given: ``Conv(Pad(x, p, 0), W, pads=q)`` with p over height and width only. Result: ``Conv(x, W, pads=p+q)``.
    An average pooling must count the zeros (its own padding is none or counted), and then still does. A maximum pooling
    pads with minus infinity: so must the Pad, or x be known not to be negative (it comes from a Relu).
    """
    fired = 0
    for node in nodes(model, "Pad"):
        source, reader = operand(node, 0), only_reader(node.outputs[0])
        pads, lowest = _pads(node)
        if source is None or reader is None or pads is None or not _takes_pads(reader, source, pads, lowest):
            continue
        own = ints(reader, "pads", [0] * len(pads))
        reader.attributes["pads"] = ir.AttrInt64s("pads", [a + b for a, b in zip(own, pads, strict=True)])
        reader.attributes.pop("auto_pad", None)
        if reader.op_type == "AveragePool":
            reader.attributes["count_include_pad"] = ir.AttrInt64("count_include_pad", 1)
        reader.replace_input_with(0, source)
        remove(node)
        fired += 1
    return fired


# -- the affine map -------------------------------------------------------------------------------------------------


def affine_of(node: ir.Node) -> Affine | None:
    """`node` read as an affine map of channels; None where it is not one, or its numbers are not constant."""
    if node.op_type == "BatchNormalization":
        return _batchnorm(node)
    left, right = operand(node, 0), operand(node, 1)
    number_on_left = constant(left) is not None
    x, numbers = (right, constant(left)) if number_on_left else (left, constant(right))
    if x is None or numbers is None or constant(x) is not None:
        return None
    vector = _per_channel(numbers, x)
    if vector is None:
        return None
    one, zero = np.ones_like(vector), np.zeros_like(vector)
    if node.op_type == "Mul":
        return Affine(x, vector, zero)
    if node.op_type == "Add":
        return Affine(x, one, vector)
    if node.op_type == "Sub":
        return Affine(x, -one, vector) if number_on_left else Affine(x, one, -vector)
    if number_on_left or not vector.all():  # a constant divided by x is not affine
        return None
    return Affine(x, 1 / vector, zero)


def _batchnorm(node: ir.Node) -> Affine | None:
    x, *rest = node.inputs
    parameters = [constant(value) for value in rest]
    unread = not any(value.uses() or value.is_graph_output() for value in node.outputs[1:])
    if x is None or integer(node, "training_mode", 0) or not unread:
        return None
    gamma, beta, mean, var = (None if p is None else p.astype(np.float64) for p in parameters)
    if gamma is None or beta is None or mean is None or var is None:
        return None
    scale = gamma / np.sqrt(var + number(node, "epsilon", 1e-5))
    return Affine(x, scale, beta - mean * scale)


def _per_channel(array: Array, x: ir.Value) -> Array | None:
    """`array` as one float64 per channel of `x`, when it broadcasts to x along the channel axis alone."""
    axes, count = rank(x), channels(x)
    if axes is None or count is None or array.ndim > axes or not np.issubdtype(array.dtype, np.floating):
        return None
    sizes = (1,) * (axes - array.ndim) + array.shape
    if any(size != 1 for axis, size in enumerate(sizes) if axis != 1) or sizes[1] not in (1, count):
        return None
    return np.broadcast_to(array.reshape(-1).astype(np.float64), (count,))


def _expand(node: ir.Node, affine: Affine) -> None:
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    sizes = (-1,) + (1,) * ((rank(affine.x) or 4) - 2)
    dtype = affine.x.dtype.numpy() if affine.x.dtype is not None else np.dtype(np.float32)
    scale = add_constant(graph, f"{node.name}/scale", affine.scale.reshape(sizes).astype(dtype))
    shift = add_constant(graph, f"{node.name}/shift", affine.shift.reshape(sizes).astype(dtype))
    (scaled,) = insert(node, "Mul", f"{node.name}/mul", [affine.x, scale])
    (shifted,) = insert(node, "Add", f"{node.name}/add", [scaled, shift])
    bypass(node, shifted)


# -- into a linear operator -----------------------------------------------------------------------------------------


def _fold_back(node: ir.Node, affine: Affine) -> bool:
    """Fold `node` into the linear operator that makes its x."""
    maker = affine.x.producer()
    if maker is None or maker.graph is not node.graph or only_reader(affine.x) is not node or not _is_linear(maker):
        return False
    weight, bias = _weight_and_bias(maker)
    scaled = weight * _along_outputs(maker, weight, affine.scale)
    _set_weight_and_bias(maker, scaled, bias * affine.scale + affine.shift)
    return bypass(node, affine.x)


def _fold_forward(node: ir.Node, affine: Affine) -> bool:
    """Fold `node` into the linear operators that read it."""
    output = node.outputs[0]
    uses = list(output.uses())
    if not uses or output.is_graph_output():
        return False
    for reader, index in uses:
        if index != 0 or reader.graph is not node.graph or not _is_linear(reader) or reader.op_type == "ConvTranspose":
            return False
        if reader.op_type == "Gemm" and integer(reader, "transA", 0):
            return False
        if reader.op_type == "Conv" and affine.shift.any() and not _pads_with_nothing(reader):
            return False
    for reader, _ in uses:
        weight, bias = _weight_and_bias(reader)
        scale, shift = (_along_inputs(reader, weight, vector) for vector in (affine.scale, affine.shift))
        axes = tuple(axis for axis in range(weight.ndim) if axis != _output_axis(reader))
        _set_weight_and_bias(reader, weight * scale, bias + (weight * shift).sum(axis=axes))
        reader.replace_input_with(0, affine.x)
    remove(node)
    return True


def _is_linear(node: ir.Node) -> bool:
    """Whether `node` is a linear operator with constant weights, whose output's second axis is the weights' outputs."""
    if node.domain or node.op_type not in LINEAR or constant(operand(node, 1)) is None:
        return False
    bias = operand(node, 2)
    if bias is None:
        return True
    numbers = constant(bias)
    if numbers is None:
        return False
    # Gemm's C may be a whole matrix; only one number an output is a bias.
    return node.op_type != "Gemm" or (
        numbers.size in (1, _outputs(node)) and (numbers.ndim == 0 or numbers.size == numbers.shape[-1])
    )


def _outputs(node: ir.Node) -> int:
    sizes = shape(node.inputs[1]) or ()
    if node.op_type == "ConvTranspose":
        return sizes[1] * integer(node, "group", 1)
    return sizes[_output_axis(node)]


def _output_axis(node: ir.Node) -> int:
    """The axis of a Conv's or Gemm's weight that counts outputs."""
    return 1 if node.op_type == "Gemm" and not integer(node, "transB", 0) else 0


def _weight_and_bias(node: ir.Node) -> tuple[Array, Array]:
    """The weight in its own layout and the bias (outputs,), as float64; Gemm's alpha and beta multiplied in."""
    weight, bias = constant(node.inputs[1]), constant(operand(node, 2))
    assert weight is not None
    alpha, beta = (number(node, name, 1.0) if node.op_type == "Gemm" else 1.0 for name in ("alpha", "beta"))
    flat = np.zeros(1) if bias is None else bias.reshape(-1).astype(np.float64) * beta
    return weight.astype(np.float64) * alpha, np.broadcast_to(flat, (_outputs(node),))


def _set_weight_and_bias(node: ir.Node, weight: Array, bias: Array) -> None:
    old = constant(node.inputs[1])
    assert old is not None
    set_constant(node, 1, "weight", weight.astype(old.dtype))
    set_constant(node, 2, "bias", bias.astype(old.dtype))
    for name in ("alpha", "beta"):
        node.attributes.pop(name, None)


def _along_outputs(node: ir.Node, weight: Array, vector: Array) -> Array:
    """`vector` (outputs,) in a shape that broadcasts with `weight`."""
    if (
        node.op_type == "ConvTranspose"
    ):  # weight (inputs, outputs / group, ...): row i belongs to group i // (inputs / group)
        group = integer(node, "group", 1)
        rows = np.repeat(vector.reshape(group, -1), weight.shape[0] // group, axis=0)
        return rows.reshape(rows.shape + (1,) * (weight.ndim - 2))
    sizes = [1] * weight.ndim
    sizes[_output_axis(node)] = -1
    return vector.reshape(sizes)


def _along_inputs(node: ir.Node, weight: Array, vector: Array) -> Array:
    """`vector` (inputs,) in a shape that broadcasts with `weight` of a Conv or Gemm."""
    if node.op_type == "Gemm":
        return vector.reshape((-1, 1) if _output_axis(node) == 1 else (1, -1))
    group = integer(node, "group", 1)  # weight (outputs, inputs / group, ...): output o sees the inputs of its group
    rows = np.repeat(vector.reshape(group, -1), weight.shape[0] // group, axis=0)
    return rows.reshape(rows.shape + (1,) * (weight.ndim - 2))


def _pads_with_nothing(node: ir.Node) -> bool:
    return text(node, "auto_pad", "NOTSET") in ("NOTSET", "VALID") and not any(ints(node, "pads"))


# -- padding --------------------------------------------------------------------------------------------------------


def _pads(node: ir.Node) -> tuple[list[int] | None, bool]:
    """What a Pad node adds, as a convolution's ``pads`` would say it, or None; and whether it is minus infinity, not
    zero.
    """
    axes, pads = rank(operand(node, 0)), constant(operand(node, 1))
    value, listed = operand(node, 2), operand(node, 3)
    if axes is None or axes < 3 or pads is None or text(node, "mode", "constant") != "constant":
        return None, False
    numbers = np.zeros(1) if value is None else constant(value)
    if numbers is None or not ((numbers == 0).all() or (numbers == -np.inf).all()):
        return None, False
    chosen = list(range(axes)) if listed is None else constant(listed)
    if chosen is None or (pads < 0).any():
        return None, False
    full = np.zeros((2, axes), np.int64)
    full[:, [int(axis) % axes for axis in chosen]] = pads.reshape(2, -1)
    sizes = None if full[:, :2].any() else [int(size) for size in full[:, 2:].reshape(-1)]
    return sizes, bool((numbers == -np.inf).all())


def _takes_pads(reader: ir.Node, source: ir.Value, pads: list[int], lowest: bool) -> bool:
    own = ints(reader, "pads")
    if reader.domain or reader.inputs[0] is None or text(reader, "auto_pad", "NOTSET") not in ("NOTSET", "VALID"):
        return False
    if reader.op_type == "Conv":
        return not lowest
    if integer(reader, "ceil_mode", 0) or not _narrower_than_kernel(reader, pads, own):
        return False
    if reader.op_type == "AveragePool":
        return not lowest and (not any(own) or integer(reader, "count_include_pad", 0) == 1)
    maker = source.producer()
    above = lowest or (maker is not None and maker.op_type == "Relu")
    return reader.op_type == "MaxPool" and len(reader.outputs) == 1 and above


def _narrower_than_kernel(node: ir.Node, pads: list[int], own: list[int]) -> bool:
    """Poolings may not pad as much as their window is wide."""
    kernel = ints(node, "kernel_shape")
    total = [a + b for a, b in zip(pads, own or [0] * len(pads), strict=True)]
    return len(total) == 2 * len(kernel) and all(pad < size for pad, size in zip(total, kernel + kernel, strict=True))
