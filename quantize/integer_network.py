"""A QDQ model as the integer network it stands for, and the exact execution of it: the reference of every target.

`read` finds the integer steps between QuantizeLinear and DequantizeLinear. `Network.run` computes them with `arith` and
nothing else, so its bytes are the meaning of the model. What is no integer step is a float node: `float_nodes` lists
them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from inception_deploy.errors import DeployError
from inception_deploy.graph.rewrite import constant, integer, ints, only_reader, operand, shape
from inception_deploy.verify import run_onnx

from . import arith
from .insert import SCHEME_KEY
from .scheme import SCHEMES, Dtype, Params
from .structure import ACTIVATIONS, FUNCTIONS, MEANS, MOVES, SCALARS

Array = NDArray[Any]


@dataclass(frozen=True)
class Tensor:
    """A quantised tensor: the name of its integers in the model, and what they mean."""

    name: str
    params: Params


@dataclass(frozen=True)
class Step:
    """One integer step, or one float node.

    Args:
        kind: ``linear``, ``add``, ``mean``, ``concat``, ``move``, ``table``, ``float``, or the two edges ``quantize``
            (a float tensor becomes integers) and ``dequantize`` (integers become one).
        nodes: the ONNX nodes it stands for; the first names it.
        inputs: the quantised tensors it reads, in order.
        output: the quantised tensor it makes; None where its result leaves as float.
        result: the name of its float result; the integers' dequantisation where there are both.
        weight, weight_scale, bias: of a linear step: int8, float32 (O,), int32 (O,).
    """

    kind: str
    nodes: tuple[ir.Node, ...]
    inputs: tuple[Tensor, ...]
    output: Tensor | None
    result: str
    weight: NDArray[np.int8] | None = None
    weight_scale: NDArray[np.float32] | None = None
    bias: NDArray[np.int32] | None = None

    @property
    def name(self) -> str:
        """The name of the node that computes."""
        return self.nodes[0].name or ""


@dataclass(frozen=True)
class Network:
    """The steps of a QDQ model, in order.

    Args:
        power_of_two: requantise by shifts instead of multiplications.
        inputs, outputs: the names of the model's float inputs and outputs.
        sources: what each quantised tensor is the quantisation of: its name in the float model.
    """

    steps: tuple[Step, ...]
    power_of_two: bool
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    sources: Mapping[str, str]

    @property
    def float_nodes(self) -> list[str]:
        """The names of the nodes that compute in float."""
        return [step.name for step in self.steps if step.kind == "float"]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Every tensor by name: 8-bit for the quantised ones, float32 for float inputs, outputs and results."""
        values: dict[str, Array] = dict(feeds)
        for step in self.steps:
            self.execute(step, values)
        return values

    def execute(self, step: Step, values: dict[str, Array]) -> None:
        """Compute one step from the tensors in `values`, and put its result there."""
        _execute(step, values, self.power_of_two)

    def float_name(self, tensor: Tensor) -> str:
        """The name that a quantised tensor has in the float model."""
        return self.sources[tensor.name]


def read(model: onnx.ModelProto) -> Network:
    """The integer network of a model that `insert.insert` wrote.

    Raises:
        DeployError: (kind ``quantize``) a scale or a zero point is not a constant scalar, or of another type.
    """
    graph_model = ir.from_proto(model)
    graph = graph_model.graph
    scheme = graph_model.metadata_props.get(SCHEME_KEY, "float-scale")
    reader = _Reader()
    steps: list[Step] = []
    taken: set[ir.Node] = set()
    for node in graph:
        if node not in taken:
            step = reader.step(node)
            if step is not None:
                steps.append(step)
                taken.update(step.nodes)
    names = tuple(value.name or "" for value in graph.inputs), tuple(value.name or "" for value in graph.outputs)
    power = scheme in SCHEMES and SCHEMES[scheme].power_of_two
    sources = {
        node.outputs[0].name or "": (node.inputs[0].name or "") if node.inputs[0] is not None else ""
        for node in graph
        if node.op_type == "QuantizeLinear"
    }
    return Network(tuple(steps), power, *names, sources)


def is_ours(model: onnx.ModelProto) -> bool:
    """Whether `insert.insert` wrote this model, so that `read` gives all of its meaning."""
    return any(entry.key == SCHEME_KEY and entry.value in SCHEMES for entry in model.metadata_props)


