"""The integer steps of a quantized model as layers: what `quantize.network` reads, computed as `quantize.arith` says.

A quantized tensor is a `Value` of uint8 under the name of its QuantizeLinear's result. A scheme's int8 lies 128 higher
(`kernels.elements.BYTE`). What has no integer kernel is computed in float32 between a dequantization and a
quantization, like the layers that the model itself keeps in float.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx_ir as ir

from ..graph.rewrite import constant, integer, ints
from ..kernels.elements import BLOCK, BYTE, Addition, Rounding
from ..kernels.spec import Conv, Map, Pixels, Window, WindowOp, tap_sets
from ..quantize import arith
from ..quantize import integer_network as quantized
from ..quantize.integer_steps import IntegerStep, Tensor, has_params, params_of
from ..quantize.scheme import Params
from .layers import Layer, Param, Storage, Value
from .numbers import Numbers
from .operators import common, layout, linear, pool

if TYPE_CHECKING:
    from .reader import Reader

_SIGNED = 128
"""How much higher a signed byte lies."""

_WORD = 4
"""Channels of the network's input that one multiply-add takes at once."""

_VIEWS = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")


@dataclass(frozen=True)
class _Raw:
    """A quantized tensor as it lies in memory: `zero` is of the uint8, `offset` what it is more than the model's."""

    params: Params
    offset: int

    @property
    def zero(self) -> int:
        return self.params.zero + self.offset

    @property
    def scale(self) -> np.float32:
        scale: np.float32 = np.float32(self.params.scale)
        return scale


def _raw(params: Params) -> _Raw:
    return _Raw(params, _SIGNED if params.dtype == "int8" else 0)


