"""Which nodes compute in integers, which tensors are quantized, and which of them must share a scale.

A layer is one node that computes, with the activations behind it that cost nothing because only its result is kept:

    linear    Conv, Gemm                      acc = sum x w + b                 then Relu or Clip
              Conv, then Add (a choice)       acc = sum x w + b + shortcut      then Relu or Clip
    add       Add of two computed tensors     acc = a + b                       then Relu or Clip
    pooled    AveragePool and 1x1 Conv        acc = sum sum x w + b (a choice)  then Relu or Clip
    mul       Mul of two, or of one and its   acc = a * b                       then Relu or Clip
              gate: a value for each channel
    mean      AveragePool, GlobalAveragePool  acc = sum x, divided by a count   then Relu or Clip
    concat    Concat                          bytes, moved (or rescaled, where each input has its own scale)
    move      MaxPool, Flatten, Relu, Pad,    bytes, moved (compared, at most)
              nearest Resize, Split, ...
    table     Tanh, x * 2, x * sigmoid(x),    256 bytes to look up
              chains of them

Everything else stays float, between a DequantizeLinear and a QuantizeLinear.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir

from inception_deploy.graph.rewrite import constant, integer, ints, number, only_reader, operand, rank, shape, text

from . import arith
from .scheme import Choices

ACTIVATIONS = ("Relu", "Clip")
SUMMED = ("summed", "alike")
"""`Choices.average` that take a pooling into the convolution beside it."""

POOLS = ("MaxPool", "GlobalMaxPool")
MOVES = (
    "Flatten", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Slice", "Split", "Gather", "Pad", "Resize",
    "DepthToSpace", "SpaceToDepth", *POOLS, *ACTIVATIONS,
)  # fmt: skip
MEANS = ("AveragePool", "GlobalAveragePool")
FUNCTIONS = (
    "Tanh", "Sigmoid", "HardSigmoid", "HardSwish", "LeakyRelu", "Elu", "Selu", "Celu", "Gelu", "Softplus", "Softsign",
    "Mish", "Erf", "Exp", "Log", "Sqrt", "Abs", "Neg", "Sin", "Cos", "Atan",
)  # fmt: skip
WEIGHTED = ("linear", "pooled")
"""The kinds of layers that have weights."""
SCALARS = ("Add", "Sub", "Mul", "Div", "Max", "Min", "Pow")
FUSE = ("linear", "pooled", "add", "mul", "mean")
"""Kinds of layers that a Relu or Clip behind them is a part of."""


@dataclass(frozen=True)
class Layer:
    """Nodes that are one step in integers.

    Attributes:
        kind: as in the module's table.
        nodes: the one that computes, then what is fused behind it, in order; of a ``pooled`` layer the pooling and the
            convolution, whichever comes first, then what is behind both.
        inputs: the activations it reads; of a ``linear`` with an Add, what it multiplies and the shortcut.
        outputs: the results; only a Split has several.
    """

    kind: str
    nodes: tuple[ir.Node, ...]
    inputs: tuple[ir.Value, ...]
    outputs: tuple[ir.Value, ...]

    @property
    def name(self) -> str:
        """The name of the node that computes."""
        return self.nodes[0].name or ""

    @property
    def weighted(self) -> ir.Node | None:
        """The node that has the weights, of a layer with any."""
        return self.nodes[self.kind == "pooled"] if self.kind in WEIGHTED else None

    @property
    def taps(self) -> int:
        """How many equal taps a weight stands for: it is their sum."""
        return math.prod(ints(self.nodes[0], "kernel_shape")) if self.kind == "pooled" else 1

    @property
    def factors(self) -> tuple[arith.Ints, arith.Ints] | None:
        """What the sums of a pooled layer's windows count, by place; None where that is no matter of shifts."""
        counts = window_counts(self.nodes[0], (shape(self.inputs[0]) or ())[2:])
        return arith.count_factors(counts, self.taps)

    @property
    def shortcut(self) -> ir.Value | None:
        """What a linear layer adds to its accumulators."""
        return self.inputs[1] if self.kind == "linear" and len(self.inputs) > 1 else None