def is_quantised(model: onnx.ModelProto) -> bool:
    """Whether there is anything quantised in it."""
    return any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node)


def reference(model: onnx.ModelProto, feeds: Mapping[str, Array], *, threads: int = 0) -> list[Array]:
    """The outputs of a QDQ model, in the graph's order: exactly in integers where it is ours, else in onnxruntime."""
    if not is_ours(model):
        return run_onnx(model, dict(feeds), threads=threads)
    network = read(model)
    values = network.run(feeds)
    return [values[name] for name in network.outputs]


def tensors(model: onnx.ModelProto) -> dict[str, Params]:
    """The parameters of every quantised activation, by the name that it has in the float model."""
    graph = ir.from_proto(model).graph
    return {
        (node.inputs[0].name if node.inputs[0] is not None else None) or "": params_of(node)
        for node in graph
        if node.op_type == "QuantizeLinear"
    }


def input_limits(model: onnx.ModelProto) -> tuple[float, float]:
    """The ends of the reals that the model's input is quantised to; infinite where it stays float."""
    for step in read(model).steps:
        if step.kind == "quantize" and step.output is not None and step.result == model.graph.input[0].name:
            how = step.output.params
            low, high = how.limits
            return (low - how.zero) * how.scale, (high - how.zero) * how.scale
    return -math.inf, math.inf


def float_nodes(model: onnx.ModelProto) -> list[str]:
    """The names of the nodes of a QDQ model that compute in float, in order."""
    return read(model).float_nodes


class _Reader:
    """Recognises the steps around each node, which it is given in the graph's order."""

    def __init__(self) -> None:
        self.made: set[ir.Node] = set()  # the QuantizeLinear nodes that belong to integer steps

    def step(self, node: ir.Node) -> Step | None:
        """The step that begins at `node`; None for a QuantizeLinear or DequantizeLinear that is part of another."""
        if node.op_type == "DequantizeLinear":
            return self._edge_out(node)
        if node.op_type == "QuantizeLinear":
            return self._edge_in(node)
        kind = _kind(node)
        sources = [self.tensor(value) for value in self._activations(node)]
        if kind is None or not sources or None in sources:
            return Step("float", (node,), (), None, node.outputs[0].name or "")
        nodes = [node]
        while (follower := only_reader(nodes[-1].outputs[0])) is not None and _follows(kind, follower, len(nodes)):
            nodes.append(follower)
        inputs = tuple(source for source in sources if source is not None)
        result = nodes[-1].outputs[0]
        output = self._quantised(result)
        self.made.update(user for value in nodes[-1].outputs for user, _ in value.uses())
        if kind == "linear":
            weight, scale, bias = self._weights(node)
            return Step(kind, tuple(nodes), inputs, output, result.name or "", weight, scale, bias)
        return Step(kind, tuple(nodes), inputs, output, result.name or "")

    def tensor(self, value: ir.Value | None) -> Tensor | None:
        """The quantised tensor that a float value is the dequantisation of."""
        maker = value.producer() if value is not None else None
        if maker is None or maker.op_type != "DequantizeLinear" or constant(maker.inputs[0]) is not None:
            return None
        return Tensor(maker.inputs[0].name or "", params_of(maker))  # type: ignore[union-attr]

    def _edge_in(self, node: ir.Node) -> Step | None:
        """A QuantizeLinear of what no integer step makes: an input of the graph, or the result of a float node."""
        source = node.inputs[0]
        if node in self.made:
            return None
        tensor = Tensor(node.outputs[0].name or "", params_of(node))
        return Step("quantize", (node,), (), tensor, source.name or "" if source is not None else "")

    def _edge_out(self, node: ir.Node) -> Step | None:
        """A DequantizeLinear of a computed tensor that a float node or the graph's output reads."""
        if constant(node.inputs[0]) is not None:
            return None
        tensor = self.tensor(node.outputs[0])
        assert tensor is not None
        return Step("dequantize", (node,), (tensor,), None, node.outputs[0].name or "")

    def _activations(self, node: ir.Node) -> list[ir.Value]:
        """What a node reads, without constants and dequantised constants."""
        found = []
        for value in node.inputs:
            maker = value.producer() if value is not None else None
            weight = maker is not None and maker.op_type == "DequantizeLinear" and constant(maker.inputs[0]) is not None
            if value is not None and constant(value) is None and not weight:
                found.append(value)
        return found

    def _quantised(self, result: ir.Value) -> Tensor | None:
        """The integers that a float result is turned into; it is read as float nowhere then."""
        user = only_reader(result)
        if user is None or user.op_type != "QuantizeLinear":
            return None
        return Tensor(user.outputs[0].name or "", params_of(user))

    def _weights(self, node: ir.Node) -> tuple[NDArray[np.int8], NDArray[np.float32], NDArray[np.int32] | None]:
        made = node.inputs[1].producer() if node.inputs[1] is not None else None
        assert made is not None
        weight, scale = constant(made.inputs[0]), constant(made.inputs[1])
        assert weight is not None
        assert scale is not None
        spread = np.broadcast_to(scale.astype(np.float32), (len(weight),))
        bias = operand(node, 2)
        maker = bias.producer() if bias is not None else None
        return weight, spread, constant(maker.inputs[0]) if maker is not None else None


