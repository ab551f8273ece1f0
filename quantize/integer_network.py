"""A QDQ model as the integer network it stands for, and the exact execution of it: the reference of every target.

`integer_steps` finds the integer steps between QuantizeLinear and DequantizeLinear. `IntegerNetwork.run` computes them
with `arith` and nothing else, so its bytes are the meaning of the model. Where onnxruntime runs the graph in float,
a byte may differ by one, next to a tie. What is no integer step is a float node: `IntegerNetwork.float_nodes`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from inception_deploy.graph.rewrite import (
    Array,
    constant,
    dequantized,
    integer,
    ints,
    number,
    numbers_of,
    only_reader,
    operand,
    shape,
    text,
)
from inception_deploy.verify import run_onnx

from . import arith
from .assign import LARGEST_ALIGNMENT
from .insert import SCHEME_KEY
from .integer_steps import IntegerStep, Tensor, has_params, params_of, steps_of
from .scheme import SCHEMES, Params
from .structure import ACTIVATIONS, window_counts


@dataclass(frozen=True)
class IntegerNetwork:
    """The steps of a QDQ model, in order.

    Attributes:
        power_of_two: requantize by shifts instead of multiplications.
        inputs, outputs: the names of the model's float inputs and outputs.
        sources: what each quantized tensor is the quantization of: its name in the float model.
        constants: outputs of the model that it does not compute.
    """

    steps: tuple[IntegerStep, ...]
    power_of_two: bool
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    sources: Mapping[str, str]
    constants: Mapping[str, Array]

    @property
    def float_nodes(self) -> list[str]:
        """The names of the nodes that compute in float."""
        return list(self.float_reasons)

    @property
    def float_reasons(self) -> dict[str, str]:
        """Why each node that computes in float does so; a conversion between both is none."""
        conversions = ("QuantizeLinear", "DequantizeLinear")
        floats = [step for step in self.steps if step.kind == "float" and step.nodes[0].op_type not in conversions]
        return {step.name: step.reason for step in floats}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Every tensor by name: 8- or 16-bit for the quantized ones, float32 for float inputs, outputs and results."""
        values: dict[str, Array] = {**self.constants, **feeds}
        for step in self.steps:
            self.execute(step, values)
        return values

    def execute(self, step: IntegerStep, values: dict[str, Array]) -> None:
        """Compute one step from the tensors in `values`, and put its result there."""
        _execute(step, values, self.power_of_two)

    def float_name(self, tensor: Tensor) -> str:
        """The name that a quantized tensor has in the float model."""
        return self.sources[tensor.name]


def read(model: onnx.ModelProto) -> IntegerNetwork:
    """The integer network of a QDQ model with inferred shapes, ours or anyone's."""
    graph_model = ir.from_proto(model)
    graph = graph_model.graph
    scheme = graph_model.metadata_props.get(SCHEME_KEY, "float-scale")
    power = scheme in SCHEMES and SCHEMES[scheme].power_of_two
    steps = steps_of(graph, ours=is_ours(model), power_of_two=power)
    names = tuple(value.name or "" for value in graph.inputs), tuple(value.name or "" for value in graph.outputs)
    sources = {
        node.outputs[0].name or "": (node.inputs[0].name or "") if node.inputs[0] is not None else ""
        for node in graph
        if node.op_type == "QuantizeLinear"
    }
    numbers = {value.name or "": constant(value) for value in graph.outputs}
    constants = {name: array for name, array in numbers.items() if array is not None}
    return IntegerNetwork(tuple(steps), power, *names, sources, constants)


def is_ours(model: onnx.ModelProto) -> bool:
    """Whether `insert.insert` wrote this model, so that `read` gives all of its meaning."""
    return any(entry.key == SCHEME_KEY and entry.value in SCHEMES for entry in model.metadata_props)


def is_quantized(model: onnx.ModelProto) -> bool:
    """Whether there is anything quantized in it."""
    return any(node.op_type in ("QuantizeLinear", "DequantizeLinear") for node in model.graph.node)


def reference(model: onnx.ModelProto, feeds: Mapping[str, Array], *, threads: int = 0) -> list[Array]:
    """The outputs of a QDQ model, in the graph's order: its integers exactly, its float nodes by onnxruntime.

    A graph with bodies (If, Loop) runs in onnxruntime as a whole.
    """
    if any(attribute.HasField("g") for node in model.graph.node for attribute in node.attribute):
        return run_onnx(model, dict(feeds), threads=threads)
    network = read(model)
    values = network.run(feeds)
    return [values[name] for name in network.outputs]