class Integers:
    """The integer steps of a model, for the reader's walk over its nodes.

    Args:
        reader: what the layers go to.
        model: with the shapes of all values, written by `quantize.insert`.
        offset: how much lower than they lie convolutions take bytes.
    """

    def __init__(self, reader: Reader, model: onnx.ModelProto, offset: int) -> None:
        self.reader, self.offset = reader, offset
        network = quantized.read(model)
        self.power_of_two = network.power_of_two
        graph = ir.from_proto(model).graph
        self.starts: dict[str, IntegerStep] = {}
        self.taken: set[str] = set()
        for step in network.steps:
            if self._has_kernel(step):
                names = [value.name or "" for node in step.nodes for value in node.outputs]
                # A shortcut may be made between the convolution and its Add.
                self.starts[names[0] if step.shortcut is None else names[1]] = step
                self.taken.update(names)
                if step.output is not None:
                    self.taken.add(step.output.name)
        # What crosses between float and integers, and the constants that only integer steps read.
        self.readers = Counter(tensor.name for step in self.starts.values() for tensor in step.inputs)
        outputs = {value.name for value in graph.outputs}
        self.wanted: set[str] = set()
        self.params: dict[str, _Raw] = {}
        self.ways_out: dict[str, Params] = {}  # of a wanted DequantizeLinear, which may have numbers of its own
        for node in graph:
            name = node.outputs[0].name or ""
            if node.op_type == "QuantizeLinear" and has_params(node):
                self.params[name] = _raw(params_of(node))
            if node.op_type != "DequantizeLinear":
                continue
            users = {user.outputs[0].name or "" for user, _ in node.outputs[0].uses()}
            if name in outputs or users - self.taken:
                self.wanted.add(name)
            source = node.inputs[0]
            if source is not None and constant(source) is None and name in self.wanted:
                self.readers[source.name or ""] += 1
                if has_params(node):
                    self.ways_out[name] = params_of(node)
        self._inputs: dict[str, Value] = {}

    # -- the walk ----------------------------------------------------------------------------------------------------
    def take(self, node: onnx.NodeProto) -> bool:
        """Whether `node` is a part of an integer step, or an edge between integers and float; then it is done."""
        name = node.output[0]
        if name in self.starts:
            self._step(self.starts[name])
        elif name in self.taken:
            pass
        elif node.op_type == "QuantizeLinear" and name in self.params and node.input[0] not in self.reader.constants:
            self._quantize(node)
        elif node.op_type == "DequantizeLinear" and name not in self.wanted:
            pass
        elif name in self.ways_out:
            self._dequantize(node)
        else:
            return False
        return True

    def _has_kernel(self, step: IntegerStep) -> bool:
        node = step.nodes[0]
        axes = len(self.reader.shape(node.outputs[0].name or ""))
        if step.kind == "linear":
            return axes == (4 if node.op_type == "Conv" else 2) and (step.shortcut is None or step.output is not None)
        if step.kind == "mean":
            return axes == 4
        if step.output is None:
            return False
        if step.kind == "concat":
            return axes in (2, 4) and integer(node, "axis", 1) % axes == 1
        if step.kind == "move":
            return node.op_type in ("MaxPool", "Relu", "Clip") or (node.op_type in _VIEWS and self._keeps_order(step))
        return step.kind in ("add", "table") and axes in (2, 4)

    def _keeps_order(self, step: IntegerStep) -> bool:
        """A view that changes nothing, or flattens each image: blocks of channels stay what they are."""
        given, made = self.reader.shape(_read(step)), self._shape(step)
        return made in (given, (given[0], math.prod(given[1:])))

    def _step(self, step: IntegerStep) -> None:
        handler = {
            "linear": self._linear, "add": self._add, "mean": self._mean, "concat": self._concat, "move": self._move,
            "table": self._table,
        }[step.kind]  # fmt: skip
        handler(step)

    # -- values ------------------------------------------------------------------------------------------------------
    def _shape(self, step: IntegerStep) -> tuple[int, ...]:
        return self.reader.shape(step.nodes[-1].outputs[0].name or "")

    def _map(self, step: IntegerStep) -> tuple[int, int]:
        """Height and width of what the step's first node makes."""
        height, width = self.reader.shape(step.nodes[0].outputs[0].name or "")[2:]
        return height, width

    def _blocked(self, tensor: Tensor) -> Value:
        """A tensor in NCHW16c; the network's own input becomes so when somebody needs it."""
        if tensor.name not in self.reader.values:
            self._map_input(tensor.name)
        return self.reader.values[tensor.name]

    def _result(self, step: IntegerStep, like: Storage, blocks: int, slots: np.ndarray, pixels: int) -> Storage:
        """Memory for a step's result: bytes, or float32 where it leaves as float."""
        name = step.output.name if step.output is not None else step.result
        return Storage(name, like.batch, pixels, blocks, slots, dtype="uint8" if step.output else "float32")

    def _made(self, step: IntegerStep, storage: Storage, height: int, width: int) -> None:
        self.reader.values[storage.name] = Value(storage.name, self._shape(step), storage, height, width)

    def _rounding(self, step: IntegerStep) -> Rounding | None:
        """To the bytes of a step's result, bounded by the Relu or Clip behind it; None where it leaves as float."""
        if step.output is None:
            return None
        params = step.output.params
        how, low, high = _raw(params), 0, 255
        for node in () if step.kind == "table" else step.nodes:
            if node.op_type in ("Relu", "Clip"):
                first, last = (
                    int(arith.quantize(np.array(end, np.float32), params.scale, params.zero, params.dtype))
                    for end in quantized.bounds(node)
                )
                low, high = (min(max(end, first + how.offset), last + how.offset) for end in (low, high))
        return Rounding(how.zero, low, high, self.power_of_two)

    def _through_float(self, value: Value, params: Params, change: Callable[[Value], Value]) -> Value:
        """A change of layout that there are float kernels for only: every byte comes back as it was."""
        how, source = _raw(params), value.storage
        name = f"{value.name}:float"
        real = replace(source, name=name, parent=None, parent_block=0, dtype="float32")
        spec = _dequantize(source, how)
        self.reader.emit("dequantize", [], spec, [(source, "in_stride")], real, name)
        moved = change(Value(name, value.shape, real, value.height, value.width))
        return self._to_bytes(f"{value.name}:moved", how, moved)

    def _to_bytes(self, name: str, how: _Raw, value: Value) -> Value:
        """A float value in NCHW16c, quantized."""
        source = value.storage
        size = (source.batch, source.blocks, source.pixels)
        spec = Map("quantize", *size, constants=(float(how.scale),), out_element=BYTE, rounding=_all_of(how))
        storage = replace(source, name=name, parent=None, parent_block=0, port=None, dtype="uint8")
        self.reader.emit("quantize", [], spec, [(source, "in_stride")], storage, name)
        return Value(name, value.shape, storage, value.height, value.width)

    # -- edges -------------------------------------------------------------------------------------------------------
    def _quantize(self, node: onnx.NodeProto) -> None:
        """QuantizeLinear of a float value: done when its form is known, which depends on who reads it."""
        self._inputs[node.output[0]] = self.reader.value(node.input[0])

    def _map_input(self, name: str) -> None:
        value = self.reader.blocked(self._inputs[name])
        self.reader.values[name] = self._to_bytes(name, self.params[name], value)

    def _word_input(self, name: str) -> Value | None:
        """The network's input as pixels of four bytes, if it is plain NCHW and has few enough channels."""
        value = self._inputs.get(name)
        if value is None or value.storage.blocked or len(value.shape) != 4 or value.shape[1] > _WORD:
            return None
        key = f"{name}:words"
        if key not in self._inputs:
            how, (batch, channels, height, width) = self.params[name], value.shape
            storage = Storage(key, batch, height * width * _WORD, dtype="uint8")
            spec = Pixels(
                batch, channels, _WORD, height, width, scale=float(how.scale), rounding=_all_of(how), out_element=BYTE
            )
            self.reader.emit("quantize", [], spec, [(value.storage, "")], storage, name)
            self._inputs[key] = Value(key, value.shape, storage, height, width)
        return self._inputs[key]

    def _dequantize(self, node: onnx.NodeProto) -> None:
        params = self.ways_out[node.output[0]]
        how, value = _raw(params), self._blocked(Tensor(node.input[0], params))
        source = value.storage
        spec = _dequantize(source, how)
        storage = replace(source, name=node.output[0], parent=None, parent_block=0, dtype="float32")
        self.reader.emit("dequantize", [node.name], spec, [(source, "in_stride")], storage, node.output[0])
        self.reader.values[node.output[0]] = Value(node.output[0], value.shape, storage, value.height, value.width)

    # -- convolutions and fully connected layers -----------------------------------------------------------------------
    def _linear(self, step: IntegerStep) -> None:
        assert step.linear is not None
        weight, scale, bias = step.linear.weight, step.linear.scale, step.linear.bias
        out = len(weight)
        bias = np.zeros(out, np.int32) if bias is None else bias.astype(np.int32)
        x = _raw(step.inputs[0].params)
        if step.output is None:
            factor: np.ndarray = x.scale * scale
        elif self.power_of_two:
            factor = step.shifts
            bias = bias + np.where(factor > 0, 1 << np.maximum(factor - 1, 0), 0).astype(np.int32)
        else:
            factor = arith.multiplier(x.params.scale, scale, step.output.params.scale)
        numbers = self._numbers(step, bias, factor)
        if step.nodes[0].op_type != "Conv":
            linear.emit_dense(self.reader, self._blocked(step.inputs[0]).storage, weight, numbers)
            return
        node = ir.to_proto(step.nodes[0])
        words = self._word_input(step.inputs[0].name) if integer(step.nodes[0], "group", 1) == 1 else None
        value = self._blocked(step.inputs[0]) if words is None else words
        linear.emit_conv(self.reader, node, value, weight, numbers, 0 if words is None else _WORD)
        if step.shortcut is not None and step.output is not None:
            how, rounding = _raw(step.shortcut.params), self._rounding(step)
            assert rounding is not None
            inside = step.output.params.exponent - how.params.exponent
            addition = Addition((0, how.zero), (0, 0), 0.0, rounding, inside=inside)
            made = self.reader.values[step.output.name]
            done = self._joined(self.reader.producer[made.storage], self._blocked(step.shortcut).storage, addition)
            assert done, "a convolution without groups has room for whatever its sum joins"

    def _numbers(
        self,
        step: IntegerStep,
        bias: np.ndarray | None = None,
        factor: np.ndarray | None = None,
        zero: int | None = None,
    ) -> Numbers:
        """Bytes in, and bytes out, or float32 where the step leaves as float.

        Args:
            bias, factor: of a linear step, one an output.
            zero: of what a window reads.
        """

        def behind(spec: Any, weight: np.ndarray) -> tuple[Any, list[Param]]:
            assert bias is not None
            assert factor is not None
            if isinstance(spec, Window):
                return replace(spec, zero=x.zero), [Param("channel", bias), Param("channel", factor)]
            spec, biases, sets = _sets(spec, x.zero - self.offset, weight, bias)
            return spec, [Param("channels", biases), Param("channel", factor), *sets]

        x = _raw(step.inputs[0].params)
        fields: dict[str, Any] = {"activation": _clamp(step), "in_element": BYTE, "out_element": _kept(step)}
        fields["rounding"] = None if step.kind == "move" else self._rounding(step)
        if zero is not None:
            fields["zero"] = zero
        name = step.output.name if step.output is not None else step.result
        return Numbers(_names(step), name, "uint8" if step.output is not None else "float32", fields, behind)

    # -- windows -----------------------------------------------------------------------------------------------------
    def _mean(self, step: IntegerStep) -> None:
        node, x = step.nodes[0], _raw(step.inputs[0].params)
        value = self._blocked(step.inputs[0])
        size = (value.height, value.width)
        counts = quantized.window_counts(node, size).reshape(-1)
        factor: np.ndarray
        if step.output is None:
            factor = x.scale / counts.astype(np.float32)
        elif self.power_of_two:
            finer = step.output.params.exponent - x.params.exponent
            rows = [arith.mean_constants(int(count)) for count in counts]
            shifts = [shift + finer for _, shift in rows]
            times = [times << max(0, -shift) for (times, _), shift in zip(rows, shifts, strict=True)]
            factor = np.array([times, np.maximum(shifts, 0)], np.int32).T
        else:
            factor = x.scale / np.float32(step.output.params.scale) / counts.astype(np.float32)
        kernel, stride, pads = size, (1, 1), [0] * 4
        if node.op_type != "GlobalAveragePool":
            rows_, columns = ints(node, "kernel_shape")
            kernel = (rows_, columns)
            stride, pads, _ = common.window(self.reader, ir.to_proto(node), kernel)
        numbers = self._numbers(step, zero=x.zero)
        made = self._map(step)
        spec = pool.windowed(WindowOp.AVERAGE, value, made, kernel, stride, pads, (1, 1), numbers)
        pool.emit_window(self.reader, value, spec, [Param("raw", factor)], numbers)

    def _move(self, step: IntegerStep) -> None:
        """A max pool, a Relu that stands alone, a view; and the change of scale behind it, where there is one."""
        assert step.output is not None
        node, value = step.nodes[0], self._blocked(step.inputs[0])
        if node.op_type == "MaxPool":
            rows, columns = ints(node, "kernel_shape")
            stride, pads, dilation = common.window(self.reader, ir.to_proto(node), (rows, columns))
            numbers = self._numbers(step, zero=0)
            spec = pool.windowed(WindowOp.MAX, value, self._map(step), (rows, columns), stride, pads, dilation, numbers)
            value = pool.emit_window(self.reader, value, spec, [], numbers)
        elif node.op_type in _VIEWS:
            shape = self._shape(step)
            size = (value.height, value.width) if len(shape) == 4 else (1, 1)
            value = Value(step.output.name, shape, value.storage, *size)
        same = step.inputs[0].params == step.output.params
        if not same or node.op_type in ("Relu", "Clip"):
            value = self._rescaled(step, value, step.inputs[0].params)
        self.reader.values[step.output.name] = value

    def _rescaled(self, step: IntegerStep, value: Value, given: Params) -> Value:
        """`value` in the scale of the step's output, bounded by what follows."""
        assert step.output is not None
        x, y, how = _raw(given), step.output.params, self._rounding(step)
        assert how is not None
        source = value.storage
        size = (source.batch, source.blocks, source.pixels)
        if given == y:
            spec = Map("clip", *size, in_element=BYTE, out_element=BYTE, rounding=how)
        else:
            scale = float(y.exponent - given.exponent) if self.power_of_two else float(x.scale / np.float32(y.scale))
            spec = Map(
                "rescale", *size, constants=(scale,), in_element=BYTE, out_element=BYTE, zero=x.zero, rounding=how
            )
        return self._mapped(step, spec, value, [])

    # -- joins and tables ----------------------------------------------------------------------------------------------
    def _concat(self, step: IntegerStep) -> None:
        assert step.output is not None
        values = []
        for tensor in step.inputs:
            value = self._blocked(tensor)
            if tensor.params != step.output.params:
                value = self._rescaled(step, value, tensor.params)
            values.append(value)
        if any(value.storage.pixels != value.height * value.width for value in values):  # a flattened map

            def unfold(value: Value) -> Value:
                return self.reader.blocked(self.reader.planar(value))

            values = [self._through_float(value, step.output.params, unfold) for value in values]
        layout.join(self.reader, step.output.name, self._shape(step), values)

    def _add(self, step: IntegerStep) -> None:
        how = self._addition(step)
        if self._fused(step, how):
            return
        left, right = (self._blocked(tensor) for tensor in (step.inputs * 2)[:2])
        slots, others = left.storage.slots, right.storage.slots
        assert slots is not None
        assert others is not None
        if not np.array_equal(slots, others):
            theirs = step.inputs[-1].params
            right = self._through_float(right, theirs, lambda value: self.reader.with_slots(value, slots))
        size = (left.storage.batch, left.storage.blocks, left.storage.pixels)
        spec = Map("add", *size, "tensor", in_element=BYTE, second_element=BYTE, out_element=BYTE, addition=how)
        self._mapped(step, spec, left, [(right.storage, "second_stride")])

    def _addition(self, step: IntegerStep) -> Addition:
        """The numbers of an Add, as `quantize.network` computes it."""
        assert step.output is not None
        a, b = (_raw(tensor.params) for tensor in (step.inputs * 2)[:2])
        y, how = step.output.params, self._rounding(step)
        assert how is not None
        zeros, shifts = (a.zero, b.zero), quantized.alignment(a.params, b.params)
        if shifts is None:
            sides = (float(a.scale / np.float32(y.scale)), float(b.scale / np.float32(y.scale)))
            return Addition(zeros, (0, 0), 1.0, replace(how, shift=False), sides)
        finer = min(a.params.scale, b.params.scale)
        if self.power_of_two:
            return Addition(zeros, shifts, float(y.exponent - Params(finer, 0, "int8").exponent), how)
        return Addition(zeros, shifts, float(np.float32(finer) / np.float32(y.scale)), how)

    def _fused(self, step: IntegerStep, how: Addition) -> bool:
        """The Add becomes the end of the convolution that makes one of its sides and has no other reader."""
        if len(step.inputs) < 2 or step.output is None:
            return False
        for mine, theirs in ((0, 1), (1, 0)):
            name = step.inputs[mine].name
            value = self.reader.values.get(name)
            layer = self.reader.producer.get(value.storage) if value is not None else None
            if layer is None or layer.value != name or self.readers[name] > 1:
                continue
            spec = layer.spec
            if not isinstance(spec, Conv) or spec.add or spec.rounding is None:
                continue
            addend, storage = self._blocked(step.inputs[theirs]).storage, layer.output
            if not self._joined(layer, addend, how if mine == 0 else _swapped(how)):
                continue
            layer.nodes.extend(_names(step))
            layer.value = storage.name = step.output.name
            assert value is not None
            self._made(step, storage, value.height, value.width)
            self.reader.last(layer)
            return True
        return False

    def _joined(self, layer: Layer, addend: Storage, how: Addition) -> bool:
        """Make a sum the end of a convolution; False where what it adds does not lie as its own result can."""
        spec, storage = layer.spec, layer.output
        assert isinstance(spec, Conv)
        assert addend.slots is not None
        assert storage.slots is not None
        if addend.pixels != storage.pixels or addend is storage:
            return False
        if not np.array_equal(storage.slots, addend.slots):
            if spec.groups > 1:
                return False
            storage.slots, storage.blocks = addend.slots, addend.blocks
            spec = replace(spec, out_channels=storage.blocks * BLOCK)
        layer.spec = replace(spec, add=True, add_element=BYTE, addition=how)
        layer.operands.append((addend, "add_stride"))
        return True

    def _table(self, step: IntegerStep) -> None:
        assert step.output is not None
        value = self._blocked(step.inputs[0])
        entries = quantized.table(step).astype(np.int16) + _raw(step.output.params).offset
        # entry 0 is of the lowest byte of either type, which lies as 0
        size = (value.storage.batch, value.storage.blocks, value.storage.pixels)
        spec = Map("table", *size, "table", in_element=BYTE, out_element=BYTE)
        self._mapped(step, spec, value, [Param("raw", entries.astype(np.uint8))])

    def _mapped(self, step: IntegerStep, spec: Map, value: Value, operands: list[Any]) -> Value:
        source = value.storage
        assert source.slots is not None
        storage = self._result(step, source, source.blocks, source.slots, source.pixels)
        self.reader.emit(spec.op, _names(step), spec, [(source, "in_stride"), *operands], storage, storage.name)
        result = Value(storage.name, value.shape, storage, value.height, value.width)
        self.reader.values[storage.name] = result
        return result