@dataclass(frozen=True)
class Structure:
    """What `analyse` found; everything in the graph's order.

    Attributes:
        layers: those that compute in integers.
        values: the tensors that are quantized.
        float_nodes: the names of the nodes that stay float.
    """

    layers: tuple[Layer, ...]
    values: tuple[ir.Value, ...]
    float_nodes: tuple[str, ...]

    def groups(self, choices: Choices) -> list[list[ir.Value]]:
        """The quantized tensors, those together that share a scale and a zero point."""
        leader = {value: value for value in self.values}

        def find(value: ir.Value) -> ir.Value:
            while leader[value] is not value:
                value = leader[value]
            return value

        for layer in self.layers:
            if self.moves_bytes(layer, choices):
                first = find(layer.inputs[0])
                for value in (*layer.inputs[1:], *layer.outputs):
                    if value in leader:
                        leader[find(value)] = first
        result: dict[ir.Value, list[ir.Value]] = {}
        for value in self.values:
            result.setdefault(find(value), []).append(value)
        return list(result.values())

    def moves_bytes(self, layer: Layer, choices: Choices) -> bool:
        """Whether a layer's inputs and outputs share one scale."""
        if layer.kind == "concat":
            return choices.concat == "shared"
        if layer.kind == "move":
            return choices.moves == "input"
        if layer.kind == "mean":
            kept = layer.nodes[0].op_type == "AveragePool" and len(layer.nodes) == 1
            return choices.average == "input" or (choices.average in ("window", *SUMMED) and kept)
        return False

    def sources(self, group: list[ir.Value], choices: Choices) -> list[ir.Value]:
        """The tensors of a group that are made by something else than moving bytes from one of the others."""
        moved = {
            value
            for layer in self.layers
            if layer.kind in ("concat", "move") and self.moves_bytes(layer, choices)
            for value in layer.outputs
        }
        return [value for value in group if value not in moved]


def analyse(
    model: ir.Model, keep_float: Collection[str] = (), choices: Choices | None = None, apart: Collection[str] = ()
) -> Structure:
    """Find the layers of a float model that was prepared by `prepare.prepare`.

    Args:
        keep_float: names of nodes that stay float whatever they are.
        choices: whether an Add becomes a part of the convolution before it, and an average pooling of the one beside
            it; no, by default.
        apart: names of convolutions that the Add behind them does not become a part of.
    """
    layers: list[Layer] = []
    taken: set[ir.Node] = set()
    for node in model.graph:
        if node in taken:
            continue
        layer = _layer(node)
        if layer is not None:
            taken.update(layer.nodes)
            if not any(part.name in keep_float for part in layer.nodes):  # a layer stays float as a whole
                layers.append(layer)
    layers = _without_idle_ends(layers)
    if choices is not None and choices.average in SUMMED:
        layers = _summed(layers, alike=choices.average == "alike")
    if choices is not None and choices.add == "accumulator":
        layers = _accumulated(layers, apart)
    chosen = {node for layer in layers for node in layer.nodes}
    left = tuple(node.name or "" for node in model.graph if node not in chosen)
    return Structure(tuple(layers), tuple(_quantized(model, layers)), left)


def _quantized(model: ir.Model, layers: list[Layer]) -> list[ir.Value]:
    """A tensor is quantized when a layer reads it."""
    read = {value for layer in layers for value in layer.inputs}
    made = [*model.graph.inputs, *(value for node in model.graph for value in node.outputs)]
    return [value for value in made if value in read]


def window_counts(node: ir.Node, size: Sequence[int]) -> arith.Ints:
    """What the sums of an average pooling over a map of `size` are divided by: int32 (OH, OW)."""
    if node.op_type == "GlobalAveragePool":
        return arith.window_count(size, size)
    return arith.window_count(
        size,
        ints(node, "kernel_shape"),
        strides=ints(node, "strides", [1, 1]),
        pads=ints(node, "pads", [0] * 4),
        count_padding=bool(integer(node, "count_include_pad", 0)),
    )


def is_pointwise(node: ir.Node) -> bool:
    """A convolution that mixes the channels of each place, and moves nothing."""
    weight = operand(node, 1)
    sizes = shape(weight) if weight is not None else None
    moved = any(ints(node, "pads")) or any(step != 1 for step in ints(node, "strides", [1]))
    return (
        node.op_type == "Conv"
        and sizes is not None
        and sizes[2:] == (1, 1)
        and integer(node, "group", 1) == 1
        and not moved
    )