def tensors(model: onnx.ModelProto) -> dict[str, Params]:
    """The parameters of every quantized activation, by the name that it has in the float model."""
    graph = ir.from_proto(model).graph
    return {
        (node.inputs[0].name if node.inputs[0] is not None else None) or "": params_of(node)
        for node in graph
        if node.op_type == "QuantizeLinear" and has_params(node)
    }


def input_limits(model: onnx.ModelProto) -> tuple[float, float]:
    """The ends of the reals that the model's input is quantized to; infinite where it stays float."""
    same = {model.graph.input[0].name}  # and what only moves its values, as a network for NHWC does first
    for node in model.graph.node:
        if node.op_type in ("Transpose", "Reshape", "Identity") and node.input[0] in same:
            same.add(node.output[0])
    for step in read(model).steps:
        if step.kind == "quantize" and step.output is not None and step.result in same:
            how = step.output.params
            low, high = how.limits
            return (low - how.zero) * how.scale, (high - how.zero) * how.scale
    return -math.inf, math.inf


def float_nodes(model: onnx.ModelProto) -> list[str]:
    """The names of the nodes of a QDQ model that compute in float, in order."""
    return read(model).float_nodes


# -- execution ------------------------------------------------------------------------------------------------------


def _execute(step: IntegerStep, values: dict[str, Array], power_of_two: bool) -> None:
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
        _split(step, given[0], values, power_of_two)
        return
    how = step.output.params
    q = _integers(step, given, how, power_of_two)
    for bound in bounding(step):
        if bound.op_type in ACTIVATIONS:
            low, high = bounds(bound)
            ends = [int(arith.quantize(np.array(e, np.float32), how.scale, how.zero, how.dtype)) for e in (low, high)]
            q = arith.bound(q, *ends)
    values[step.output.name] = q


def _integers(step: IntegerStep, given: Sequence[Array], y: Params, power_of_two: bool) -> Array:
    """The step's bytes, its activation aside."""
    x = step.inputs[0].params
    if step.kind == "linear":
        acc = _accumulate(step, given[0])
        assert step.linear is not None
        column = (-1, 1, 1) if acc.ndim == 4 else (-1,)
        if power_of_two:
            if step.shortcut is not None:
                acc = arith.add_shortcut(acc, given[1], step.shortcut_shifts.reshape(column))
            return arith.requantize_shift(acc, step.shifts.reshape(column))
        factor = arith.multiplier(x.scale, step.linear.scale, y.scale).reshape(column)
        if step.shortcut is not None:
            q, own = given[1], step.shortcut.params
            own_factor = float(np.float32(own.scale) / np.float32(y.scale))
            return arith.requantize_sum(acc, factor, q, own.zero, own_factor, y.zero, y.dtype)
        return arith.requantize_scale(acc, factor, y.zero, y.dtype)
    if step.kind == "pooled":
        acc, bits = _weighed(step, given[0])
        return arith.requantize_shift(acc, step.shifts.reshape(-1, 1, 1) + bits)
    if step.kind == "add":
        return _add(step, given, y, power_of_two)
    if step.kind == "mul":
        return _mul(step, given, y, power_of_two)
    if step.kind == "affine":
        scale, shift = (numbers.reshape(-1, 1, 1) for numbers in step.factor_and_shift)
        return arith.scale_channels(given[0], x.zero, scale, shift, y.zero, y.dtype)
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
    return _same(_moved(step.nodes[0], given[0], x)[0], x, y, power_of_two)


def _add(step: IntegerStep, given: Sequence[Array], y: Params, power_of_two: bool) -> Array:
    a, b = (tensor.params for tensor in (step.inputs * 2)[:2])
    left, right = (given[0], given[-1])
    shifts = alignment(a, b)
    if shifts is None:
        return arith.add_scale(left, right, a.zero, b.zero, a.scale, b.scale, y.scale, y.zero, y.dtype)
    acc = arith.add(left, right, zero_a=a.zero, zero_b=b.zero, shift_a=shifts[0], shift_b=shifts[1])
    finer = min(a.scale, b.scale)
    if power_of_two:
        return arith.requantize_shift(acc, y.exponent - Params(finer, 0, a.dtype).exponent)
    return arith.requantize_scale(acc, float(np.float32(finer) / np.float32(y.scale)), y.zero, y.dtype)


