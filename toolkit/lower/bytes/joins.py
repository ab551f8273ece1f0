"""Sums, products and concats of bytes, and what scales and shifts each channel."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from ...kernels.elements import Addition, Product, Scaling
from ...kernels.spec import Conv, Map, Window, WindowOp
from ...quantize import arith
from ...quantize import integer_network as quantized
from ...quantize.integer_steps import IntegerStep
from ...quantize.scheme import Params
from ..layers import Layer, Param, Value
from ..operators import layout
from .linear import joined
from .values import Bytes, kept, names, raw


def concat(steps: Bytes, step: IntegerStep) -> None:
    """Concat of channels: each part writes its slice of the result."""
    assert step.output is not None
    values = []
    for tensor in step.inputs:
        value = unfolded(steps, steps.blocked(tensor), tensor.params)
        if tensor.params != step.output.params:
            value = steps.rescaled(step, value, tensor.params)
        values.append(value)
    layout.join(steps.reader, step.output.name, steps.shape(step), values)


def unfolded(steps: Bytes, value: Value, params: Params) -> Value:
    """A flattened map as a map of one pixel, whose channels are all its values."""
    if value.storage.pixels == value.height * value.width:
        return value
    return steps.through_float(value, params, lambda flat: steps.reader.blocked(steps.reader.planar(flat)))


def _sides(steps: Bytes, step: IntegerStep) -> tuple[Value, Value]:
    """What a step joins: the second, which may be a gate, with its channels where the first's are."""
    left, right = (steps.blocked(tensor) for tensor in (step.inputs * 2)[:2])
    if left.storage.pixels != right.storage.pixels:
        left, right = (
            unfolded(steps, value, tensor.params)
            for value, tensor in zip((left, right), (step.inputs * 2)[:2], strict=True)
        )
    slots, others = left.storage.slots, right.storage.slots
    assert slots is not None
    assert others is not None
    if np.array_equal(slots, others):
        return left, right
    if right.storage.pixels != right.height * right.width:  # both flattened
        theirs = step.inputs[-1].params
        return left, steps.through_float(right, theirs, lambda value: steps.reader.with_slots(value, slots))
    return left, steps.with_slots(right, slots)


def _elements(step: IntegerStep, left: Value, right: Value) -> dict[str, Any]:
    """Of a `Map` of two operands."""
    elements = left.storage.dtype, right.storage.dtype, kept(step)
    return dict(zip(("in_element", "second_element", "out_element"), elements, strict=True))


def add(steps: Bytes, step: IntegerStep) -> None:
    """A sum: the end of the convolution before it, or a layer."""
    how = _addition(steps, step)
    if _fused(steps, step, how):
        return
    left, right = _sides(steps, step)
    size = (left.storage.batch, left.storage.blocks, left.storage.pixels)
    spec = Map("add", *size, "tensor", **_elements(step, left, right), addition=how)
    steps.mapped(step, spec, left, [(right.storage, "second_stride")])


def multiply(steps: Bytes, step: IntegerStep) -> None:
    """A product of two maps, or of a map and its gate."""
    pixels = [math.prod(steps.reader.shape(tensor.name)[2:]) for tensor in step.inputs]
    if pixels[0] < pixels[-1]:  # the gate comes first
        step = replace(step, inputs=step.inputs[::-1])
    assert step.output is not None
    a, b = (raw(tensor.params) for tensor in (step.inputs * 2)[:2])
    y, how = step.output.params, steps.rounding(step)
    assert how is not None
    if steps.power_of_two:
        factor = float(arith.product_shift(a.params.exponent, b.params.exponent, y.exponent))
    else:
        factor = float(arith.multiplier(a.params.scale, b.params.scale, y.scale))
    left, right = _sides(steps, step)
    second = "tensor" if pixels[0] == pixels[-1] else "channel"
    size = (left.storage.batch, left.storage.blocks, left.storage.pixels)
    spec = Map("mul", *size, second, **_elements(step, left, right), product=Product((a.zero, b.zero), factor, how))
    steps.mapped(step, spec, left, [(right.storage, "second_stride")])


