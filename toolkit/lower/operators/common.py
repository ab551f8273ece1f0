"""What the handlers of several kinds of operators ask: attributes, windows, new values."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from ...kernels.elements import element_of
from ..layers import Storage, Value
from ..reader import Reader, Refuse, blocks_of


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The node's attributes as Python values."""
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def text(value: Any) -> str:
    """An attribute that is text, which protobuf gives as bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)


def window(
    reader: Reader, node: onnx.NodeProto, kernel: tuple[int, int]
) -> tuple[tuple[int, int], list[int], tuple[int, int]]:
    """Stride, pads (top, left, bottom, right) and dilation of a convolution or a pool; resolves `auto_pad`."""
    attrs = attributes(node)
    stride = tuple(attrs.get("strides", (1, 1)))
    dilation = tuple(attrs.get("dilations", (1, 1)))
    pads = list(attrs.get("pads", (0, 0, 0, 0)))
    mode = text(attrs.get("auto_pad", "NOTSET"))
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        size, out = reader.shape(node.input[0])[2:], reader.shape(node.output[0])[2:]
        for axis in (0, 1):
            total = max(0, (out[axis] - 1) * stride[axis] + (kernel[axis] - 1) * dilation[axis] + 1 - size[axis])
            small, large = total // 2, total - total // 2
            pads[axis], pads[axis + 2] = (small, large) if mode == "SAME_UPPER" else (large, small)
    elif mode == "VALID":
        pads = [0, 0, 0, 0]
    if any(p < 0 for p in pads):
        raise Refuse(f"negative padding {pads}")
    return (stride[0], stride[1]), pads, (dilation[0], dilation[1])


def image(reader: Reader, name: str) -> Value:
    """A run-time value with four axes."""
    value = reader.value(name)
    if len(value.shape) != 4:
        raise Refuse(f"'{name}' has {len(value.shape)} axes, not 4")
    return value


def new(
    reader: Reader, name: str, like: Value, channels: int | np.ndarray, height: int, width: int, blocks: int = 0
) -> Value:
    """A blocked value to be computed: `channels` of them in order, or in the slots given."""
    slots = np.arange(channels) if isinstance(channels, int) else channels
    blocks = blocks or blocks_of(int(slots.max()) + 1, element_of(reader.element).block)
    storage = Storage(name, like.storage.batch, height * width, blocks, slots, dtype=reader.element)
    return Value(name, reader.shape(name), storage, height, width)


def in_order(storage: Storage) -> bool:
    """Channels lie one after the other from the first slot on, in no more blocks than they need."""
    slots = storage.slots
    return (
        slots is not None
        and bool(np.array_equal(slots, np.arange(len(slots))))
        and storage.blocks == blocks_of(len(slots), storage.block)
    )


def identity(reader: Reader, node: onnx.NodeProto) -> None:
    """Identity and Dropout at inference."""
    if node.input[0] in reader.constants:
        reader.constants[node.output[0]] = reader.constants[node.input[0]]
        return
    reader.values[node.output[0]] = replace(reader.values[node.input[0]], name=node.output[0])