def _summed(layers: list[Layer], *, alike: bool) -> list[Layer]:
    """With each average pooling of stride 1 and the 1x1 convolution beside it in one layer; where `alike`, only those
    all of whose windows count as many pixels.

    Either may come first. A convolution that does so has a bias only where no padding is counted, and an activation
    behind the pooling, whose result is what is quantized in either order.
    """
    by_node = {layer.nodes[0]: layer for layer in layers}
    pooled: dict[Layer, Layer] = {}  # by the second of the two
    gone: set[Layer] = set()
    for first in layers:
        reader = only_reader(first.outputs[0])
        second = by_node.get(reader) if reader is not None else None
        if second is None or len(first.nodes) > 1 or {first.kind, second.kind} != {"mean", "linear"}:
            continue
        pool, conv = (first.nodes[0], second.nodes[0])[:: 1 if first.kind == "mean" else -1]
        counted, bias = integer(pool, "count_include_pad", 0) and any(ints(pool, "pads")), constant(operand(conv, 2))
        exchanged = conv is reader or (len(second.nodes) > 1 and (not counted or bias is None or not bias.any()))
        if exchanged and pool.op_type == "AveragePool" and is_pointwise(conv) and is_plain_sum(pool):
            layer = Layer("pooled", (pool, conv, *second.nodes[1:]), first.inputs, second.outputs)
            factors = layer.factors
            if factors is not None and not (alike and any(len(np.unique(part)) > 1 for part in factors)):
                pooled[second] = layer
                gone.add(first)
    return [pooled.get(layer, layer) for layer in layers if layer not in gone]


def is_plain_sum(pool: ir.Node) -> bool:
    """A pooling that has a window for every place, of a map whose size is known."""
    return shape(pool.inputs[0]) is not None and all(step == 1 for step in ints(pool, "strides", [1, 1]))


def _accumulated(layers: list[Layer], apart: Collection[str]) -> list[Layer]:
    """With each Add taken into a convolution without groups that makes one of its sides for it alone.

    Of two such convolutions the later one takes it, so that the shortcut is there when the sums are.
    """
    order = {layer: number for number, layer in enumerate(layers)}
    plain = {
        layer.outputs[0]: layer
        for layer in layers
        if layer.nodes[-1].op_type == "Conv" and integer(layer.nodes[0], "group", 1) == 1 and layer.name not in apart
    }
    taken: dict[Layer, Layer] = {}  # the convolution of each Add
    for layer in layers:
        if layer.kind == "add":
            makers = [plain[value] for value in layer.inputs if value in plain and only_reader(value) is layer.nodes[0]]
            if makers:
                taken[layer] = max(makers, key=order.__getitem__)
    result = []
    for layer in layers:
        conv = taken.get(layer)
        if conv is not None:
            other = layer.inputs[0] if layer.inputs[1] is conv.outputs[0] else layer.inputs[1]
            result.append(Layer("linear", (*conv.nodes, *layer.nodes), (*conv.inputs, other), layer.outputs))
        elif layer not in taken.values():
            result.append(layer)
    return result


def _without_idle_ends(layers: list[Layer]) -> list[Layer]:
    """Without the layers that would quantize a tensor only to move its bytes and turn them back to float."""
    while True:
        read = {value for layer in layers for value in layer.inputs}
        kept = [x for x in layers if x.kind not in ("move", "concat", "table") or any(v in read for v in x.outputs)]
        if len(kept) == len(layers):
            return layers
        layers = kept


def _layer(node: ir.Node) -> Layer | None:
    if node.domain or not node.outputs or node.outputs[0].dtype not in (ir.DataType.FLOAT, None):
        return None
    kind = _kind(node)
    if kind is None:
        return None
    chain = [node]
    activations = [value for value in node.inputs if value is not None and constant(value) is None]
    if kind in ("table", "move") and normalises(node):
        return None
    while kind in FUSE or kind == "table":
        reader = only_reader(chain[-1].outputs[0])
        if reader is None or reader.graph is not node.graph:
            break
        if not (continues(reader, chain[-1], activations[0]) if kind == "table" else is_activation(reader)):
            break
        chain.append(reader)
        if kind != "table":
            break
    # A node may read one value twice (x + x): both sides count.
    return Layer(kind, tuple(chain), tuple(activations), tuple(chain[-1].outputs))


def _kind(node: ir.Node) -> str | None:
    op = node.op_type
    if op in ("Conv", "Gemm"):
        return "linear" if _is_linear(node) else None
    if op == "Add" and _joins_two(node):
        return "add"
    if op == "Mul" and scales_other(node):
        return "mul"
    if op in MEANS:
        return "mean" if _plain_window(node) and not integer(node, "ceil_mode", 0) else None
    if op == "Concat":
        return "concat" if all(v is not None and constant(v) is None for v in node.inputs) else None
    if op in ACTIVATIONS:
        return "move" if is_activation(node) else None
    if op in POOLS:
        return "move" if _plain_window(node) and len(node.outputs) == 1 else None
    if op in MOVES:
        others_constant = all(v is None or constant(v) is not None for v in node.inputs[1:])
        return "move" if others_constant and constant(node.inputs[0]) is None and only_moves(node) else None
    return "table" if is_function(node) else None