def affine(steps: Bytes, step: IntegerStep) -> None:
    """What scales and shifts each channel: the end of the convolution before it, or a layer."""
    how, x = steps.rounding(step), raw(step.inputs[0].params)
    assert how is not None
    assert step.output is not None
    scaling, numbers = Scaling(x.zero, how), Param("channels", np.stack(step.factor_and_shift))
    value = steps.blocked(step.inputs[0])
    layer = _maker(steps, step.inputs[0].name)
    if layer is None or not _takes_scaling(layer):
        size = (value.storage.batch, value.storage.blocks, value.storage.pixels)
        spec = Map("affine", *size, "scaling", in_element=x.element, out_element=kept(step), scaling=scaling)
        steps.mapped(step, spec, value, [numbers])
        return
    assert isinstance(layer.spec, (Conv, Window))
    layer.spec = replace(layer.spec, scaling=scaling)
    layer.operands.append(numbers)
    _becomes(steps, layer, step, value)


def _takes_scaling(layer: Layer) -> bool:
    """It is a convolution that ends in a byte, and nothing else is done with that."""
    spec = layer.spec
    if isinstance(spec, Conv):
        return spec.rounding is not None and not (spec.add or spec.weighed or spec.scaling)
    return isinstance(spec, Window) and spec.op is WindowOp.DEPTHWISE and spec.rounding is not None and not spec.scaling


def _maker(steps: Bytes, name: str) -> Layer | None:
    """The layer that makes a quantized tensor, for one reader alone."""
    value = steps.reader.values.get(name)
    layer = steps.reader.producer.get(value.storage) if value is not None else None
    return layer if layer is not None and layer.value == name and steps.readers[name] == 1 else None


def _becomes(steps: Bytes, layer: Layer, step: IntegerStep, value: Value) -> None:
    """A layer makes the result of a step that follows it, in the place of `value`."""
    assert step.output is not None
    layer.nodes.extend(names(step))
    layer.value = layer.output.name = step.output.name
    layer.output.dtype = kept(step)
    layer.spec = layer.spec.told(out_element=layer.output.dtype)
    steps.made(step, layer.output, value.height, value.width)


def _addition(steps: Bytes, step: IntegerStep) -> Addition:
    """The numbers of an Add, as `quantize.network` computes it."""
    assert step.output is not None
    a, b = (raw(tensor.params) for tensor in (step.inputs * 2)[:2])
    y, how = step.output.params, steps.rounding(step)
    assert how is not None
    zeros, shifts = (a.zero, b.zero), quantized.alignment(a.params, b.params)
    if shifts is None:
        sides = (float(a.scale / np.float32(y.scale)), float(b.scale / np.float32(y.scale)))
        return Addition(zeros, (0, 0), 1.0, replace(how, shift=False), sides)
    finer = min(a.params.scale, b.params.scale)
    if steps.power_of_two:
        return Addition(zeros, shifts, float(y.exponent - Params(finer, 0, "int8").exponent), how)
    return Addition(zeros, shifts, float(np.float32(finer) / np.float32(y.scale)), how)


def _fused(steps: Bytes, step: IntegerStep, how: Addition) -> bool:
    """The Add becomes the end of the convolution that makes one of its sides and has no other reader."""
    if len(step.inputs) < 2 or step.output is None:
        return False
    for mine, theirs in ((0, 1), (1, 0)):
        layer = _maker(steps, step.inputs[mine].name)
        if layer is None or not isinstance(layer.spec, Conv) or layer.spec.add or layer.spec.rounding is None:
            continue
        value, addend = steps.blocked(step.inputs[mine]), steps.blocked(step.inputs[theirs]).storage
        if not joined(layer, addend, how if mine == 0 else _swapped(how)):
            continue
        _becomes(steps, layer, step, value)
        steps.reader.last(layer)
        return True
    return False


def _swapped(how: Addition) -> Addition:
    other = None if how.unaligned is None else (how.unaligned[1], how.unaligned[0])
    return replace(how, zeros=how.zeros[::-1], shifts=how.shifts[::-1], unaligned=other)
