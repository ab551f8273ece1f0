"""Pools as layers."""

from __future__ import annotations

from collections.abc import Callable

import onnx

from ...kernels.spec import GlobalAverage, Window, WindowOp
from ..layers import Value
from ..reader import Reader, Refuse
from .common import attributes, image, new, window
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
        spec = Window(
            op,
            value.storage.batch,
            value.storage.blocks,
            value.height,
            value.width,
            height,
            width,
            (rows, columns),
            stride,
            (pads[0], pads[1], pads[2], pads[3]),
            dilation,
            bool(attrs.get("count_include_pad", 0)),
        )
        emit_pool(reader, node, value, spec)

    return handler


def emit_pool(reader: Reader, node: onnx.NodeProto, value: Value, spec: Window | GlobalAverage) -> None:
    """A layer whose channels lie as its input's."""
    assert value.storage.slots is not None
    height, width = (spec.out_height, spec.out_width) if isinstance(spec, Window) else (1, 1)
    result = new(reader, node.output[0], value, value.storage.slots, height, width, value.storage.blocks)
    op = f"{spec.op.value}_pool" if isinstance(spec, Window) else "global_average"
    reader.emit(op, [node.name], spec, [(value.storage, "in_stride")], result.storage, result.name)
    reader.values[result.name] = result


def global_average(reader: Reader, node: onnx.NodeProto) -> None:
    """GlobalAveragePool."""
    value = reader.blocked(image(reader, node.input[0]))
    emit_pool(reader, node, value, GlobalAverage(value.storage.batch, value.storage.blocks, value.storage.pixels))


def global_max(reader: Reader, node: onnx.NodeProto) -> None:
    """GlobalMaxPool."""
    value = reader.blocked(image(reader, node.input[0]))
    size = (value.height, value.width)
    emit_pool(
        reader,
        node,
        value,
        Window(WindowOp.MAX, value.storage.batch, value.storage.blocks, *size, 1, 1, size, (1, 1), (0, 0, 0, 0)),
    )


def reduce_map(whole_map: Callable[[Reader, onnx.NodeProto], None]) -> Callable[[Reader, onnx.NodeProto], None]:
    """ReduceMean or ReduceMax over both axes of the map is a global pool."""

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
