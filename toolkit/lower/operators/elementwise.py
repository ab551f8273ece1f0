"""One value at a time: activations, sums, products; into the layer before where its epilogue can take them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import onnx

from ...kernels.elements import BLOCK
from ...kernels.spec import PARTIAL, Conv, Map, Softmax, Window, WindowOp
from ..layers import Layer, Param, Storage, Value
from ..reader import Reader, Refuse
from .common import attributes, identity, text

INF = math.inf


def open_epilogue(reader: Reader, name: str, *, add: bool) -> Layer | None:
    """The layer that computes `name`, if nobody else sees that value and its epilogue can still take an add or a
    clamp.
    """
    if name not in reader.values or not reader.private(name):
        return None
    layer = reader.producer.get(reader.values[name].storage)
    if layer is None or layer.value != name:
        return None
    spec = layer.spec
    if spec.quantized:
        return None
    if isinstance(spec, Conv):
        return layer if spec.activation is None and not (add and spec.add) else None
    if isinstance(spec, Window) and not add:
        return layer if spec.activation is None else None
    if isinstance(spec, Map) and not add:
        return layer if spec.second == "tensor" and not spec.constants else None
    return None


def rename(reader: Reader, layer: Layer, node: onnx.NodeProto, old: str) -> None:
    """The layer now computes the node's output."""
    value = reader.values[old]
    layer.nodes.append(node.name)
    layer.value = layer.output.name = node.output[0]
    reader.values[node.output[0]] = Value(
        node.output[0], reader.shape(node.output[0]), value.storage, value.height, value.width
    )


def activation(
    bounds: Callable[[Reader, onnx.NodeProto], tuple[float, float]],
) -> Callable[[Reader, onnx.NodeProto], None]:
    """A handler for an operator that clamps: into the epilogue where it can go, else a pass of its own."""

    def handler(reader: Reader, node: onnx.NodeProto) -> None:
        low, high = bounds(reader, node)
        layer = open_epilogue(reader, node.input[0], add=False)
        if layer is None:
            unary("clip", lambda _reader, _node: (low, high))(reader, node)
            return
        spec = layer.spec
        layer.spec = spec.told(**{"constants" if isinstance(spec, Map) else "activation": (low, high)})
        rename(reader, layer, node, node.input[0])

    return handler


def clip_bounds(reader: Reader, node: onnx.NodeProto) -> tuple[float, float]:
    """Clip's bounds, from inputs or attributes."""
    attrs = attributes(node)
    low, high = attrs.get("min", -INF), attrs.get("max", INF)
    if len(node.input) > 1 and node.input[1]:
        low = float(reader.constant(node.input[1], "the lower bound").reshape(()))
    if len(node.input) > 2 and node.input[2]:
        high = float(reader.constant(node.input[2], "the upper bound").reshape(()))
    return low, high


