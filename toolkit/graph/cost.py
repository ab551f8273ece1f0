"""What a graph costs before anything has run: multiplications, weights, memory, and where it forks and joins."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from inception_deploy.graph.rewrite import integer, ints, shape

if TYPE_CHECKING:
    import onnx


@dataclass(frozen=True)
class NodeCost:
    """One node. A symbolic size (the batch) counts as 1.

    Attributes:
        name, op_type: the node's.
        macs: multiply-accumulates of a convolution, a linear layer or a matrix product; 0 for every other operator.
        other_ops: additions, comparisons and the like of the other operators: a pooling's window times its outputs,
            an element-wise operator's outputs; 0 for those that only move data.
        parameters: elements of the weights it reads.
        output_shape, output_bytes: of its first output, and of all of them.
    """

    name: str
    op_type: str
    macs: int
    other_ops: int
    parameters: int
    output_shape: tuple[int, ...]
    output_bytes: int


@dataclass(frozen=True)
class ModelCost:
    """A whole graph, its nodes in order.

    Attributes:
        parameters: every floating-point weight once, however many nodes read it.
        peak_bytes: the most that inputs and outputs of nodes take at one time when run in this order, each kept from
            its maker to its last reader; weights not counted, nothing computed in place.
    """

    nodes: tuple[NodeCost, ...]
    macs: int
    other_ops: int
    parameters: int
    peak_bytes: int


@dataclass(frozen=True)
class Branch:
    """One way into a join: the nodes from `source` on, in order; none where the join reads `source` itself.

    Attributes:
        source: the value the branch starts from: the graph's input, a value that others read too, or another join.
    """

    source: str
    nodes: tuple[str, ...]
    macs: int


@dataclass(frozen=True)
class Join:
    """A Concat or an Add of several computed values."""

    name: str
    op_type: str
    output_shape: tuple[int, ...]
    branches: tuple[Branch, ...]


MOVES = (
    "Concat",
    "Split",
    "Slice",
    "Pad",
    "Reshape",
    "Flatten",
    "Squeeze",
    "Unsqueeze",
    "Transpose",
    "Identity",
    "Cast",
)


def cost(model: onnx.ModelProto | ir.Model) -> ModelCost:
    """The cost of a model whose shapes have been inferred (as `export` and `optimise` leave them)."""
    graph = _as_ir(model).graph
    nodes = tuple(_node_cost(node) for node in graph)
    weights = [value.const_value for value in graph.initializers.values()]
    parameters = sum(weight.size for weight in weights if weight is not None and weight.dtype.is_floating_point())
    return ModelCost(nodes, sum(n.macs for n in nodes), sum(n.other_ops for n in nodes), parameters, _peak_bytes(graph))


def joins(model: onnx.ModelProto | ir.Model) -> list[Join]:
    """Where the graph's branches meet, in order, each with the way back to where it forked."""
    graph = _as_ir(model).graph
    macs = {node: _node_cost(node).macs for node in graph}
    found = []
    for node in graph:
        if _is_join(node):
            branches = tuple(_branch(value, macs) for value in _computed(node))
            found.append(Join(node.name or "", node.op_type, _sizes(node.outputs[0]), branches))
    return found


def _as_ir(model: onnx.ModelProto | ir.Model) -> ir.Model:
    return model if isinstance(model, ir.Model) else ir.from_proto(model)


def _node_cost(node: ir.Node) -> NodeCost:
    read = {id(v): v.const_value for v in node.inputs if v is not None and v.is_initializer()}
    parameters = sum(t.size for t in read.values() if t is not None and t.dtype.is_floating_point())
    sizes = _sizes(node.outputs[0])
    total = sum(_bytes(value) for value in node.outputs)
    macs = _macs(node)
    return NodeCost(node.name or "", node.op_type, macs, _other(node, macs), parameters, sizes, total)


def _macs(node: ir.Node) -> int:
    """Outputs times what each of them sums."""
    if node.domain:
        return 0
    output = math.prod(_sizes(node.outputs[0]))
    if node.op_type == "Conv":
        weight = _sizes(node.inputs[1])  # (outputs, inputs / group, kernel...)
        return output * math.prod(weight[1:])
    if node.op_type == "ConvTranspose":
        weight = _sizes(node.inputs[1])  # (inputs, outputs / group, kernel...): each input element meets a row of it
        return math.prod(_sizes(node.inputs[0])) * math.prod(weight[1:])
    if node.op_type == "Gemm":
        left = _sizes(node.inputs[0])
        return output * left[0 if integer(node, "transA", 0) else 1] if len(left) == 2 else 0
    if node.op_type == "MatMul":
        return output * (_sizes(node.inputs[0]) or (1,))[-1]
    return 0


def _other(node: ir.Node, macs: int) -> int:
    output = math.prod(_sizes(node.outputs[0]))
    if macs or node.op_type in MOVES:
        return 0
    if node.op_type in ("AveragePool", "MaxPool"):
        return output * math.prod(ints(node, "kernel_shape"))
    if node.op_type.startswith(("Global", "Reduce")):
        return math.prod(_sizes(node.inputs[0]))
    return output


def _peak_bytes(graph: ir.Graph) -> int:
    last: dict[ir.Value, int] = {}
    order = list(graph)
    for index, node in enumerate(order):
        for value in (*node.inputs, *node.outputs):
            if value is not None and not value.is_initializer():
                last[value] = len(order) if value.is_graph_output() else index
    live = sum(_bytes(value) for value in graph.inputs if value in last)
    peak = live
    for index, node in enumerate(order):
        live += sum(_bytes(value) for value in node.outputs)
        peak = max(peak, live)
        touched = {value for value in (*node.inputs, *node.outputs) if value is not None and last.get(value) == index}
        live -= sum(_bytes(value) for value in touched)
    return peak


def _is_join(node: ir.Node) -> bool:
    return not node.domain and node.op_type in ("Concat", "Add", "Sum") and len(_computed(node)) > 1


def _computed(node: ir.Node) -> list[ir.Value]:
    return [value for value in node.inputs if value is not None and not value.is_initializer()]


def _branch(value: ir.Value, macs: dict[ir.Node, int]) -> Branch:
    """Walk up from a join's input to where it forked: a value of several readers, another join, the graph's input."""
    names: list[str] = []
    work = 0
    while len(value.uses()) == 1:
        node = value.producer()
        if node is None or _is_join(node):
            break
        names.append(node.name or "")
        work += macs[node]
        computed = _computed(node)
        if not computed:
            break
        value = computed[0]
    return Branch(value.name or "", tuple(reversed(names)), work)


def _sizes(value: ir.Value | None) -> tuple[int, ...]:
    """A value's shape with 1 for every size that is not known."""
    if value is None or value.shape is None:
        return ()
    return shape(value) or tuple(size if isinstance(size, int) else 1 for size in value.shape)


def _bytes(value: ir.Value) -> int:
    if value.dtype is None or value.shape is None:
        return 0
    return math.ceil(math.prod(_sizes(value)) * value.dtype.bitwidth / 8)