def _is_linear(node: ir.Node) -> bool:
    weight, bias = operand(node, 1), operand(node, 2)
    known = constant(weight) is not None and (bias is None or constant(bias) is not None)
    if node.op_type == "Conv":
        return known and rank(weight) == 4 and text(node, "auto_pad", "NOTSET") == "NOTSET"
    plain = number(node, "alpha", 1.0) == 1.0 and number(node, "beta", 1.0) == 1.0 and not integer(node, "transA", 0)
    flat = bias is None or len(shape(bias) or (0, 0)) == 1
    return known and plain and flat and bool(integer(node, "transB", 0))


def _joins_two(node: ir.Node) -> bool:
    a, b = node.inputs[:2]
    if a is None or b is None or constant(a) is not None or constant(b) is not None:
        return False
    return a.shape is not None and b.shape is not None and a.shape == b.shape


def scales_other(node: ir.Node) -> bool:
    """A product of two computed tensors: of one shape, or of a map and one value for each of its channels."""
    a, b = node.inputs
    if a is None or b is None or constant(a) is not None or constant(b) is not None:
        return False
    one, other = shape(a), shape(b)
    if one is None or other is None:
        return False
    return one == other or (len(one) == len(other) == 4 and one[:2] == other[:2] and (1, 1) in (one[2:], other[2:]))


def _plain_window(node: ir.Node) -> bool:
    flat = text(node, "auto_pad", "NOTSET") == "NOTSET" and rank(node.inputs[0]) == 4
    undilated = node.op_type in POOLS or all(step == 1 for step in ints(node, "dilations", [1]))
    return flat and undilated


def only_moves(node: ir.Node) -> bool:
    """Of an operator of `MOVES`: this one takes each value from its input, or puts one finite number in its place."""
    if node.op_type == "Resize":
        cropped = text(node, "coordinate_transformation_mode", "half_pixel") == "tf_crop_and_resize"
        return text(node, "mode", "nearest") == "nearest" and not cropped
    value = constant(operand(node, 2)) if node.op_type == "Pad" else None
    return value is None or bool(np.isfinite(value).all())


def is_activation(node: ir.Node) -> bool:
    """A Relu, or a Clip with constant bounds."""
    if node.domain or node.op_type not in ACTIVATIONS:
        return False
    return all(value is None or constant(value) is not None for value in node.inputs[1:])


def is_function(node: ir.Node) -> bool:
    """One value in, one value out, by a rule that is the same everywhere in the tensor."""
    if node.domain or len(node.outputs) != 1:
        return False
    if node.op_type in FUNCTIONS:
        return len(node.inputs) == 1
    if node.op_type not in SCALARS or len(node.inputs) != 2:
        return False
    numbers = [constant(value) for value in node.inputs]
    computed = [value for value, array in zip(node.inputs, numbers, strict=True) if array is None]
    scalars = [array for array in numbers if array is not None]
    return len(computed) == 1 and all(array.size == 1 and array.ndim <= (rank(computed[0]) or 0) for array in scalars)


def normalises(node: ir.Node) -> bool:
    """It prepares the pixels of a picture, which came as bytes: what it gives is rounded once, where the network begins
    to compute with it.
    """
    while len(found := [value for value in node.inputs if value is not None and constant(value) is None]) == 1:
        before = found[0].producer()
        if node.op_type == "Cast":
            return _elements(found[0]) == ir.DataType.UINT8
        if before is None or node.op_type not in (*SCALARS, "Transpose", "Clip"):
            return False
        node = before
    return False


def _elements(value: ir.Value | None) -> ir.DataType | None:
    """A value's type, or, where it is not noted, that of what it is a view of."""
    while value is not None and value.dtype is None:
        before = value.producer()
        value = before.inputs[0] if before is not None and before.op_type in ("Transpose", "Reshape") else None
    return None if value is None else value.dtype


def continues(node: ir.Node, before: ir.Node, x: ir.Value) -> bool:
    """Whether what a chain of functions of `x` gives so far goes on through `node`, which may read `x` again:
    ``x * sigmoid(x)``.
    """
    if is_function(node) or is_activation(node):
        return True
    whole = {before.outputs[0], x}
    return node.op_type in SCALARS and not node.domain and len(node.inputs) == 2 and whole == set(node.inputs)