def _mul(step: IntegerStep, given: Sequence[Array], y: Params, power_of_two: bool) -> Array:
    a, b = (tensor.params for tensor in (step.inputs * 2)[:2])
    acc = arith.product(given[0], given[-1], zero_a=a.zero, zero_b=b.zero)
    if power_of_two:
        return arith.requantize_shift(acc, arith.product_shift(a.exponent, b.exponent, y.exponent))
    return arith.requantize_scale(acc, arith.multiplier(a.scale, b.scale, y.scale), y.zero, y.dtype)


def alignment(a: Params, b: Params) -> tuple[int, int] | None:
    """How far each side of an Add is shifted to the left for both to have one scale; None where that cannot be, or 32
    bits would not hold it.
    """
    if a.wide or b.wide:
        return None
    bits = math.log2(a.scale / b.scale)
    if bits != int(bits) or abs(bits) > LARGEST_ALIGNMENT:
        return None
    return max(int(bits), 0), max(-int(bits), 0)


def _same(q: Array, x: Params, y: Params, power_of_two: bool) -> Array:
    """`q` in the scale of `y`: itself where that is its own."""
    if x == y:
        return q
    if power_of_two:
        return arith.rescale_shift(q, x.exponent, y.exponent)
    return arith.rescale(q, x.zero, float(np.float32(x.scale) / np.float32(y.scale)), y.zero, y.dtype)


def _accumulate(step: IntegerStep, q: Array) -> Array:
    node, zero = step.nodes[0], step.inputs[0].params.zero
    assert step.linear is not None
    if node.op_type != "Conv":
        return arith.multiply(q, step.linear.weight, step.linear.bias, zero=zero)
    return arith.convolve(
        q,
        step.linear.weight,
        step.linear.bias,
        zero=zero,
        strides=ints(node, "strides", [1, 1]),
        pads=ints(node, "pads", [0] * 4),
        dilations=ints(node, "dilations", [1, 1]),
        group=integer(node, "group", 1),
    )


def _weighed(step: IntegerStep, q: Array) -> tuple[Array, Array]:
    """The accumulators of a pooled step, and how many bits lower than its exponent those of each place are."""
    assert step.linear is not None
    pool, (times, bits) = step.nodes[0], step.factors
    products = arith.convolve(q, step.linear.weight, None)
    acc = arith.window_sum(products, ints(pool, "kernel_shape"), pads=ints(pool, "pads", [0] * 4))
    return arith.weigh(acc, step.linear.bias, times, bits), bits


def _window(step: IntegerStep, q: Array) -> tuple[Array, Array]:
    """The sums of an average pooling's windows, and what each is divided by."""
    node, zero = step.nodes[0], step.inputs[0].params.zero
    counts = window_counts(node, q.shape[2:])
    if node.op_type == "GlobalAveragePool":
        return arith.window_sum(q, q.shape[2:], zero=zero), counts
    pads = ints(node, "pads", [0] * 4)
    strides = ints(node, "strides", [1, 1])
    return arith.window_sum(q, ints(node, "kernel_shape"), zero=zero, strides=strides, pads=pads), counts


def _as_float(step: IntegerStep, given: Sequence[Array]) -> Array:
    """The result of a step that leaves as float: accumulators, multiplied by their scale; bytes, dequantized."""
    x = step.inputs[0].params
    if step.kind == "linear":
        acc = _accumulate(step, given[0])
        assert step.linear is not None
        column = step.linear.scale.reshape((-1, 1, 1) if acc.ndim == 4 else (-1,))
        result = acc.astype(np.float32) * (np.float32(x.scale) * column)
    elif step.kind == "pooled":
        acc, bits = _weighed(step, given[0])
        result = np.ldexp(acc, step.exponents.reshape(-1, 1, 1) - bits).astype(np.float32)
    elif step.kind == "mean":
        acc, counts = _window(step, given[0])
        result = acc.astype(np.float32) * (np.float32(x.scale) / counts.astype(np.float32))
    else:
        reals = [arith.dequantize(q, t.params.scale, t.params.zero) for q, t in zip(given, step.inputs, strict=True)]
        assert step.kind in ("add", "mul")
        result = reals[0] + reals[-1] if step.kind == "add" else reals[0] * reals[-1]
    for node in step.nodes[1:]:
        result = np.clip(result, *bounds(node))
    return np.asarray(result, np.float32)


