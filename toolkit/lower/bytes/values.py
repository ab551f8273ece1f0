"""Quantized tensors as they lie in memory, and what the handlers of steps share.

A quantized tensor is a `Value` of `kernels.elements.BYTE` or `SIXTEEN` under the name of its QuantizeLinear's result.
Bytes lie without a sign, numbers of 16 bits with one: a model's int8 lies 128 higher, its uint16 2^15 lower.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx

from ...kernels.elements import BLOCK, BYTE, SIXTEEN, Rounding, ends
from ...kernels.spec import Map, Pick, Pixels
from ...quantize import arith
from ...quantize import integer_network as quantized
from ...quantize.integer_steps import IntegerStep, Tensor
from ...quantize.scheme import Params
from ...quantize.structure import ACTIVATIONS
from ..layers import Param, Storage, Value
from ..reader import blocks_of
from .places import Places, image

if TYPE_CHECKING:
    from ..reader import Reader

_OFFSETS = {"uint8": 0, "int8": 128, "uint16": -(2**15), "int16": 0}
"""How much higher a number of each type lies."""

WORD = 4
"""Channels of the network's input that one multiply-add takes at once."""


@dataclass(frozen=True)
class Raw:
    """A quantized tensor as it lies in memory: `zero` is of what lies there, `offset` more than the model's."""

    params: Params
    offset: int

    @property
    def zero(self) -> int:
        return self.params.zero + self.offset

    @property
    def element(self) -> str:
        """What it is kept in, of `elements.QUANTIZED`."""
        return SIXTEEN if self.params.wide else BYTE

    @property
    def scale(self) -> np.float32:
        scale: np.float32 = np.float32(self.params.scale)
        return scale


def raw(params: Params) -> Raw:
    """How a tensor lies."""
    return Raw(params, _OFFSETS[params.dtype])


