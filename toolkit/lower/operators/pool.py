"""Pools as layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import onnx

from ...kernels.spec import GlobalAverage, Window, WindowOp
from ..layers import Param, Value
from ..numbers import Numbers, reals
from ..reader import Reader, Refuse
from .common import attributes, image, window
from .written import max_with_places


def pool(op: WindowOp) -> Callable[[Reader, onnx.NodeProto], None]:
    """MaxPool and AveragePool."""

    def handler(reader: Reader, node: onnx.NodeProto) -> None:
        if len([o for o in node.output if o]) > 1 and reader.uses[node.output[1]]:
            max_with_places(reader, node)
            return
        value = reader.blocked(image(reader, node.input[0]))
        attrs = attributes(node)
        rows, columns = attrs["kernel_shape"]
        stride, pads, dilation = window(reader, node, (rows, columns))
        height, width = reader.shape(node.output[0])[2:]
        if op is WindowOp.AVERAGE and (rows, columns) == (value.height, value.width) and not any(pads):
            global_average(reader, node)
            return
        if op is WindowOp.AVERAGE and dilation != (1, 1):
            raise Refuse("an average over a dilated window")
        numbers = reals(reader, node)
        spec = windowed(op, value, (height, width), (rows, columns), stride, pads, dilation, numbers)
        spec = replace(spec, include_pad=bool(attrs.get("count_include_pad", 0)))
        emit_window(reader, value, spec, [], numbers)

    return handler


def windowed(
    op: WindowOp,
    value: Value,
    size: tuple[int, int],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    pads: Sequence[int],
    dilation: tuple[int, int],
    numbers: Numbers,
) -> Window:
    """The spec of a pool or a depthwise convolution of a blocked value to a map of `size`, in any numbers."""
    source = value.storage
    return Window(
        op,
        source.batch,
        source.blocks,
        value.height,
        value.width,
        *size,
        kernel,
        stride,
        (pads[0], pads[1], pads[2], pads[3]),
        dilation,
        **numbers.fields,
    )


def emit_window(
    reader: Reader,
    value: Value,
    spec: Window,
    params: list[Param],
    numbers: Numbers,
    weight: np.ndarray | None = None,
    macs: int = 0,
) -> Value:
    """A layer whose channels lie as its input's; a depthwise convolution has a weight."""
    source, size = value.storage, (spec.out_height, spec.out_width)
    assert source.slots is not None
    operands: list[Param] = []
    if weight is not None:
        spec, operands = numbers.behind(spec, weight)
    result = numbers.storage(source, source.slots, size[0] * size[1], source.blocks)
    op = "depthwise" if spec.op is WindowOp.DEPTHWISE else f"{spec.op.value}_pool"
    return numbers.emit(reader, op, spec, source, [*params, *operands], result, size, macs)


def global_average(reader: Reader, node: onnx.NodeProto) -> None:
    """GlobalAveragePool."""
    _over_pixels(reader, node, "global_average", "mean")


def global_sum(reader: Reader, node: onnx.NodeProto) -> None:
    """The sum of the map."""
    _over_pixels(reader, node, "global_sum", "sum")


def global_l2(reader: Reader, node: onnx.NodeProto) -> None:
    """The Euclidean norm of the map."""
    _over_pixels(reader, node, "global_l2", "l2")


def _over_pixels(reader: Reader, node: onnx.NodeProto, op: str, of: str) -> None:
    source, numbers = reader.blocked(image(reader, node.input[0])).storage, reals(reader, node)
    assert source.slots is not None
    result = numbers.storage(source, source.slots, 1, source.blocks)
    spec = GlobalAverage(source.batch, source.blocks, source.pixels, of=of)
    numbers.emit(reader, op, spec, source, [], result, (1, 1))


def global_max(reader: Reader, node: onnx.NodeProto) -> None:
    """GlobalMaxPool."""
    value, numbers = reader.blocked(image(reader, node.input[0])), reals(reader, node)
    size = (value.height, value.width)
    spec = windowed(WindowOp.MAX, value, (1, 1), size, (1, 1), (0, 0, 0, 0), (1, 1), numbers)
    emit_window(reader, value, spec, [], numbers)


def reduce_map(whole_map: Callable[[Reader, onnx.NodeProto], None]) -> Callable[[Reader, onnx.NodeProto], None]:
    """A reduction over both axes of the map is a global pool."""

    def handler(reader: Reader, node: onnx.NodeProto) -> None:
        _reduce_map(reader, node)
        whole_map(reader, node)

    return handler


def _reduce_map(reader: Reader, node: onnx.NodeProto) -> None:
    attrs = attributes(node)
    axes = attrs.get("axes")
    if axes is None and len(node.input) > 1 and node.input[1]:
        axes = reader.constant(node.input[1], "the list of axes").tolist()
    image(reader, node.input[0])
    if axes is None or sorted(a % 4 for a in axes) != [2, 3]:
        raise Refuse(f"axes {axes} are not the two of the map")