def bounding(step: IntegerStep) -> tuple[ir.Node, ...]:
    """The nodes of a step that may bound its bytes: a Relu or Clip that a table does not hold already."""
    return () if step.kind == "table" else step.nodes if step.kind == "move" else step.nodes[1:]


def bounds(node: ir.Node) -> tuple[float, float]:
    """The ends of a Relu or Clip; infinite for any other node."""
    if node.op_type == "Relu":
        return 0.0, math.inf
    if node.op_type != "Clip":
        return -math.inf, math.inf
    low, high = constant(operand(node, 1)), constant(operand(node, 2))
    return -math.inf if low is None else float(low.item()), math.inf if high is None else float(high.item())


def _moved(node: ir.Node, q: Array, how: Params) -> list[Array]:
    """A node that moves or compares bytes. Reshapes and slices run in onnxruntime, on the bytes as exact floats."""
    if node.op_type in (*ACTIVATIONS, "QuantizeLinear"):
        return [q]
    if node.op_type == "GlobalMaxPool":
        return [arith.max_pool(q, q.shape[2:])]
    if node.op_type == "Pad":
        return [arith.pad(q, paddings(node, q.ndim), text(node, "mode", "constant"), padded_with(node, how))]
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
    return [array.astype(q.dtype) for array in run_alone(node, [q.astype(np.float32)])]


def paddings(node: ir.Node, axes: int) -> list[tuple[int, int]]:
    """What a Pad puts before and behind each axis."""
    ends, which = constant(operand(node, 1)), constant(operand(node, 3))
    numbers = ints(node, "pads", []) if ends is None else [int(end) for end in ends.reshape(-1)]
    half = len(numbers) // 2
    padded = range(half) if which is None else [int(axis) % axes for axis in which.reshape(-1)]
    found = dict(zip(padded, zip(numbers[:half], numbers[half:], strict=True), strict=True))
    return [found.get(axis, (0, 0)) for axis in range(axes)]


def padded_with(node: ir.Node, how: Params) -> int:
    """The byte that a Pad by a constant puts there."""
    value = constant(operand(node, 2))
    real = number(node, "value", 0.0) if value is None or not value.size else float(value.reshape(-1)[0])
    return int(arith.quantize(np.array(real, np.float32), how.scale, how.zero, how.dtype))


def _split(step: IntegerStep, q: Array, values: dict[str, Array], power_of_two: bool) -> None:
    """Each part in bytes, or, where float reads it, as float."""
    how = step.inputs[0].params
    for output, part in zip(step.nodes[0].outputs, _moved(step.nodes[0], q, how), strict=True):
        user = only_reader(output)
        if user is not None and user.op_type == "QuantizeLinear":
            y = params_of(user)
            values[user.outputs[0].name or ""] = _same(part, how, y, power_of_two)
        else:
            values[output.name or ""] = arith.dequantize(part, how.scale, how.zero)


def table(step: IntegerStep) -> Array:
    """The numbers of a ``table`` step, for the lowest input first: 256 of them, or 65536 for an input of 16 bits."""
    assert step.output is not None
    x, y = step.inputs[0].params, step.output.params
    low, high = x.limits
    x_reals = reals = arith.dequantize(np.arange(low, high + 1), x.scale, x.zero)
    made: ir.Value | None = None
    for node in step.nodes:
        computed = dict.fromkeys(value for value in node.inputs if value is not None and _known(value) is None)
        (reals,) = run_alone(node, [reals if value is made else x_reals for value in computed])
        made = node.outputs[0]
    return arith.quantize(reals.astype(np.float32).reshape(-1), y.scale, y.zero, y.dtype)


def run_alone(node: ir.Node, arrays: Sequence[Array]) -> list[Array]:
    """One node in onnxruntime: `arrays` for what it computes from, its constants from the graph."""
    proto = ir.to_proto(node)
    remaining = list(arrays)
    inputs, weights, feeds = [], [], {}
    for value in dict.fromkeys(value for value in node.inputs if value is not None):
        name = value.name or ""
        array = _known(value)
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


def _known(value: ir.Value) -> Array | None:
    """The numbers of a constant, or of the dequantization of one."""
    kept = dequantized(value)
    return constant(value) if kept is None else numbers_of(kept)


def _run_float(node: ir.Node, values: dict[str, Array]) -> None:
    given = dict.fromkeys(value for value in node.inputs if value is not None and _known(value) is None)
    results = run_alone(node, [values[value.name or ""] for value in given])
    for value, array in zip(node.outputs, results, strict=True):
        values[value.name or ""] = array