def _kind(node: ir.Node) -> str | None:
    """What a node can be if all it reads is quantised."""
    op = node.op_type
    if op in ("Conv", "Gemm"):
        made = node.inputs[1].producer() if node.inputs[1] is not None else None
        return "linear" if made is not None and made.op_type == "DequantizeLinear" else None
    if op == "Add" and not any(constant(value) is not None for value in node.inputs):
        return "add"
    if op in MEANS:
        return "mean"
    if op in MOVES:
        return "move"
    if op == "Concat":
        return "concat"
    return "table" if op in FUNCTIONS or op in SCALARS else None


def _follows(kind: str, follower: ir.Node, length: int) -> bool:
    if kind == "table":
        return follower.op_type in FUNCTIONS or follower.op_type in SCALARS
    return kind in ("linear", "add", "mean") and length == 1 and follower.op_type in ACTIVATIONS


def params_of(node: ir.Node) -> Params:
    """The scale and zero point of a QuantizeLinear or DequantizeLinear.

    Raises:
        DeployError: (kind ``quantize``) they are no constant scalars of 8 bits.
    """
    scale, zero = constant(operand(node, 1)), constant(operand(node, 2))
    if scale is None or zero is None or scale.size != 1 or str(zero.dtype) not in ("uint8", "int8"):
        message = f"node '{node.name}' has no constant scale and zero point of 8 bits"
        raise DeployError(message, kind="quantize", got=node.name, allowed="one constant scale and zero point a tensor")
    dtype: Dtype = "uint8" if zero.dtype == np.uint8 else "int8"
    return Params(float(scale.reshape(())), int(zero.reshape(())), dtype)


# -- execution ------------------------------------------------------------------------------------------------------


def _execute(step: Step, values: dict[str, Array], power_of_two: bool) -> None:
    node = step.nodes[0]
    if step.kind == "float":
        _run_float(node, values)
        return
    if step.kind == "quantize":
        assert step.output is not None
        how = step.output.params
        values[step.output.name] = arith.quantize(values[step.result], how.scale, how.zero, how.dtype)
        return
    given = [values[tensor.name] for tensor in step.inputs]
    if step.kind == "dequantize":
        how = step.inputs[0].params
        values[step.result] = arith.dequantize(given[0], how.scale, how.zero)
        return
    if step.output is None:
        values[step.result] = _as_float(step, given)
        return
    if step.kind == "move" and len(node.outputs) > 1:
        _split(step, given[0], values)
        return
    how = step.output.params
    q = _integers(step, given, how, power_of_two)
    for bound in step.nodes if step.kind == "move" else step.nodes[1:]:
        if bound.op_type in ACTIVATIONS:
            low, high = bounds(bound)
            ends = [int(arith.quantize(np.array(e, np.float32), how.scale, how.zero, how.dtype)) for e in (low, high)]
            q = arith.bound(q, *ends)
    values[step.output.name] = q


