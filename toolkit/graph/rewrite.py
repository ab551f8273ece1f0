"""The few graph operations that every pass is written in.

A pass is a function ``(onnx_ir.Model) -> int`` that changes the model in place and returns how often it fired. It
leaves every value alone that it does not own: a value with another reader, one that leaves the graph, a weight that two
nodes share (`set_constant` never writes into a weight; it makes a new one).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

Array = NDArray[Any]


def nodes(model: ir.Model, *op_types: str) -> Iterator[ir.Node]:
    """The top graph's nodes of these ONNX operators, in order; the graph may change meanwhile.

    Bodies of If, Loop and Scan are left alone by every pass; what they read from outside counts as a reader there.
    """
    for node in list(model.graph):
        if node.graph is model.graph and node.domain == "" and (not op_types or node.op_type in op_types):
            yield node


def constant(value: ir.Value | None) -> Array | None:
    """The numbers of an initialiser; None for anything that is not one."""
    if value is None or value.const_value is None or not value.is_initializer():
        return None
    return value.const_value.numpy()


def dequantized(value: ir.Value | None) -> ir.Node | None:
    """The DequantizeLinear that makes `value` of a constant; None for any other value."""
    maker = None if value is None else value.producer()
    if maker is None or maker.op_type != "DequantizeLinear" or maker.domain or constant(maker.inputs[0]) is None:
        return None
    return maker


def numbers_of(node: ir.Node) -> Array | None:
    """The numbers that the DequantizeLinear of a constant gives, float32; None for one in blocks."""
    q, scale, zero = (constant(operand(node, index)) for index in range(3))
    if q is None or scale is None or integer(node, "block_size", 0):
        return None
    if scale.size > 1:
        sizes = [1] * q.ndim
        sizes[integer(node, "axis", 1) % q.ndim if q.ndim > 1 else 0] = -1
        scale, zero = scale.reshape(sizes), None if zero is None else zero.reshape(sizes)
    centred = q.astype(np.float64) - (0 if zero is None else zero.astype(np.float64))
    return np.asarray(centred * scale, np.float32)


def shape(value: ir.Value | None) -> tuple[int, ...] | None:
    """A value's shape when every size is known."""
    if value is None or value.shape is None or not value.shape.is_static():
        return None
    return tuple(value.shape.numpy())


def rank(value: ir.Value | None) -> int | None:
    """A value's number of axes, when known."""
    return None if value is None or value.shape is None else len(value.shape)


def channels(value: ir.Value | None) -> int | None:
    """The size of a value's channel axis, which is the second, when known."""
    if value is None or value.shape is None or len(value.shape) < 2:
        return None
    size = value.shape[1]
    return size if isinstance(size, int) else None


def places(value: ir.Value | None) -> int | None:
    """How many places (height times width) a feature map has, when known; the batch may be symbolic."""
    if value is None or value.shape is None:
        return None
    sizes = [size for size in value.shape[2:] if isinstance(size, int)]
    return math.prod(sizes) if len(sizes) == len(value.shape) - 2 else None


def same_shape(a: ir.Value | None, b: ir.Value | None) -> bool:
    """Whether two values certainly have one shape: each size known and equal, or the same named symbol."""
    if a is None or b is None or a.shape is None or b.shape is None or len(a.shape) != len(b.shape):
        return False
    pairs = zip(a.shape, b.shape, strict=True)
    return all(x == y and (isinstance(x, int) or x.value is not None) for x, y in pairs)


def only_reader(value: ir.Value) -> ir.Node | None:
    """The node that reads `value`, when there is exactly one reader, once, and the value does not leave the graph."""
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output():
        return None
    return uses[0].node


def operand(node: ir.Node, index: int) -> ir.Value | None:
    """An input of `node`, None where it is left out."""
    return node.inputs[index] if index < len(node.inputs) else None


def ints(node: ir.Node, name: str, default: Sequence[int] | None = None) -> list[int]:
    """An attribute that is a list of integers."""
    attribute = node.attributes.get(name)
    return list(attribute.as_ints() if attribute is not None else default or [])


