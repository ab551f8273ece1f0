"""How each ONNX operator becomes a layer: one handler an operator, all in the table `OPS` at the end."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx

from ..kernels.spec import BLOCK, PARTIAL, Conv, GlobalAverage, Map, Softmax, Window, WindowOp, block_of
from .network import Layer, Param, Storage, Value
from .reader import Reader, Refuse, blocks_of

INF = math.inf


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """The node's attributes as Python values."""
    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def window(
    reader: Reader, node: onnx.NodeProto, kernel: tuple[int, int]
) -> tuple[tuple[int, int], list[int], tuple[int, int]]:
    """Stride, pads (top, left, bottom, right) and dilation of a convolution or a pool; resolves `auto_pad`."""
    attrs = attributes(node)
    stride = tuple(attrs.get("strides", (1, 1)))
    dilation = tuple(attrs.get("dilations", (1, 1)))
    pads = list(attrs.get("pads", (0, 0, 0, 0)))
    mode = _text(attrs.get("auto_pad", "NOTSET"))
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
    blocks = blocks or blocks_of(int(slots.max()) + 1, block_of(reader.element))
    storage = Storage(name, like.storage.batch, height * width, blocks, slots, dtype=reader.element)
    return Value(name, reader.shape(name), storage, height, width)


def identity_slots(value: Value) -> bool:
    """Channels lie in order with no gaps, and no more blocks than they need."""
    slots = value.storage.slots
    return (
        slots is not None
        and bool(np.array_equal(slots, np.arange(len(slots))))
        and value.storage.blocks == blocks_of(len(slots), value.storage.block)
    )


# -- convolution -----------------------------------------------------------------------------------------------------
def conv(reader: Reader, node: onnx.NodeProto) -> None:
    """Conv: direct, grouped (groups narrower than a block are joined into block-diagonal ones) or depthwise."""
    value = image(reader, node.input[0])
    weight = reader.constant(node.input[1], "the weight").astype(np.float32)
    bias = (
        reader.constant(node.input[2], "the bias") if len(node.input) > 2 and node.input[2] else np.zeros(len(weight))
    )
    groups = attributes(node).get("group", 1)
    out, _, rows, columns = weight.shape
    stride, pads, dilation = window(reader, node, (rows, columns))
    channels = value.shape[1]
    out_height, out_width = reader.shape(node.output[0])[2:]
    macs = value.shape[0] * out * out_height * out_width * weight[0].size
    params: list[Any] = [Param("weight", weight), Param("bias", bias.astype(np.float32))]

    if groups == channels == out and groups > 1:
        value = reader.blocked(value)
        assert value.storage.slots is not None
        result = new(reader, node.output[0], value, value.storage.slots, out_height, out_width, value.storage.blocks)
        depthwise = Window(
            WindowOp.DEPTHWISE,
            value.storage.batch,
            value.storage.blocks,
            value.height,
            value.width,
            out_height,
            out_width,
            (rows, columns),
            stride,
            (pads[0], pads[1], pads[2], pads[3]),
            dilation,
            element=value.storage.dtype,
        )
        reader.emit(
            "depthwise",
            [node.name],
            depthwise,
            [(value.storage, "in_stride"), *params],
            result.storage,
            result.name,
            macs,
        )
        reader.values[result.name] = result
        return

    planar = not value.storage.blocked and channels < BLOCK and groups == 1
    if planar:
        height, width, physical = value.shape[2], value.shape[3], channels
    else:
        value = reader.blocked(value)
        height, width, physical = value.height, value.width, value.storage.blocks * value.storage.block
    kept = groups
    if groups > 1:
        block = value.storage.block
        kept, params[0] = join_groups(weight, groups, identity_slots(value) and out % block == 0, block)
    result = new(reader, node.output[0], value, out, out_height, out_width)
    spec = Conv(
        value.storage.batch,
        physical // kept,
        height,
        width,
        result.storage.blocks * result.storage.block,
        out_height,
        out_width,
        (rows, columns),
        stride,
        (pads[0], pads[1]),
        dilation,
        kept,
        planar,
    )
    reader.emit("conv", [node.name], spec, [(value.storage, "in_stride"), *params], result.storage, result.name, macs)
    reader.values[result.name] = result


