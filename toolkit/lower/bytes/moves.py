"""Pools, tables, and what only moves bytes."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import onnx_ir as ir

from ...graph.rewrite import ints
from ...kernels.elements import BLOCK, element_of
from ...kernels.spec import Map, WindowOp
from ...quantize import arith
from ...quantize import integer_network as quantized
from ...quantize.integer_steps import IntegerStep, quantized_as
from ...quantize.structure import ACTIVATIONS, POOLS, window_counts
from ..layers import Param, Storage, Value
from ..operators import common, pool
from ..reader import blocks_of
from .joins import unfolded
from .linear import numbers_of
from .places import Places, trace
from .values import Bytes, kept, names, raw, read

_VIEWS = ("Flatten", "Reshape", "Squeeze", "Unsqueeze")


def mean(steps: Bytes, step: IntegerStep) -> None:
    """An average pool."""
    node, x = step.nodes[0], raw(step.inputs[0].params)
    value = steps.blocked(step.inputs[0])
    size = (value.height, value.width)
    counts = window_counts(node, size).reshape(-1)
    factor: np.ndarray
    if step.output is None:
        factor = x.scale / counts.astype(np.float32)
    elif steps.power_of_two:
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
        stride, pads, _ = common.window(steps.reader, ir.to_proto(node), kernel)
    numbers = numbers_of(steps, step, zero=x.zero)
    made = steps.size(step)
    spec = pool.windowed(WindowOp.AVERAGE, value, made, kernel, stride, pads, (1, 1), numbers)
    pool.emit_window(steps.reader, value, spec, [Param("raw", factor)], numbers)


def move(steps: Bytes, step: IntegerStep) -> None:
    """A max pool, a Relu that stands alone, a view, values in other places; and the change of scale behind it, where
    there is one.
    """
    assert step.output is not None
    node, value = step.nodes[0], steps.blocked(step.inputs[0])
    if node.op_type in POOLS:
        value = _maximum(steps, step, value)
    elif node.op_type not in (*ACTIVATIONS, "QuantizeLinear"):
        _moved(steps, step, value)
        return
    if step.inputs[0].params != step.output.params or node.op_type in ACTIVATIONS:
        value = steps.rescaled(step, value, step.inputs[0].params)
    steps.reader.values[step.output.name] = value


def _maximum(steps: Bytes, step: IntegerStep, value: Value) -> Value:
    node, element = step.nodes[0], value.storage.dtype
    numbers = numbers_of(steps, step, zero=0)
    numbers = replace(numbers, dtype=element, fields={**numbers.fields, "out_element": element})
    kernel, how = (value.height, value.width), ((1, 1), [0] * 4, (1, 1))
    if node.op_type == "MaxPool":
        rows, columns = ints(node, "kernel_shape")
        kernel = (rows, columns)
        how = common.window(steps.reader, ir.to_proto(node), kernel)
    spec = pool.windowed(WindowOp.MAX, value, steps.size(step), kernel, *how, numbers)
    return pool.emit_window(steps.reader, value, spec, [], numbers)


def places_of(steps: Bytes, step: IntegerStep) -> list[Places | None]:
    """Where the values of each result of a node that only moves them are from; None of what nobody reads, too."""
    given = steps.reader.shape(read(step))
    return trace(step.nodes[0], given)


def flattens(steps: Bytes, step: IntegerStep) -> bool:
    """A view that changes nothing, or flattens each image: blocks of channels stay what they are."""
    given, made = steps.reader.shape(read(step)), steps.shape(step)
    return step.nodes[0].op_type in _VIEWS and made in (given, (given[0], math.prod(given[1:])))


def _moved(steps: Bytes, step: IntegerStep, value: Value) -> None:
    """Values in other places, or a view of where they are. A Split has several results, some of which may be float."""
    node, how = step.nodes[0], raw(step.inputs[0].params)
    if flattens(steps, step):
        shape = steps.shape(step)
        size = (value.height, value.width) if len(shape) > 3 else (1, 1)
        _give(steps, step, node.outputs[0], Value(value.name, shape, value.storage, *size))
        return
    value = unfolded(steps, value, how.params)
    fill = quantized.padded_with(node, how.params) + how.offset if node.op_type == "Pad" else 0
    fill %= 1 << 8 * value.storage.itemsize
    for output, places in zip(node.outputs, steps.places[step.name], strict=True):
        if not output.uses() and not output.is_graph_output():
            continue
        assert places is not None
        name = output.name or ""
        if places.filled or not places.keeps_pixels(value.height, value.width) or _repeats(places.channels):
            made = steps.picked(value, places, fill, f"{name}:bytes", names(step))
        else:
            made = _channels(steps, value, places.channels, f"{name}:bytes")
        _give(steps, step, output, replace(made, shape=steps.reader.shape(name)))


def _repeats(indices: np.ndarray) -> bool:
    return len(np.unique(indices)) != len(indices)


def _channels(steps: Bytes, value: Value, indices: np.ndarray, name: str) -> Value:
    """Some channels of a map, in any order, where they lie; moved together where most of their lanes are others'."""
    source = value.storage
    assert source.slots is not None
    slots = source.slots[indices]
    first, last = int(slots.min()) // BLOCK, int(slots.max()) // BLOCK
    slots = slots - first * BLOCK
    part = Storage(name, source.batch, source.pixels, last - first + 1, slots, source, first, dtype=source.dtype)
    made = Value(name, value.shape, part, value.height, value.width)
    dense = part.blocks < 2 * blocks_of(len(indices))
    return made if dense else steps.with_slots(made, np.arange(len(indices)))


def _give(steps: Bytes, step: IntegerStep, output: ir.Value, value: Value) -> None:
    """A result of a move: in the scale that it is quantized with, or as float."""
    given, y = step.inputs[0].params, quantized_as(output)
    if y is None:
        steps.as_float(value, given, output.name or "", names(step))
    else:
        steps.reader.values[y.name] = value if y.params == given else steps.rescaled(step, value, given, y)


def table(steps: Bytes, step: IntegerStep) -> None:
    """A function of one value: numbers to look up."""
    assert step.output is not None
    value = steps.blocked(step.inputs[0])
    entries = quantized.table(step).astype(np.int32) + raw(step.output.params).offset
    # entry 0 is of the lowest number of any type, which lies lowest
    size, made = (value.storage.batch, value.storage.blocks, value.storage.pixels), kept(step)
    spec = Map("table", *size, "table", in_element=value.storage.dtype, out_element=made)
    steps.mapped(step, spec, value, [Param("raw", entries.astype(element_of(made).stored))])