def _kept(step: IntegerStep) -> str:
    """What a step's result is kept in."""
    return BYTE if step.output is not None else "float32"


def _dequantize(source: Storage, how: _Raw) -> Map:
    size = (source.batch, source.blocks, source.pixels)
    return Map("dequantize", *size, constants=(float(how.scale),), in_element=BYTE, zero=how.zero)


def _names(step: IntegerStep) -> list[str]:
    return [node.name or "" for node in step.nodes]


def _read(step: IntegerStep) -> str:
    """The name of the first value that a step's node reads."""
    value = step.nodes[0].inputs[0]
    assert value is not None
    return value.name or ""


def _swapped(how: Addition) -> Addition:
    other = None if how.unaligned is None else (how.unaligned[1], how.unaligned[0])
    return replace(how, zeros=how.zeros[::-1], shifts=how.shifts[::-1], unaligned=other)


def _all_of(how: _Raw) -> Rounding:
    """To the whole range of a tensor's bytes."""
    return Rounding(how.zero, 0, 255)


def _clamp(step: IntegerStep) -> tuple[float, float] | None:
    """The bounds of a float result."""
    if step.output is not None or len(step.nodes) == 1:
        return None
    ends = [quantized.bounds(node) for node in step.nodes[1:]]
    return max(low for low, _ in ends), min(high for _, high in ends)