def join_groups(weight: np.ndarray, groups: int, aligned: bool, block: int = BLOCK) -> tuple[int, Param]:
    """Groups joined until each is whole blocks wide: the new count, and the block-diagonal weight.

    Given: `[O, I, r, s]` with I the channels of one group. Result: `[O, m * I, r, s]`, zero where an output does not
    see an input. Where channels do not lie in order (`aligned` is False) all groups become one.
    """
    out, channels, rows, columns = weight.shape
    join = groups
    if aligned:
        per = math.lcm(block // math.gcd(block, channels), block // math.gcd(block, out // groups))
        join = per if groups % per == 0 else groups
    wide = np.zeros((groups // join, join, out // groups, join, channels, rows, columns), np.float32)
    split = weight.reshape(groups // join, join, out // groups, channels, rows, columns)
    for i in range(join):
        wide[:, i, :, i] = split[:, i]
    return groups // join, Param("weight", wide.reshape(out, join * channels, rows, columns))


def dense(reader: Reader, name: str, node: onnx.NodeProto, weight: np.ndarray, bias: np.ndarray) -> None:
    """A fully connected layer, `weight` as `[O, K]`: a 1x1 convolution of a 1x1 map whose channels are all K values.

    A flattened NCHW16c map is read as it lies: its elements are the channels, `slots` says where each one is.
    """
    value = reader.value(name)
    if len(value.shape) != 2:
        raise Refuse(f"'{name}' has {len(value.shape)} axes, not 2")
    value = reader.blocked(value)
    source = value.storage
    assert source.slots is not None
    out = len(weight)
    result = new(reader, node.output[0], value, out, 1, 1)
    wide = flat_weight(weight, source)
    spec = Conv(source.batch, source.elements, 1, 1, result.storage.blocks * result.storage.block, 1, 1, (1, 1))
    reader.emit(
        "dense",
        [node.name],
        spec,
        [(source, "in_stride"), Param("dense", wide[:, :, None, None]), Param("bias", bias.astype(np.float32))],
        result.storage,
        result.name,
        source.batch * weight.size,
    )
    reader.values[result.name] = result


def flat_weight(weight: np.ndarray, source: Storage) -> np.ndarray:
    """The columns of a weight `[O, K]` moved to where each element of a flattened map lies: `[O, elements]`."""
    assert source.slots is not None
    # element (c, pixel) lies at (slot // block, pixel, slot % block)
    slots, block = source.slots.astype(np.int64), source.block
    at = (slots // block * source.pixels * block + slots % block)[:, None] + np.arange(source.pixels)[None, :] * block
    wide = np.zeros((len(weight), source.elements), weight.dtype)
    wide[:, at.reshape(-1)] = weight
    return wide


def gemm(reader: Reader, node: onnx.NodeProto) -> None:
    """Gemm with a constant weight and bias."""
    attrs = attributes(node)
    if attrs.get("transA", 0):
        raise Refuse("transA is set")
    weight = reader.constant(node.input[1], "the weight").astype(np.float32) * attrs.get("alpha", 1.0)
    weight = weight if attrs.get("transB", 0) else weight.T
    bias = np.zeros(len(weight), np.float32)
    if len(node.input) > 2 and node.input[2]:
        given = reader.constant(node.input[2], "the bias").astype(np.float32) * attrs.get("beta", 1.0)
        if given.size not in (1, len(weight)) or (given.size > 1 and given.shape[-1] == 1):
            raise Refuse(f"a bias of shape {given.shape} is not one value an output")
        bias = np.broadcast_to(given.reshape(-1), (len(weight),))
    dense(reader, node.input[0], node, weight, bias)


def matmul(reader: Reader, node: onnx.NodeProto) -> None:
    """MatMul of a (N, K) value with a constant (K, O)."""
    weight = reader.constant(node.input[1], "the second operand").astype(np.float32)
    if weight.ndim != 2:
        raise Refuse(f"the second operand has {weight.ndim} axes, not 2")
    dense(reader, node.input[0], node, weight.T, np.zeros(weight.shape[1], np.float32))


# -- epilogues -------------------------------------------------------------------------------------------------------
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
        layer.spec = (
            replace(spec, constants=(low, high)) if isinstance(spec, Map) else replace(spec, activation=(low, high))
        )
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
    second = next((o[0].dtype for o in operands if not isinstance(o, Param)), "float32")
    spec = replace(spec, element=source.dtype, second_element=second)
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
    value = reader.blocked(value)
    per_channel = np.broadcast_to(constant.reshape(-1), (shape[1],)).astype(np.float32)
    if op == "div":
        op, per_channel = "mul", 1.0 / per_channel
    emit_binary(reader, node, op, value, "channel", Param("channel", per_channel))


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
    approximate = _text(attributes(node).get("approximate", "none"))
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


# -- pools -----------------------------------------------------------------------------------------------------------
def pool(op: WindowOp) -> Callable[[Reader, onnx.NodeProto], None]:
    """MaxPool and AveragePool."""

    def handler(reader: Reader, node: onnx.NodeProto) -> None:
        if len([o for o in node.output if o]) > 1 and reader.uses[node.output[1]]:
            raise Refuse("the indices of the maxima are used")
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
    spec = replace(spec, element=value.storage.dtype)
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


# -- structure -------------------------------------------------------------------------------------------------------
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
    """A channel shuffle, (N, a, b, H, W) to (N, b, a, H, W), renames the channels and moves nothing."""
    value = reader.value(node.input[0])
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

    A map keeps its blocked layout when all is flattened, (N, C, H, W) to (N, C*H*W), and when its channels get more
    axes or fewer.
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
        storage = reader.planar(value).storage
    elements = storage.batch * storage.elements
    batch = shape[0] if shape and elements else 1
    if batch != storage.batch:
        storage = Storage(node.output[0], batch, elements // batch, parent=storage, dtype=storage.dtype)
    reader.values[node.output[0]] = Value(node.output[0], shape, storage)


def identity(reader: Reader, node: onnx.NodeProto) -> None:
    """Identity and Dropout at inference."""
    if node.input[0] in reader.constants:
        reader.constants[node.output[0]] = reader.constants[node.input[0]]
        return
    reader.values[node.output[0]] = replace(reader.values[node.input[0]], name=node.output[0])


OPS: dict[str, Callable[[Reader, onnx.NodeProto], None]] = {
    "Abs": simple("abs"),
    "Add": binary("add"),
    "AveragePool": pool(WindowOp.AVERAGE),
    "Clip": activation(clip_bounds),
    "Concat": concat,
    "Conv": conv,
    "Div": binary("div"),
    "Dropout": identity,
    "Elu": unary("elu", lambda _r, n: (attributes(n).get("alpha", 1.0),)),
    "Erf": simple("erf"),
    "Exp": simple("exp"),
    "Flatten": view,
    "Gather": gather,
    "Gelu": gelu,
    "Gemm": gemm,
    "GlobalAveragePool": global_average,
    "GlobalMaxPool": global_max,
    "HardSigmoid": unary(
        "hard_sigmoid", lambda _r, n: (attributes(n).get("alpha", 0.2), attributes(n).get("beta", 0.5))
    ),
    "HardSwish": simple("hard_swish"),
    "Identity": identity,
    "LeakyRelu": unary("leaky_relu", lambda _r, n: (attributes(n).get("alpha", 0.01),)),
    "Log": simple("log"),
    "MatMul": matmul,
    "Max": binary("max"),
    "MaxPool": pool(WindowOp.MAX),
    "Min": binary("min"),
    "Mish": simple("mish"),
    "Mul": binary("mul"),
    "Neg": unary("affine", lambda _r, _n: (-1.0, 0.0)),
    "PRelu": binary("prelu"),
    "Pow": power,
    "Reciprocal": simple("reciprocal"),
    "ReduceMax": reduce_map(global_max),
    "ReduceMean": reduce_map(global_average),
    "Relu": activation(lambda _r, _n: (0.0, INF)),
    "Reshape": view,
    "Selu": unary("selu", lambda _r, n: (attributes(n).get("alpha", 1.6732632), attributes(n).get("gamma", 1.0507010))),
    "Shape": shape_of,
    "Sigmoid": simple("sigmoid"),
    "Slice": slice_,
    "Softmax": softmax,
    "Softplus": simple("softplus"),
    "Split": split,
    "Sqrt": simple("sqrt"),
    "Squeeze": view,
    "Sub": binary("sub"),
    "Sum": binary("add"),
    "Tanh": simple("tanh"),
    "Transpose": transpose,
    "Unsqueeze": view,
}
"""ONNX operator to its handler; all others take TVM's default."""