class Bytes:
    """What is known of the quantized tensors while a model is read.

    Attributes:
        reader: what the layers go to.
        offset: how much lower than they lie convolutions take bytes.
        power_of_two: requantize by shifts.
        readers: how many steps, and ways out to float, read each quantized tensor, by name.
        params: what the result of each QuantizeLinear means, by name.
        ways_out: what the DequantizeLinear of each wanted float value takes its integers for.
        inputs: float values that are quantized, until it is known who reads them; and such as were.
        places: where the results of a step that moves values are from, by its name.
    """

    def __init__(self, reader: Reader, offset: int, power_of_two: bool) -> None:
        self.reader, self.offset, self.power_of_two = reader, offset, power_of_two
        self.readers: Counter[str] = Counter()
        self.params: dict[str, Raw] = {}
        self.ways_out: dict[str, Params] = {}
        self.inputs: dict[str, Value] = {}
        self.places: dict[str, list[Places | None]] = {}

    # -- values ------------------------------------------------------------------------------------------------------
    def shape(self, step: IntegerStep) -> tuple[int, ...]:
        """Of the step's result."""
        return self.reader.shape(step.nodes[-1].outputs[0].name or "")

    def size(self, step: IntegerStep) -> tuple[int, int]:
        """Height and width of what the step's first node makes."""
        height, width = self.reader.shape(step.nodes[0].outputs[0].name or "")[2:]
        return height, width

    def blocked(self, tensor: Tensor) -> Value:
        """A tensor in NCHW16c; the network's own input becomes so when somebody needs it."""
        if tensor.name not in self.reader.values:
            self._map_input(tensor.name)
        return self.reader.values[tensor.name]

    def result(self, step: IntegerStep, like: Storage, blocks: int, slots: np.ndarray, pixels: int) -> Storage:
        """Memory for a step's result: quantized, or float32 where it leaves as float."""
        name = step.output.name if step.output is not None else step.result
        return Storage(name, like.batch, pixels, blocks, slots, dtype=kept(step))

    def made(self, step: IntegerStep, storage: Storage, height: int, width: int) -> None:
        """The step's result lies in `storage`."""
        self.reader.values[storage.name] = Value(storage.name, self.shape(step), storage, height, width)

    def rounding(self, step: IntegerStep) -> Rounding | None:
        """To the bytes of a step's result, bounded by the Relu or Clip behind it; None where it leaves as float."""
        if step.output is None:
            return None
        params = step.output.params
        how = raw(params)
        low, high = ends(how.element)
        for node in quantized.bounding(step):
            if node.op_type in ACTIVATIONS:
                first, last = (
                    int(arith.quantize(np.array(end, np.float32), params.scale, params.zero, params.dtype))
                    for end in quantized.bounds(node)
                )
                low, high = (min(max(end, first + how.offset), last + how.offset) for end in (low, high))
        return Rounding(how.zero, low, high, self.power_of_two)

    def mapped(self, step: IntegerStep, spec: Map, value: Value, operands: list[Any]) -> Value:
        """A layer whose result is the step's, and lies as `value` does."""
        source = value.storage
        assert source.slots is not None
        storage = self.result(step, source, source.blocks, source.slots, source.pixels)
        self.reader.emit(spec.op, names(step), spec, [(source, "in_stride"), *operands], storage, storage.name)
        self.made(step, storage, value.height, value.width)
        return self.reader.values[storage.name]

    def rescaled(self, step: IntegerStep, value: Value, given: Params, y: Tensor | None = None) -> Value:
        """`value` in the scale of the step's output (or of `y`), bounded by what follows."""
        y = y or step.output
        assert y is not None
        x = raw(given)
        how = self.rounding(step) if y is step.output else replace(all_of(raw(y.params)), shift=self.power_of_two)
        source, made = value.storage, raw(y.params).element
        size = (source.batch, source.blocks, source.pixels)
        elements: Any = {"in_element": source.dtype, "out_element": made}
        if given == y.params:
            spec = Map("clip", *size, **elements, rounding=how)
        else:
            one, other = given, y.params
            scale = float(other.exponent - one.exponent) if self.power_of_two else float(x.scale / raw(other).scale)
            spec = Map("rescale", *size, constants=(scale,), **elements, zero=x.zero, rounding=how)
        assert source.slots is not None
        storage = replace(source, name=y.name, parent=None, parent_block=0, port=None, dtype=made)
        self.reader.emit(spec.op, names(step), spec, [(source, "in_stride")], storage, y.name)
        return Value(y.name, value.shape, storage, value.height, value.width)

    def through_float(self, value: Value, params: Params, change: Callable[[Value], Value]) -> Value:
        """A change of layout that there are float kernels for only: every byte comes back as it was."""
        how, source = raw(params), value.storage
        name = f"{value.name}:float"
        real = replace(source, name=name, parent=None, parent_block=0, dtype="float32")
        spec = dequantization(source, how)
        self.reader.emit("dequantize", [], spec, [(source, "in_stride")], real, name)
        moved = change(Value(name, value.shape, real, value.height, value.width))
        return self.to_bytes(f"{value.name}:moved", how, moved)

    def to_bytes(self, name: str, how: Raw, value: Value) -> Value:
        """A float value in NCHW16c, quantized."""
        source = value.storage
        size = (source.batch, source.blocks, source.pixels)
        spec = Map("quantize", *size, constants=(float(how.scale),), out_element=how.element, rounding=all_of(how))
        storage = replace(source, name=name, parent=None, parent_block=0, port=None, dtype=how.element)
        self.reader.emit("quantize", [], spec, [(source, "in_stride")], storage, name)
        return Value(name, value.shape, storage, value.height, value.width)

    def picked(self, value: Value, places: Places, fill: int, name: str, nodes: list[str]) -> Value:
        """Numbers of a map in other places; `fill`, as `Pick` has it, where they are from nowhere. Its shape is
        (N, C, H, W).
        """
        source = value.storage
        assert source.slots is not None
        if np.array_equal(places.channels, np.arange(len(source.slots))):
            return self._pick(value, places, fill, name, nodes, source.slots, source.blocks, None)
        slots = np.arange(len(places.channels))
        table = np.where(places.channels < 0, -1, source.slots[places.channels])
        return self._pick(value, places, fill, name, nodes, slots, blocks_of(len(slots)), table)

    def with_slots(self, value: Value, slots: np.ndarray) -> Value:
        """A map with its channels in the given slots, moved if need be."""
        source = value.storage
        assert source.slots is not None
        if np.array_equal(source.slots, slots):
            return value
        rows, columns = (np.arange(size, dtype=np.int32) for size in (value.height, value.width))
        places, blocks = Places(slots, rows, columns), blocks_of(int(slots.max()) + 1)
        moved = self._pick(value, places, -1, f"{value.name}:moved", [], slots, blocks, source.slots)
        return replace(moved, shape=value.shape)

    def _pick(
        self,
        value: Value,
        places: Places,
        fill: int,
        name: str,
        nodes: list[str],
        slots: np.ndarray,
        blocks: int,
        sources: np.ndarray | None,
    ) -> Value:
        """A `Pick`.

        Args:
            slots, blocks: of the result.
            sources: the slot of the input that each channel of the result is from; None where every slot stays.
        """
        source, height, width = value.storage, len(places.rows), len(places.columns)
        operands: list[tuple[Storage, str] | Param] = [(source, "in_stride")]
        operands += [Param("raw", places.rows), Param("raw", places.columns)]
        if sources is not None:
            table = np.zeros(blocks * BLOCK, np.int32)
            table[slots] = sources
            operands.append(Param("raw", table))
        size = (source.blocks, value.height, value.width, blocks, height, width)
        fill = fill if places.filled else -1
        elements: Any = {"in_element": source.dtype, "out_element": source.dtype}
        spec = Pick(source.batch, *size, shuffled=sources is not None, fill=fill, **elements)
        storage = Storage(name, source.batch, height * width, blocks, slots, dtype=source.dtype)
        self.reader.emit("pick", nodes, spec, operands, storage, name)
        return Value(name, (source.batch, len(slots), height, width), storage, height, width)

    # -- edges -------------------------------------------------------------------------------------------------------
    def quantize(self, node: onnx.NodeProto) -> None:
        """QuantizeLinear of a float value: done when its form is known, which depends on who reads it."""
        self.inputs[node.output[0]] = self.reader.value(node.input[0])

    def _map_input(self, name: str) -> None:
        given = self.inputs[name]
        sizes = image(given.shape)
        assert sizes is not None
        if not given.storage.blocked:
            given = self.reader.blocked(replace(given, shape=sizes))
        made = self.to_bytes(name, self.params[name], given)
        self.reader.values[name] = replace(made, shape=self.inputs[name].shape)

    def word_input(self, name: str) -> Value | None:
        """The network's input as pixels of four bytes, if it is plain NCHW and has few enough channels."""
        value = self.inputs.get(name)
        if value is None or value.storage.blocked or len(value.shape) != 4 or value.shape[1] > WORD:
            return None
        key = f"{name}:words"
        if key not in self.inputs:
            how, (batch, channels, height, width) = self.params[name], value.shape
            storage = Storage(key, batch, height * width * WORD, dtype=how.element)
            numbers: Any = {"scale": float(how.scale), "rounding": all_of(how), "out_element": how.element}
            spec = Pixels(batch, channels, WORD, height, width, **numbers)
            self.reader.emit("quantize", [], spec, [(value.storage, "")], storage, name)
            self.inputs[key] = Value(key, value.shape, storage, height, width)
        return self.inputs[key]

    def dequantize(self, node: onnx.NodeProto) -> None:
        """DequantizeLinear of what an integer step made, for who reads it as float."""
        params, name = self.ways_out[node.output[0]], node.output[0]
        self.as_float(self.blocked(Tensor(node.input[0], params)), params, name, [node.name])

    def as_float(self, value: Value, params: Params, name: str, nodes: list[str]) -> None:
        """Make the float value `name` of bytes."""
        source = value.storage
        spec = dequantization(source, raw(params))
        storage = replace(source, name=name, parent=None, parent_block=0, dtype="float32")
        self.reader.emit("dequantize", nodes, spec, [(source, "in_stride")], storage, name)
        self.reader.values[name] = Value(name, self.reader.shape(name), storage, value.height, value.width)


def dequantization(source: Storage, how: Raw) -> Map:
    """Quantized numbers to float32."""
    size = (source.batch, source.blocks, source.pixels)
    return Map("dequantize", *size, constants=(float(how.scale),), in_element=how.element, zero=how.zero)


def kept(step: IntegerStep) -> str:
    """What a step's result is kept in."""
    return raw(step.output.params).element if step.output is not None else "float32"


def names(step: IntegerStep) -> list[str]:
    """Of the nodes that a step stands for."""
    return [node.name or "" for node in step.nodes]


def read(step: IntegerStep) -> str:
    """The name of the first value that a step's node reads."""
    value = step.nodes[0].inputs[0]
    assert value is not None
    return value.name or ""


def all_of(how: Raw) -> Rounding:
    """To the whole range of a tensor's numbers."""
    return Rounding(how.zero, *ends(how.element))