def _sets(spec: Conv, zero: int, weight: np.ndarray, bias: np.ndarray) -> tuple[Conv, np.ndarray, list[Param]]:
    """What a zero point adds to the bias, for each set of taps that an output sees.

    Args:
        zero: of the bytes as the kernel takes them.
        weight: int8 `[O, I, r, s]`. bias: int32 (O,).

    Returns:
        The spec with its sets, the biases int32 `[row sets * column sets, O]`, and the operand that says which set each
        output row is of, where there are several.
    """
    sums = weight.astype(np.int64).sum(1)
    rows, columns = ([(0, size)] for size in spec.kernel)
    of_row: list[tuple[int, int]] = []
    if zero:
        of_row, of_column = tap_sets(spec)
        rows, columns = list(dict.fromkeys(of_row)), list(dict.fromkeys(of_column))
    biases = [bias - zero * sums[:, r0:r1, s0:s1].sum((1, 2)) for r0, r1 in rows for s0, s1 in columns]
    operands = [Param("raw", np.array([rows.index(seen) for seen in of_row], np.int32))] if len(rows) > 1 else []
    spec = replace(spec, row_sets=len(rows), column_sets=len(columns))
    # An accumulator wraps on its way; what it comes to fits, because the insertion saw to that.
    return spec, np.array(biases, np.int64).astype(np.int32), operands