def _integers(step: Step, given: Sequence[Array], y: Params, power_of_two: bool) -> Array:
    """The step's bytes, its activation aside."""
    x = step.inputs[0].params
    if step.kind == "linear":
        acc = _accumulate(step, given[0])
        assert step.weight_scale is not None
        column = (-1, 1, 1) if acc.ndim == 4 else (-1,)
        if power_of_two:
            exponents = np.round(np.log2(step.weight_scale)).astype(int)
            return arith.requantize_shift(acc, (y.exponent - x.exponent - exponents).reshape(column))
        factor = arith.multiplier(x.scale, step.weight_scale, y.scale).reshape(column)
        return arith.requantize_scale(acc, factor, y.zero, y.dtype)
    if step.kind == "add":
        return _add(step, given, y, power_of_two)
    if step.kind == "mean":
        acc, counts = _window(step, given[0])
        if power_of_two:
            return arith.mean_shift(acc, counts, x.exponent, y.exponent)
        return arith.mean_scale(acc, counts, x.scale, y.scale, y.zero, y.dtype)
    if step.kind == "concat":
        parts = [_same(q, t.params, y, power_of_two) for q, t in zip(given, step.inputs, strict=True)]
        return arith.concat(parts, integer(step.nodes[0], "axis", 1))
    if step.kind == "table":
        return arith.look_up(given[0], table(step))
    return _same(_moved(step.nodes[0], given[0])[0], x, y, power_of_two)


def _add(step: Step, given: Sequence[Array], y: Params, power_of_two: bool) -> Array:
    a, b = (tensor.params for tensor in (step.inputs * 2)[:2])
    left, right = (given[0], given[-1])
    ratio = math.log2(a.scale / b.scale)
    if ratio != int(ratio):
        return arith.add_scale(left, right, a.zero, b.zero, a.scale, b.scale, y.scale, y.zero, y.dtype)
    bits = int(ratio)
    acc = arith.add(left, right, zero_a=a.zero, zero_b=b.zero, shift_a=max(bits, 0), shift_b=max(-bits, 0))
    finer = min(a.scale, b.scale)
    if power_of_two:
        return arith.requantize_shift(acc, y.exponent - Params(finer, 0, a.dtype).exponent)
    return arith.requantize_scale(acc, float(np.float32(finer) / np.float32(y.scale)), y.zero, y.dtype)


def _same(q: Array, x: Params, y: Params, power_of_two: bool) -> Array:
    """`q` in the scale of `y`: itself where that is its own."""
    if x == y:
        return q
    if power_of_two:
        return arith.rescale_shift(q, x.exponent, y.exponent)
    return arith.rescale(q, x.zero, float(np.float32(x.scale) / np.float32(y.scale)), y.zero, y.dtype)


def _accumulate(step: Step, q: Array) -> Array:
    node, zero = step.nodes[0], step.inputs[0].params.zero
    assert step.weight is not None
    if node.op_type == "Gemm":
        return arith.multiply(q, step.weight, step.bias, zero=zero)
    return arith.convolve(
        q,
        step.weight,
        step.bias,
        zero=zero,
        strides=ints(node, "strides", [1, 1]),
        pads=ints(node, "pads", [0] * 4),
        dilations=ints(node, "dilations", [1, 1]),
        group=integer(node, "group", 1),
    )


def window_counts(node: ir.Node, size: Sequence[int]) -> Array:
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


def _window(step: Step, q: Array) -> tuple[Array, Array]:
    """The sums of an average pooling's windows, and what each is divided by."""
    node, zero = step.nodes[0], step.inputs[0].params.zero
    counts = window_counts(node, q.shape[2:])
    if node.op_type == "GlobalAveragePool":
        return arith.window_sum(q, q.shape[2:], zero=zero), counts
    pads = ints(node, "pads", [0] * 4)
    strides = ints(node, "strides", [1, 1])
    return arith.window_sum(q, ints(node, "kernel_shape"), zero=zero, strides=strides, pads=pads), counts


def _as_float(step: Step, given: Sequence[Array]) -> Array:
    """The result of a step that leaves as float: accumulators, multiplied by their scale; bytes, dequantised."""
    x = step.inputs[0].params
    if step.kind == "linear":
        acc = _accumulate(step, given[0])
        assert step.weight_scale is not None
        column = step.weight_scale.reshape((-1, 1, 1) if acc.ndim == 4 else (-1,))
        result = acc.astype(np.float32) * (np.float32(x.scale) * column)
    elif step.kind == "mean":
        acc, counts = _window(step, given[0])
        result = acc.astype(np.float32) * (np.float32(x.scale) / counts.astype(np.float32))
    else:
        reals = [arith.dequantize(q, t.params.scale, t.params.zero) for q, t in zip(given, step.inputs, strict=True)]
        if step.kind == "add":
            result = reals[0] + reals[-1]
        elif step.kind == "concat":
            result = np.concatenate(reals, axis=integer(step.nodes[0], "axis", 1))
        else:
            raise DeployError(
                f"node '{step.name}' reads integers only to leave as float", kind="quantize", got=step.nodes[0].op_type
            )
    for node in step.nodes[1:]:
        result = np.clip(result, *bounds(node))
    return np.asarray(result, np.float32)