def integer(node: ir.Node, name: str, default: int) -> int:
    """An attribute that is one integer."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_int()


def number(node: ir.Node, name: str, default: float) -> float:
    """An attribute that is one float."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_float()


def text(node: ir.Node, name: str, default: str) -> str:
    """An attribute that is one string."""
    attribute = node.attributes.get(name)
    return default if attribute is None else attribute.as_string()


def free_name(graph: ir.Graph, name: str) -> str:
    """`name`, or `name` with the first number that no value of the graph has."""
    taken = {value.name for value in (*graph.inputs, *graph.initializers.values())}
    taken |= {value.name for node in graph for value in node.outputs}
    free, count = name, 0
    while free in taken:
        count += 1
        free = f"{name}_{count}"
    return free


def add_constant(graph: ir.Graph, name: str, array: Array) -> ir.Value:
    """A new initialiser called `name`, or nearly so."""
    free = free_name(graph, name)
    value = ir.val(free, const_value=ir.tensor(np.asarray(array, order="C"), name=free))
    graph.register_initializer(value)
    return value


def set_constant(node: ir.Node, index: int, suffix: str, array: Array) -> None:
    """Make the constant `array` the `index`-th input of `node`, as ``<node>/<suffix>``; the old one goes if unused."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    old = operand(node, index)
    if index >= len(node.inputs):
        node.resize_inputs(index + 1)
    node.replace_input_with(index, None)
    drop_unused(graph, old)
    node.replace_input_with(index, add_constant(graph, f"{node.name}/{suffix}", array))


def drop_unused(graph: ir.Graph, value: ir.Value | None) -> None:
    """Forget an initialiser that nothing reads any more."""
    if value is not None and value.is_initializer() and not value.uses() and not value.is_graph_output():
        graph.initializers.pop(value.name or "", None)


def insert(
    before: ir.Node, op_type: str, name: str, inputs: Sequence[ir.Value | None], *, outputs: int = 1, **attributes: Any
) -> list[ir.Value]:
    """A new node before another, called `name` or nearly so; gives its outputs, the first called the same."""
    graph = before.graph
    assert isinstance(graph, ir.Graph)
    names = [free_name(graph, name if index == 0 else f"{name}.{index}") for index in range(outputs)]
    values = [ir.Value(name=value_name) for value_name in names]
    graph.insert_before(before, ir.node(op_type, inputs, attributes=attributes, name=names[0], outputs=values))
    return values


def hand_over(old: ir.Value, new: ir.Value) -> bool:
    """Make all that reads `old` read `new`, which is equal to it.

    A graph output keeps its name: the two swap names. Where that cannot be, because `new` is an input, a constant or an
    output of the graph already, nothing is done and the result is False.
    """
    if old.is_graph_output():
        if new.producer() is None or new.is_graph_output():
            return False
        old.name, new.name = new.name, old.name
        new.shape, new.type = old.shape, old.type
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
    return True


def bypass(node: ir.Node, value: ir.Value) -> bool:
    """Remove `node`, whose first output is equal to `value`; False where `hand_over` cannot be."""
    done = hand_over(node.outputs[0], value)
    if done:
        remove(node)
    return done


def replace(
    node: ir.Node, op_type: str, inputs: Sequence[ir.Value | None], *, name: str | None = None, **attributes: Any
) -> None:
    """Put another operator in the place of `node`, under the same name (or `name`); its output keeps its name too."""
    node_name, value_name = name or node.name, node.outputs[0].name
    (value,) = insert(node, op_type, f"{node.name}/new", inputs, **attributes)
    bypass(node, value)
    made = value.producer()
    assert made is not None
    made.name, value.name = node_name, value_name


def remove(node: ir.Node) -> None:
    """Remove a node that nothing reads, and the constants that only it read."""
    graph = node.graph
    assert isinstance(graph, ir.Graph)
    inputs = list(node.inputs)
    graph.remove(node, safe=True)
    for value in inputs:
        drop_unused(graph, value)
