"""Conv, Gemm and MatMul as layers."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import onnx

from ...kernels.elements import BLOCK
from ...kernels.spec import Conv, MatrixProduct, WindowOp
from ..layers import Param, Storage, Value
from ..numbers import Numbers, reals
from ..reader import Reader, Refuse, blocks_of
from .common import attributes, image, in_order, window
from .pool import emit_window, windowed


def conv(reader: Reader, node: onnx.NodeProto) -> None:
    """Conv: direct, grouped (groups narrower than a block are joined into block-diagonal ones) or depthwise."""
    value = image(reader, node.input[0])
    weight = reader.constant(node.input[1], "the weight").astype(np.float32)
    bias = (
        reader.constant(node.input[2], "the bias") if len(node.input) > 2 and node.input[2] else np.zeros(len(weight))
    )
    few = value.shape[1] if not value.storage.blocked and value.shape[1] < BLOCK else 0
    if not few or attributes(node).get("group", 1) > 1:
        value, few = reader.blocked(value), 0
    emit_conv(reader, node, value, weight, reals(reader, node, bias), few)


def emit_conv(
    reader: Reader, node: onnx.NodeProto, value: Value, weight: np.ndarray, numbers: Numbers, few: int = 0
) -> None:
    """A convolution in any numbers.

    Args:
        value: the input, blocked unless it has `few` channels.
        weight: `[O, I / groups, r, s]`.
        few: channels of an input that is not blocked; how they lie is the kernel's own affair.
    """
    groups = attributes(node).get("group", 1)
    source, (out, _, rows, columns) = value.storage, weight.shape
    stride, pads, dilation = window(reader, node, (rows, columns))
    out_height, out_width = reader.shape(node.output[0])[2:]
    macs = value.shape[0] * out * out_height * out_width * weight[0].size
    if groups == value.shape[1] == out and groups > 1:
        spec = windowed(
            WindowOp.DEPTHWISE, value, (out_height, out_width), (rows, columns), stride, pads, dilation, numbers
        )
        emit_window(reader, value, spec, [Param("weight", weight)], numbers, weight, macs)
        return
    kept, diagonal, param = groups, (0, 0), Param("weight", weight)
    if groups > 1:
        aligned = in_order(source)
        kept, param = join_groups(weight, groups, aligned, source.block)
        if aligned and kept < groups:
            diagonal = (out // groups, weight.shape[1])
    result = numbers.storage(source, out, out_height * out_width)
    height, width = value.shape[2:] if few else (value.height, value.width)
    conv = Conv(
        source.batch,
        (few or source.blocks * source.block) // kept,
        height,
        width,
        result.blocks * result.block,
        out_height,
        out_width,
        (rows, columns),
        stride,
        (pads[0], pads[1]),
        dilation,
        kept,
        bool(few),
        **numbers.fields,
    )
    if not conv.quantized:
        conv = replace(conv, diagonal=diagonal)
    conv, operands = numbers.behind(conv, weight)
    numbers.emit(reader, "conv", conv, source, [param, *operands], result, (out_height, out_width), macs)


def join_groups(weight: np.ndarray, groups: int, aligned: bool, block: int = BLOCK) -> tuple[int, Param]:
    """Groups joined until each is whole blocks wide: the new count, and the block-diagonal weight.

    Given: `[O, I, r, s]` with I the channels of one group. Result: `[O, m * I, r, s]`, zero where an output does not
    see an input; the last group may have fewer than m. All groups become one where channels do not lie in order
    (`aligned` is False), or m groups at a time would not lie in the blocks that the channels fill.
    """
    out, channels, rows, columns = weight.shape
    each, join = out // groups, groups
    if aligned:
        per = math.lcm(block // math.gcd(block, channels), block // math.gcd(block, each))
        kept = -(-groups // per)
        if all(kept * per * size == blocks_of(groups * size, block) * block for size in (channels, each)):
            join = min(per, groups)
    kept = -(-groups // join)
    split = np.zeros((kept * join, each, channels, rows, columns), np.float32)
    split[:groups] = weight.reshape(groups, each, channels, rows, columns)
    split = split.reshape(kept, join, each, channels, rows, columns)
    wide = np.zeros((kept, join, each, join, channels, rows, columns), np.float32)
    for i in range(join):
        wide[:, i, :, i] = split[:, i]
    return kept, Param("weight", wide.reshape(-1, join * channels, rows, columns)[:out])


def dense(reader: Reader, name: str, node: onnx.NodeProto, weight: np.ndarray, bias: np.ndarray) -> None:
    """A fully connected layer, `weight` as `[O, K]`: a 1x1 convolution of a 1x1 map whose channels are all K values.

    A flattened NCHW16c map is read as it lies: its elements are the channels, `slots` says where each one is.
    """
    value = reader.value(name)
    if len(value.shape) != 2:
        raise Refuse(f"'{name}' has {len(value.shape)} axes, not 2")
    emit_dense(reader, reader.blocked(value).storage, weight, reals(reader, node, bias))


def emit_dense(reader: Reader, source: Storage, weight: np.ndarray, numbers: Numbers) -> None:
    """A fully connected layer in any numbers, of a flattened map as it lies; `weight` is `[O, K]`."""
    result = numbers.storage(source, len(weight), 1)
    size = (source.batch, source.elements, 1, 1, result.blocks * result.block, 1, 1, (1, 1))
    spec, operands = numbers.behind(Conv(*size, **numbers.fields), weight[:, :, None, None])
    wide = Param("dense", flat_weight(weight, source)[:, :, None, None])
    numbers.emit(reader, "dense", spec, source, [wide, *operands], result, (1, 1), source.batch * weight.size)


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


def product_of(reader: Reader, node: onnx.NodeProto) -> MatrixProduct:
    """What a MatMul of two values computes; refuses other axes than those of matrices side by side, or one for all."""
    left, right = (reader.shape(name) for name in node.input)
    if min(len(left), len(right)) < 2:
        raise Refuse("an operand is a vector")
    (*outer, rows, depth), (*others, _, columns) = left, right
    if outer == others:
        return MatrixProduct(math.prod(outer), rows, depth, columns)
    if math.prod(others) == 1 and len(others) <= len(outer):
        return MatrixProduct(1, math.prod(outer) * rows, depth, columns)
    raise Refuse(f"the axes before the matrices' are {outer} and {others}")


def product(reader: Reader, node: onnx.NodeProto) -> None:
    """MatMul of two values, on plain memory."""
    spec = product_of(reader, node)
    turned = reader.turned.get(node.input[0])
    sources = [(reader.planar(reader.value(name)).storage, "") for name in (turned or node.input[0], node.input[1])]
    shape = reader.shape(node.output[0])
    storage = Storage(node.output[0], shape[0], math.prod(shape[1:]))
    spec = replace(spec, turned=turned is not None)
    reader.emit("product", [node.name], spec, [*sources], storage, node.output[0], spec.macs)
    reader.values[node.output[0]] = Value(node.output[0], shape, storage)


def turns(reader: Reader, node: onnx.NodeProto) -> bool:
    """Whether a Transpose only turns the left matrices of a product of ours, which reads them either way."""
    behind, axes = reader.only_reader(node.output[0]), len(reader.shape(node.input[0]))
    turn = [*range(axes - 2), axes - 1, axes - 2]
    if behind is None or behind.op_type != "MatMul" or list(attributes(node).get("perm", ())) != turn:
        return False
    if behind.input[0] != node.output[0] or behind.input[1] in reader.constants:
        return False
    try:
        return product_of(reader, behind).count == math.prod(reader.shape(node.input[0])[:-2])
    except Refuse:
        return False


def matmul(reader: Reader, node: onnx.NodeProto) -> None:
    """MatMul of a (N, K) value with a constant (K, O), or of two values."""
    if not any(name in reader.constants for name in node.input):
        product(reader, node)
        return
    weight = reader.constant(node.input[1], "the second operand").astype(np.float32)
    if weight.ndim != 2:
        raise Refuse(f"the second operand has {weight.ndim} axes, not 2")
    dense(reader, node.input[0], node, weight.T, np.zeros(weight.shape[1], np.float32))