def flat(op: str, value: Value, second: str = "none", constants: tuple[float, ...] = ()) -> Map | None:
    """A plain tensor of whole blocks of 16 elements as one a `Map` can walk; None for other sizes."""
    size = value.storage.batch * value.storage.elements
    if value.storage.blocked or size % BLOCK:
        return None
    chunks = size // BLOCK
    blocks = next(b for b in range(min(64, chunks), 0, -1) if chunks % b == 0)
    return Map(op, 1, blocks, chunks // blocks, second, constants)


def whole(op: str, value: Value) -> None:
    """Refuse an operator that is not defined everywhere on a value that is padded."""
    storage = value.storage
    if op in PARTIAL and storage.slots is not None and len(storage.slots) != storage.blocks * storage.block:
        raise Refuse(f"{op} of the zeros that pad {len(storage.slots)} channels is not finite")


def mapped(
    reader: Reader, node: onnx.NodeProto, spec: Map, value: Value, operands: list[tuple[Storage, str] | Param]
) -> None:
    """A `Map` layer: its result lies as `value` does."""
    source, name = value.storage, node.output[0]
    storage = Storage(name, source.batch, source.pixels, source.blocks, source.slots, dtype=source.dtype)
    reader.emit(spec.op, [node.name], spec, [(source, "in_stride"), *operands], storage, name)
    reader.values[name] = Value(name, reader.shape(name), storage, value.height, value.width)


def unary(
    op: str, constants: Callable[[Reader, onnx.NodeProto], tuple[float, ...]]
) -> Callable[[Reader, onnx.NodeProto], None]:
    """A handler for an elementwise operator of one operand."""

    def handler(reader: Reader, node: onnx.NodeProto) -> None:
        emit_unary(reader, node, op, constants(reader, node), reader.value(node.input[0]))

    return handler


def simple(op: str) -> Callable[[Reader, onnx.NodeProto], None]:
    """A handler for an elementwise operator of one operand that has no numbers."""
    return unary(op, lambda _reader, _node: ())


def emit_unary(reader: Reader, node: onnx.NodeProto, op: str, numbers: tuple[float, ...], value: Value) -> None:
    """An elementwise layer of one operand."""
    spec = flat(op, value, constants=numbers)
    if spec is None:
        value = reader.blocked(value)
        whole(op, value)
        spec = Map(op, value.storage.batch, value.storage.blocks, value.storage.pixels, constants=numbers)
    mapped(reader, node, spec, value, [])


def binary(op: str) -> Callable[[Reader, onnx.NodeProto], None]:
    """A handler for an elementwise operator of two: tensors of one shape, a value a channel, or a number."""

    def handler(reader: Reader, node: onnx.NodeProto) -> None:
        if len(node.input) != 2:
            in_turn(reader, node, handler)
            return
        left, right = node.input
        if left in reader.constants and op in ("add", "mul", "max", "min"):
            left, right = right, left
        if left in reader.constants:
            constant_first(reader, node, op)
            return
        value = reader.value(left)
        if right in reader.constants:
            constant_operand(reader, node, op, value, reader.constants[right])
            return
        other = reader.value(right)
        if other.shape == value.shape:
            if not (op == "add" and fuse_add(reader, node)) and not (op == "mul" and fuse_gate(reader, node)):
                two_tensors(reader, node, op, value, other)
            return
        if op in ("add", "mul", "max", "min") and len(value.shape) == 4 and value.shape[2:] == (1, 1):
            value, other = other, value
        if len(other.shape) != 4 or other.shape != (*value.shape[:2], 1, 1):
            raise Refuse(f"shapes {value.shape} and {other.shape} are neither equal nor a map and one value a channel")
        value = reader.blocked(value)
        whole(op, value)
        assert value.storage.slots is not None
        other = reader.with_slots(other, value.storage.slots)
        emit_binary(reader, node, op, value, "channel", (other.storage, "second_stride"))

    return handler


def in_turn(reader: Reader, node: onnx.NodeProto, handler: Callable[[Reader, onnx.NodeProto], None]) -> None:
    """An operator of any number of operands, two at a time."""
    if len(node.input) == 1:
        identity(reader, node)
        return
    name = node.input[0]
    shape = reader.shape(name)
    for index, right in enumerate(node.input[1:], 2):
        pair = onnx.NodeProto()
        pair.CopyFrom(node)
        out = node.output[0] if index == len(node.input) else f"{node.output[0]}:{index}"
        shape = tuple(np.broadcast_shapes(shape, reader.shape(right)))
        if out != node.output[0]:
            reader.declare(out, reader.elem_type(node.input[0]), shape)
            reader.uses[out] = 1
        pair.input[:], pair.output[:] = [name, right], [out]
        handler(reader, pair)
        name = out


def emit_binary(
    reader: Reader, node: onnx.NodeProto, op: str, value: Value, second: str, operand: tuple[Storage, str] | Param
) -> None:
    """An elementwise layer of two operands, the first one blocked."""
    source = value.storage
    mapped(reader, node, Map(op, source.batch, source.blocks, source.pixels, second), value, [operand])


NUMBER: dict[str, Callable[[float], tuple[str, tuple[float, ...]]]] = {
    "add": lambda c: ("affine", (1.0, c)),
    "sub": lambda c: ("affine", (1.0, -c)),
    "mul": lambda c: ("affine", (c, 0.0)),
    "div": lambda c: ("affine", (1.0 / c, 0.0)),
    "max": lambda c: ("clip", (c, INF)),
    "min": lambda c: ("clip", (-INF, c)),
    "prelu": lambda c: ("leaky_relu", (c,)),
}
"""An operator of two operands, the second a number, as one of one operand."""


def constant_operand(reader: Reader, node: onnx.NodeProto, op: str, value: Value, constant: np.ndarray) -> None:
    """Second operand a number, or one value a channel."""
    shape = value.shape
    if reader.shape(node.output[0]) != shape:
        raise Refuse(f"a constant of shape {constant.shape} makes {shape} larger")
    if not np.all(np.isfinite(constant)) or (op == "div" and not np.all(constant)):
        raise Refuse("the constant has zeros to divide by, or infinities")
    if constant.size == 1:
        emit_unary(reader, node, *NUMBER[op](float(constant.reshape(()))), value)
        return
    full = (1,) * (len(shape) - constant.ndim) + constant.shape
    flattened = value.storage.blocked and value.storage.pixels != value.height * value.width
    if len(shape) not in (2, 4) or flattened or any(d != 1 for i, d in enumerate(full) if i != 1):
        raise Refuse(f"a constant of shape {constant.shape} is not one value a channel of {shape}")
    per_channel = np.broadcast_to(constant.reshape(-1), (shape[1],)).astype(np.float32)
    if op == "div":
        op, per_channel = "mul", 1.0 / per_channel
    if fuse_channels(reader, node, op, per_channel) or fuse_average(reader, node, op, per_channel):
        return
    value = reader.blocked(value)
    emit_binary(reader, node, op, value, "channel", Param("channel", per_channel))


def fuse_channels(reader: Reader, node: onnx.NodeProto, op: str, numbers: np.ndarray) -> bool:
    """A value a channel goes into the weights of the convolution before it: added to its bias, or multiplied with
    both.
    """
    name = next(name for name in node.input if name not in reader.constants)
    layer = open_epilogue(reader, name, add=True)
    if op not in ("add", "mul") or layer is None or not isinstance(layer.spec, Conv):
        return False
    source, weight, bias = layer.operands
    assert isinstance(weight, Param)
    assert isinstance(bias, Param)
    if weight.role not in ("weight", "dense") or len(weight.array) != len(numbers):
        return False
    if op == "add":
        layer.operands = [source, weight, Param(bias.role, bias.array + numbers)]
    else:
        column = numbers.reshape(-1, *(1,) * (weight.array.ndim - 1))
        scaled = Param(weight.role, weight.array * column)
        layer.operands = [source, scaled, Param(bias.role, bias.array * numbers)]
    rename(reader, layer, node, name)
    return True


def fuse_average(reader: Reader, node: onnx.NodeProto, op: str, numbers: np.ndarray) -> bool:
    """A value a channel behind an average of whole windows, as a pool has that changed places with its 1x1 convolution
    (`graph.branch`): a depthwise convolution with equal weights, which has a bias and bounds.
    """
    name = next(name for name in node.input if name not in reader.constants)
    layer = open_epilogue(reader, name, add=False)
    spec = layer.spec if layer is not None else None
    if op not in ("add", "mul") or layer is None or not isinstance(spec, Window) or not _uniform(spec):
        return False
    factor, summand = (numbers, np.zeros_like(numbers)) if op == "mul" else (np.ones_like(numbers), numbers)
    share = factor / math.prod(spec.kernel)
    weight = np.broadcast_to(share[:, None, None, None], (len(numbers), 1, *spec.kernel))
    layer.spec = replace(spec, op=WindowOp.DEPTHWISE, include_pad=False)
    layer.operands += [Param("weight", weight), Param("bias", summand)]
    rename(reader, layer, node, name)
    return True


def _uniform(spec: Window) -> bool:
    """An average every window of which counts the same number of elements."""
    (top, left, bottom, right), (rows, columns), (down, across) = spec.pad, spec.kernel, spec.stride
    # beyond the padding nothing counts
    below = (spec.out_height - 1) * down + rows <= top + spec.height + bottom
    beside = (spec.out_width - 1) * across + columns <= left + spec.width + right
    return spec.op is WindowOp.AVERAGE and (spec.include_pad or not any(spec.pad)) and below and beside


def constant_first(reader: Reader, node: onnx.NodeProto, op: str) -> None:
    """A number minus a tensor; one over a tensor."""
    constant = reader.constants[node.input[0]]
    value = reader.value(node.input[1])
    if constant.size != 1 or reader.shape(node.output[0]) != value.shape:
        raise Refuse("the first operand is a constant of several values")
    number = float(constant.reshape(()))
    if op == "sub":
        emit_unary(reader, node, "affine", (-1.0, number), value)
    elif op == "div" and number == 1.0:
        emit_unary(reader, node, "reciprocal", (), value)
    else:
        raise Refuse("the first operand is a constant")


def two_tensors(reader: Reader, node: onnx.NodeProto, op: str, value: Value, other: Value) -> None:
    """Both operands of one shape."""
    spec = flat(op, value, "tensor")
    if spec is not None and not other.storage.blocked:
        mapped(reader, node, spec, value, [(other.storage, "second_stride")])
        return
    value = reader.blocked(value)
    whole(op, value)
    assert value.storage.slots is not None
    other = reader.with_slots(other, value.storage.slots)
    if other.storage.pixels != value.storage.pixels:
        raise Refuse("the operands are flattened maps of different shapes")
    emit_binary(reader, node, op, value, "tensor", (other.storage, "second_stride"))


def power(reader: Reader, node: onnx.NodeProto) -> None:
    """Pow with the exponents 1, 2 and 1/2."""
    exponent = reader.constant(node.input[1], "the exponent")
    value = reader.value(node.input[0])
    op = (
        {1.0: "identity", 2.0: "square", 0.5: "sqrt"}.get(float(exponent.reshape(-1)[0]))
        if exponent.size == 1
        else None
    )
    if op is None or reader.shape(node.output[0]) != value.shape:
        raise Refuse("the exponent is neither 1, 2 nor 1/2")
    emit_unary(reader, node, op, (), value)


def gelu(reader: Reader, node: onnx.NodeProto) -> None:
    """Gelu, exact or with tanh."""
    approximate = text(attributes(node).get("approximate", "none"))
    emit_unary(reader, node, "gelu_tanh" if approximate == "tanh" else "gelu", (), reader.value(node.input[0]))


def softmax(reader: Reader, node: onnx.NodeProto) -> None:
    """Softmax over the last axis (or one with nothing but 1s behind it), on plain memory."""
    value = reader.value(node.input[0])
    axis = attributes(node).get("axis", -1 if reader.opsets[""] >= 13 else 1) % len(value.shape)
    behind = math.prod(value.shape[axis + 1 :])
    if behind != 1 and reader.opsets[""] >= 13:
        raise Refuse(f"axis {axis} of {len(value.shape)} is not the last")
    length = value.shape[axis] * behind  # before opset 13 all axes from `axis` on are one
    source = reader.planar(value).storage
    size = source.batch * source.elements
    storage = Storage(node.output[0], source.batch, source.pixels)
    reader.emit("softmax", [node.name], Softmax(size // length, length), [(source, "")], storage, node.output[0])
    reader.values[node.output[0]] = Value(node.output[0], value.shape, storage)


GATES = {"sigmoid": "silu", "hard_sigmoid": "hard_swish"}
"""x * op(x) as one operator."""


def fuse_gate(reader: Reader, node: onnx.NodeProto) -> bool:
    """x * sigmoid(x) becomes one layer, where nothing else reads the sigmoid."""
    for mine, theirs in (tuple(node.input), tuple(node.input)[::-1]):
        layer = reader.producer.get(reader.values[mine].storage)
        if layer is None or layer.value != mine or not reader.private(mine) or not isinstance(layer.spec, Map):
            continue
        op = GATES.get(layer.spec.op)
        if op is None or layer.reads != [reader.values[theirs].storage]:
            continue
        if op == "hard_swish" and not np.allclose(layer.spec.constants, (1 / 6, 0.5)):
            continue
        layer.spec, layer.op = replace(layer.spec, op=op, constants=()), op
        rename(reader, layer, node, mine)
        return True
    return False


def fuse_add(reader: Reader, node: onnx.NodeProto) -> bool:
    """A residual add goes into the epilogue of the convolution on one of its sides; its channels then lie as the
    other side's.
    """
    sides = (node.input[0], node.input[1]), (node.input[1], node.input[0])
    for mine, theirs in sides:
        layer = open_epilogue(reader, mine, add=True)
        if layer is None or mine == theirs or not isinstance(layer.spec, Conv):
            continue
        addend = reader.blocked(reader.values[theirs])
        storage = layer.output
        assert storage.slots is not None
        assert addend.storage.slots is not None
        if addend.storage.pixels != storage.pixels:
            continue
        if not np.array_equal(storage.slots, addend.storage.slots):
            if layer.spec.groups > 1:
                continue
            storage.slots, storage.blocks = addend.storage.slots, addend.storage.blocks
            layer.spec = replace(layer.spec, out_channels=storage.blocks * storage.block)
        layer.spec = replace(layer.spec, add=True)
        layer.operands.append((addend.storage, "add_stride"))
        rename(reader, layer, node, mine)
        reader.last(layer)
        return True
    return False
