"""What joins, cuts and renames channels and moves nothing: Concat, Split, Reshape and their like."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import onnx

from ..layers import Storage, Value
from ..reader import Reader, Refuse, blocks_of
from .common import attributes
from .linear import turns


def concat(reader: Reader, node: onnx.NodeProto) -> None:
    """Concat of channels moves nothing: each branch writes its slice of the result. What cannot is copied there.

    Parts that are all of an earlier concat, in its order, go in as that one (DenseNet joins the same tensors again
    and again).
    """
    shape = reader.shape(node.output[0])
    axis = attributes(node)["axis"] % len(shape)
    if axis != 1 or len(shape) not in (2, 4):
        raise Refuse(f"joins axis {axis} of {len(shape)}, not the channels")
    values = [reader.value(name) for name in node.input]
    if any(v.storage.blocked and v.storage.pixels != v.height * v.width for v in values):
        raise Refuse("a part is a flattened map")
    join(reader, node.output[0], shape, [reader.blocked(v) for v in values])


def join(reader: Reader, name: str, shape: tuple[int, ...], values: list[Value]) -> None:
    """Make the value `name`: the channels of blocked values of one size, one after the other."""
    first = values[0]
    parts = _whole_concats(reader, [v.storage for v in values])
    placed: list[Storage] = []
    for part in parts:
        if part.parent is not None or part.port is not None or part in placed:
            part = reader.copy(Value(part.name, first.shape, part, first.height, first.width)).storage
        placed.append(part)
    starts = np.cumsum([0, *(part.blocks for part in placed)])
    slots = [
        part.slots + start * part.block for part, start in zip(placed, starts, strict=False) if part.slots is not None
    ]
    storage = replace(first.storage, name=name, blocks=int(starts[-1]), slots=np.concatenate(slots), parent=None)
    for part, start in zip(placed, starts, strict=False):
        part.parent, part.parent_block = storage, int(start)
    reader.parts[storage] = [leaf for part in placed for leaf in reader.parts.get(part, [part])]
    reader.values[name] = Value(name, shape, storage, first.height, first.width)


def _whole_concats(reader: Reader, storages: list[Storage]) -> list[Storage]:
    """Runs of storages that make up a whole concat, replaced by it."""
    found: list[Storage] = []
    index = 0
    while index < len(storages):
        storage = storages[index]
        run = reader.parts.get(storage.root, [])
        if run and storages[index : index + len(run)] == run:
            found.append(storage.root)
            index += len(run)
        else:
            found.append(storage)
            index += 1
    return found


def channels_of(reader: Reader, node: onnx.NodeProto, name: str, indices: np.ndarray) -> None:
    """Some channels of a map, in any order, without moving them: the result has its own slots in the same memory.

    Lanes of its blocks that it does not name hold other channels: padding to whoever reads it. Where that would be
    most of them, the channels are moved together.
    """
    value = reader.value(node.input[0])
    if len(value.shape) not in (2, 4) or (value.storage.blocked and value.storage.pixels != value.height * value.width):
        raise Refuse(f"'{value.name}' is not a map of channels")
    if len(set(indices.tolist())) != len(indices) or not len(indices):
        raise Refuse("a channel is taken twice, or none")
    value = reader.blocked(value)
    source = value.storage
    assert source.slots is not None
    slots = source.slots[indices]
    block = source.block
    first, last = int(slots.min()) // block, int(slots.max()) // block
    slots = slots - first * block
    part = Storage(name, source.batch, source.pixels, last - first + 1, slots, source, first, dtype=source.dtype)
    result = Value(name, reader.shape(name), part, value.height, value.width)
    if part.blocks >= 2 * blocks_of(len(indices), block):
        result = reader.with_slots(result, np.arange(len(indices)))
    reader.values[name] = result


def split(reader: Reader, node: onnx.NodeProto) -> None:
    """Split of channels."""
    shape = reader.shape(node.input[0])
    axis = attributes(node).get("axis", 0) % len(shape)
    if axis != 1:
        raise Refuse(f"splits axis {axis} of {len(shape)}, not the channels")
    start = 0
    for name in node.output:
        size = reader.shape(name)[1]
        if reader.uses[name]:
            channels_of(reader, node, name, np.arange(start, start + size))
        start += size


def slice_(reader: Reader, node: onnx.NodeProto) -> None:
    """Slice of channels, with any step."""
    shape, out = reader.shape(node.input[0]), reader.shape(node.output[0])
    attrs = attributes(node)

    def numbers(position: int, name: str, default: list[int]) -> list[int]:
        if len(node.input) > position and node.input[position]:
            return [int(i) for i in reader.constant(node.input[position], f"'{name}'").reshape(-1)]
        return list(attrs.get(name, default))

    starts, ends = numbers(1, "starts", []), numbers(2, "ends", [])
    axes = [a % len(shape) for a in numbers(3, "axes", list(range(len(starts))))]
    cuts = {
        a: slice(s, e, p) for a, s, e, p in zip(axes, starts, ends, numbers(4, "steps", [1] * len(starts)), strict=True)
    }
    if any(out[a] != shape[a] or cut.step != 1 for a, cut in cuts.items() if a != 1) or 1 not in cuts:
        raise Refuse(f"cuts axes {sorted(cuts)}, not only the channels")
    start, end, step = cuts[1].start, cuts[1].stop, cuts[1].step
    stop = None if step < 0 and end < -shape[1] else end  # far below zero means: to the very first
    channels_of(reader, node, node.output[0], np.arange(shape[1])[start:stop:step])


def gather(reader: Reader, node: onnx.NodeProto) -> None:
    """Gather of channels by constant indices."""
    shape = reader.shape(node.input[0])
    indices = reader.constant(node.input[1], "the list of indices")
    if attributes(node).get("axis", 0) % len(shape) != 1 or indices.ndim != 1:
        raise Refuse("it gathers something else than channels")
    channels_of(reader, node, node.output[0], indices % shape[1])


def transpose(reader: Reader, node: onnx.NodeProto) -> None:
    """A channel shuffle, (N, a, b, H, W) to (N, b, a, H, W), renames the channels and moves nothing; nor does what
    turns a product's left matrices.
    """
    value = reader.value(node.input[0])
    if turns(reader, node):
        reader.turned[node.output[0]] = node.input[0]
        return
    storage = value.storage
    if list(attributes(node).get("perm", ())) != [0, 2, 1, 3, 4] or storage.slots is None:
        raise Refuse("it moves more than channels")
    order = np.arange(len(storage.slots)).reshape(value.shape[1:3]).T.reshape(-1)
    part = replace(storage, name=node.output[0], slots=storage.slots[order], parent=storage, parent_block=0, port=None)
    reader.values[node.output[0]] = Value(node.output[0], reader.shape(node.output[0]), part, value.height, value.width)


def shape_of(reader: Reader, node: onnx.NodeProto) -> None:
    """Shape: a constant, as every shape here."""
    shape = np.asarray(reader.shape(node.input[0]), np.int64)
    attrs = attributes(node)
    reader.constants[node.output[0]] = shape[attrs.get("start", 0) : attrs.get("end", len(shape))]


def view(reader: Reader, node: onnx.NodeProto) -> None:
    """Flatten, Reshape, Squeeze, Unsqueeze: no data moves.

    A map keeps its blocked layout when all is flattened, (N, C, H, W) to (N, C*H*W), when its channels get more axes or
    fewer, and when its pixels do: (N, C, H*W) and back.
    """
    if node.input[0] in reader.constants:
        raise Refuse(f"'{node.input[0]}' is a constant")
    value = reader.values[node.input[0]]
    shape = reader.shape(node.output[0])
    storage = value.storage
    if storage.blocked:
        channels = len(storage.slots if storage.slots is not None else ())
        if shape == (storage.batch, channels * storage.pixels):
            reader.values[node.output[0]] = Value(node.output[0], shape, storage)
            return
        size = (value.height, value.width)
        if (
            storage.pixels == math.prod(size)
            and len(shape) > 3
            and shape[0] == storage.batch
            and shape[-2:] == size
            and (math.prod(shape[1:-2]) == channels)
        ):
            reader.values[node.output[0]] = Value(node.output[0], shape, storage, *size)
            return
        if len(shape) in (3, 4) and shape[:2] == (storage.batch, channels) and math.prod(shape[2:]) == storage.pixels:
            reader.values[node.output[0]] = Value(node.output[0], shape, storage, shape[2], math.prod(shape[3:]))
            return
        storage = reader.planar(value).storage
    elements = storage.batch * storage.elements
    batch = shape[0] if shape and elements else 1
    if batch != storage.batch:
        storage = Storage(node.output[0], batch, elements // batch, parent=storage, dtype=storage.dtype)
    reader.values[node.output[0]] = Value(node.output[0], shape, storage)