def bounds(node: ir.Node) -> tuple[float, float]:
    """The ends of a Relu or Clip; infinite for any other node."""
    if node.op_type == "Relu":
        return 0.0, math.inf
    if node.op_type != "Clip":
        return -math.inf, math.inf
    low, high = constant(operand(node, 1)), constant(operand(node, 2))
    return -math.inf if low is None else float(low), math.inf if high is None else float(high)


def _moved(node: ir.Node, q: Array) -> list[Array]:
    """A node that moves or compares bytes. Reshapes and slices run in onnxruntime, on the bytes as exact floats."""
    if node.op_type in ACTIVATIONS:
        return [q]
    if node.op_type == "MaxPool":
        kernel, strides = ints(node, "kernel_shape"), ints(node, "strides", [1, 1])
        dilations, pads = ints(node, "dilations", [1, 1]), ints(node, "pads", [0] * 4)
        sizes = shape(node.outputs[0])
        if integer(node, "ceil_mode", 0) and sizes is not None:  # the last windows reach over the padding
            for axis in (0, 1):
                reach = (kernel[axis] - 1) * dilations[axis] + 1
                over = (sizes[2 + axis] - 1) * strides[axis] + reach - q.shape[2 + axis] - pads[axis]
                pads[2 + axis] = max(pads[2 + axis], over)
        return [arith.max_pool(q, kernel, strides=strides, pads=pads, dilations=dilations)]
    return [array.astype(q.dtype) for array in _run_alone(node, [q.astype(np.float32)])]


def _split(step: Step, q: Array, values: dict[str, Array]) -> None:
    for output, part in zip(step.nodes[0].outputs, _moved(step.nodes[0], q), strict=True):
        user = only_reader(output)
        if user is not None and user.op_type == "QuantizeLinear":
            values[user.outputs[0].name or ""] = part


def table(step: Step) -> Array:
    """The 256 bytes of a ``table`` step, for the lowest input byte first."""
    assert step.output is not None
    x, y = step.inputs[0].params, step.output.params
    low, high = x.limits
    reals = arith.dequantize(np.arange(low, high + 1), x.scale, x.zero)
    for node in step.nodes:
        (reals,) = _run_alone(node, [reals])
    return arith.quantize(reals.astype(np.float32), y.scale, y.zero, y.dtype)


def _run_alone(node: ir.Node, arrays: Sequence[Array]) -> list[Array]:
    """One node in onnxruntime: `arrays` for what it computes from, its constants from the graph."""
    proto = ir.to_proto(node)
    remaining = list(arrays)
    inputs, weights, feeds = [], [], {}
    for value in dict.fromkeys(value for value in node.inputs if value is not None):
        name = value.name or ""
        array = constant(value)
        if array is not None:
            weights.append(onnx.numpy_helper.from_array(array, name))
        else:
            feeds[name] = remaining.pop(0)
            element = onnx.helper.np_dtype_to_tensor_dtype(feeds[name].dtype)
            inputs.append(onnx.helper.make_tensor_value_info(name, element, feeds[name].shape))
    outputs = [onnx.helper.make_empty_tensor_value_info(value.name or "") for value in node.outputs]
    graph = onnx.helper.make_graph([proto], "one", inputs, outputs, weights)
    opset = node.graph.opset_imports[""] if isinstance(node.graph, ir.Graph) else 20
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)], ir_version=10)
    return run_onnx(model, feeds, threads=1)


def _run_float(node: ir.Node, values: dict[str, Array]) -> None:
    given = dict.fromkeys(value for value in node.inputs if value is not None and constant(value) is None)
    results = _run_alone(node, [values[value.name or ""] for value in given])
    for value, array in zip(node.outputs, results, strict=True):
        values[value.name or ""] = array
