"""Convolutions and fully connected layers of bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from ...graph.rewrite import integer, ints
from ...kernels.elements import BLOCK, BYTE, SIXTEEN, Addition
from ...kernels.spec import Conv, Window, tap_sets
from ...quantize import arith
from ...quantize import integer_network as quantized
from ...quantize.arith import INT32
from ...quantize.integer_steps import IntegerStep
from ...quantize.scheme import Params
from ...quantize.step_weights import channels_summed
from ..layers import Layer, Param, Storage
from ..numbers import Numbers
from ..operators import linear as common
from .values import WORD, Bytes, kept, names, raw


def linear(steps: Bytes, step: IntegerStep) -> None:
    """A convolution or a fully connected layer."""
    assert step.linear is not None
    weight, scale, bias = step.linear.weight, step.linear.scale, step.linear.bias
    out = len(weight)
    bias = np.zeros(out, np.int32) if bias is None else bias
    x = raw(step.inputs[0].params)
    if step.output is None:
        factor: np.ndarray = x.scale * scale
    elif steps.power_of_two:
        factor = step.shifts
        bias = bias + _halves(step.shifts)
    else:
        factor = arith.multiplier(x.params.scale, scale, step.output.params.scale)
    numbers = numbers_of(steps, step, bias, factor)
    if step.nodes[0].op_type != "Conv":
        common.emit_dense(steps.reader, steps.blocked(step.inputs[0]).storage, weight, numbers)
        return
    node = ir.to_proto(step.nodes[0])
    words = steps.word_input(step.inputs[0].name) if integer(step.nodes[0], "group", 1) == 1 else None
    value = steps.blocked(step.inputs[0]) if words is None else words
    common.emit_conv(steps.reader, node, value, weight, numbers, 0 if words is None else WORD)
    if step.shortcut is not None and step.output is not None:
        how, rounding = raw(step.shortcut.params), steps.rounding(step)
        assert rounding is not None
        y, factor_q, inside = step.output.params, 0.0, 0
        if steps.power_of_two:
            inside = y.exponent - how.params.exponent
        else:
            factor_q = float(how.scale / np.float32(y.scale))
        addition = Addition((0, how.zero), (0, 0), factor_q, rounding, inside=inside)
        made = steps.reader.values[step.output.name]
        layer = steps.reader.producer[made.storage]
        done = joined(layer, steps.blocked(step.shortcut).storage, addition)
        assert done, "a convolution without groups has room for whatever its sum joins"
        steps.reader.last(layer)  # the shortcut may have been quantized just now


def pooled(steps: Bytes, step: IntegerStep) -> None:
    """An average pooling summed behind its 1x1: a convolution with equal taps."""
    assert step.linear is not None
    pool, conv = step.nodes[:2]
    weight = np.broadcast_to(step.linear.weight, (*step.linear.weight.shape[:2], *ints(pool, "kernel_shape")))
    bias = np.zeros(len(weight), np.int32) if step.linear.bias is None else step.linear.bias
    node, window = ir.to_proto(conv), ir.to_proto(pool)
    del node.attribute[:]
    node.attribute.extend(one for one in window.attribute if one.name in ("kernel_shape", "pads"))
    numbers = numbers_of(steps, step, bias + _halves(step.shifts), step.shifts)
    windows = np.stack(step.factors)
    if (windows[0] != 1).any():
        numbers = _weighed(numbers, Param("raw", windows))
    common.emit_conv(steps.reader, node, steps.blocked(step.inputs[0]), weight, numbers)


def _weighed(numbers: Numbers, windows: Param) -> Numbers:
    """With another operand, which says how often each window counts."""

    def behind(spec: Any, weight: np.ndarray) -> tuple[Any, list[Param]]:
        spec, operands = numbers.behind(spec, weight)
        return replace(spec, weighed=True), [*operands[:2], windows, *operands[2:]]

    return replace(numbers, behind=behind)


def numbers_of(
    steps: Bytes,
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
        spec = replace(spec, weight_element=str(weight.dtype))
        if isinstance(spec, Window):
            return replace(spec, zero=x.zero), [Param("channel", bias.astype(np.int32)), Param("channel", factor)]
        # Instructions that take more than bytes take the inputs as they lie.
        offset = steps.offset if weight.dtype == np.int8 and x.element == BYTE else 0
        spec, biases, sets = _sets(spec, x.zero - offset, weight, bias)
        if x.element == SIXTEEN:
            spec, biases = _long(spec, x.params, weight, bias, biases)
        return spec, [Param("channels", biases.astype(np.int32)), Param("channel", factor), *sets]

    x = raw(step.inputs[0].params)
    fields: dict[str, Any] = {"activation": _clamp(step), "in_element": x.element, "out_element": kept(step)}
    fields["rounding"] = None if step.kind == "move" else steps.rounding(step)
    if zero is not None:
        fields["zero"] = zero
    name = step.output.name if step.output is not None else step.result
    return Numbers(names(step), name, kept(step), fields, behind)


def joined(layer: Layer, addend: Storage, how: Addition) -> bool:
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
    layer.spec = replace(spec, add=True, add_element=addend.dtype, addition=how)
    layer.operands.append((addend, "add_stride"))
    return True


def _halves(shifts: np.ndarray) -> np.ndarray:
    """What is added before a shift, so that it rounds."""
    halves: np.ndarray = np.where(shifts > 0, 1 << np.maximum(shifts - 1, 0), 0).astype(np.int32)
    return halves


def retake(layer: Layer, zero: int) -> None:
    """Let a convolution that was read for bytes whose zero is 0 take them `zero` higher."""
    spec, weight, bias = layer.spec, *layer.operands[1:3]
    assert isinstance(spec, Conv)
    assert isinstance(weight, Param)
    assert isinstance(bias, Param)
    layer.spec, biases, sets = _sets(spec, zero, weight.array, bias.array[0])
    layer.operands[2:4] = [Param("channels", biases.astype(np.int32)), layer.operands[3], *sets]


def _clamp(step: IntegerStep) -> tuple[float, float] | None:
    """The bounds of a float result."""
    if step.output is not None or len(step.nodes) == 1:
        return None
    ends = [quantized.bounds(node) for node in step.nodes[1:]]
    return max(low for low, _ in ends), min(high for _, high in ends)


def sum_bits(weight: np.ndarray) -> int:
    """`Conv.sum_bits` of `[O, I, r, s]`: no sum of some of its products with bytes leaves the range."""
    wide = weight.astype(np.int64)
    most = max(int(one.clip(0).sum((1, 2, 3)).max(initial=0)) for one in (wide, -wide))
    return 26 if most * 255 < 1 << 25 else 32


def _sets(spec: Conv, zero: int, weight: np.ndarray, bias: np.ndarray) -> tuple[Conv, np.ndarray, list[Param]]:
    """What a zero point adds to the bias, for each set of taps that an output sees.

    Args:
        zero: of the bytes as the kernel takes them.
        weight: int8 `[O, I, r, s]`. bias: int32 (O,).

    Returns:
        The spec with its sets, the biases `[row sets * column sets, O]`, int64 that may go round in int32, and the
        operand that says which set each output row is of, where there are several.
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
    if spec.in_element == BYTE:
        spec = replace(spec, sum_bits=sum_bits(weight))
    # An accumulator wraps on its way; what it comes to fits, because the insertion saw to that.
    return spec, np.array(biases, np.int64), operands


def _long(spec: Conv, x: Params, weight: np.ndarray, bias: np.ndarray, biases: np.ndarray) -> tuple[Conv, np.ndarray]:
    """With `Conv.sum_blocks` and biases in two parts, where int32 does not hold what some sum comes to.

    Args:
        weight: `[O, I, r, s]`. bias: (O,), beside numbers less their zero point; `biases`: beside those that lie there.
    """
    sums, (low, high) = weight.astype(np.int64), x.limits
    most, least = sums.clip(0).sum((1, 2, 3)), sums.clip(None, 0).sum((1, 2, 3))
    up, down = high - x.zero, low - x.zero
    above, below = bias + most * up + least * down, bias + most * down + least * up
    if max(int(above.max()), -int(below.min())) <= INT32.max:
        return spec, biases
    parts = np.concatenate([biases >> 16, biases & 0xFFFF])
    return replace(spec, sum_blocks=-(-channels_summed(weight) // BLOCK)), parts
