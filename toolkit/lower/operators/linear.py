"""Conv, Gemm and MatMul as layers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx

from ...kernels.elements import BLOCK
from ...kernels.spec import Conv, Window, WindowOp
from ..layers import Param, Storage
from ..reader import Reader, Refuse
from .common import attributes, identity_slots, image, new, window


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
