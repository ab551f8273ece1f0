"""Quantized networks as other tools write them: onnxruntime's quantizer in both of its formats, and forms put together
by hand that it does not write. `files()` gives them by name, each with an input.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SHAPE = (1, 3, 14, 12)

NEAREST = {"mode": "nearest", "nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
"""The attributes of a Resize that repeats pixels."""


@dataclass(frozen=True)
class File:
    """A quantized network.

    Args:
        name: of its kind and parameters.
        floats: operators that cannot be integers in it, in order.
    """

    name: str
    model: onnx.ModelProto
    x: np.ndarray
    floats: tuple[str, ...] = ()


class Graph:
    """An ONNX graph, a node at a time, from an input ``x`` of `SHAPE`."""

    def __init__(self, seed: int = 0, opset: int = 18) -> None:
        self.random = np.random.default_rng(seed)
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.opset = opset

    def constant(self, array: Any, dtype: str = "float32") -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(array, dtype), name))
        return name

    def op(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> Any:
        domain = "com.microsoft" if kind.startswith("com.microsoft.") else ""
        kind = kind.rpartition(".")[2]
        names = [f"t{len(self.nodes)}_{index}" for index in range(outputs)]
        self.nodes.append(
            helper.make_node(kind, inputs, names, name=f"n{len(self.nodes)}_{kind}", domain=domain, **attributes)
        )
        return names[0] if outputs == 1 else names

    def normal(self, *shape: int) -> np.ndarray:
        return self.random.standard_normal(shape).astype(np.float32) / np.float32(np.sqrt(np.prod(shape[1:]) or 1))

    def model(self, *outputs: str, kind: int = TensorProto.FLOAT) -> onnx.ModelProto:
        given = [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)]
        taken = [helper.make_tensor_value_info(name, kind, None) for name in outputs]
        graph = helper.make_graph(self.nodes, "g", given, taken, self.constants)
        domains = [helper.make_opsetid("", self.opset)]
        if any(node.domain for node in self.nodes):
            domains.append(helper.make_opsetid("com.microsoft", 1))
        return helper.make_model(graph, opset_imports=domains, ir_version=8)

    # -- quantized pieces ---------------------------------------------------------------------------------------------
    def q(self, x: str, scale: float, zero: int = 0, dtype: str = "uint8") -> tuple[str, str, str]:
        """QuantizeLinear; its integers, scale and zero point."""
        numbers = self.constant(scale), self.constant(zero, dtype)
        return (self.op("QuantizeLinear", x, *numbers), *numbers)

    def qdq(self, x: str, scale: float, zero: int = 0, dtype: str = "uint8") -> str:
        name: str = self.op("DequantizeLinear", *self.q(x, scale, zero, dtype))
        return name

    def weight(
        self, *shape: int, axis: int | None = 0, dtype: str = "int8", zero: int = 0
    ) -> tuple[tuple[str, str, str], np.ndarray]:
        """Integers, scales and zero points of a weight, one an output on `axis` (None: one for all); and the scales."""
        real = self.normal(*shape)
        others = tuple(a for a in range(len(shape)) if a != axis)
        scale = np.abs(real).max(axis=others if axis is not None else None, keepdims=True).astype(np.float32) / 100
        integers = np.rint(real / scale) + zero
        flat = scale.reshape(-1 if axis is not None else ())
        zeros = np.full(flat.shape, zero)
        return (self.constant(integers, dtype), self.constant(flat), self.constant(zeros, dtype)), flat

    def conv(
        self, x: str, scale: float, channels: int, out: int, kernel: int = 3, bias: str = "exact", **how: Any
    ) -> str:
        """A convolution of dequantized integers of that scale; `bias` is exact, float, own (in a scale of its own) or none."""
        weight, scales = self.weight(out, channels // how.get("group", 1), kernel, kernel, **how.pop("weight", {}))
        axis = {"axis": 0} if scales.ndim else {}
        inputs = [x, self.op("DequantizeLinear", *weight, **axis)]
        real = self.normal(out, 1).reshape(-1)
        if bias == "float":
            inputs.append(self.constant(real))
        elif bias != "none":
            step = np.float32(scale) * scales if bias == "exact" else np.float32(0.001)
            numbers = self.constant(np.rint(real / step), "int32"), self.constant(step)
            inputs.append(self.op("DequantizeLinear", *numbers, **(axis if np.ndim(step) else {})))
        name: str = self.op("Conv", *inputs, pads=[kernel // 2] * 4, **how)
        return name

    def head(self, y: str, scale: float, channels: int) -> str:
        """Global average, flattened, and ten scores."""
        y = self.qdq(self.op("Flatten", self.qdq(self.op("GlobalAveragePool", y), scale / 2)), scale / 2)
        weight, _ = self.weight(10, channels)
        real = [self.op("DequantizeLinear", *weight, axis=0), self.constant(self.normal(10, 1).reshape(-1))]
        name: str = self.op("Gemm", y, *real, transB=1)
        return name


# -- by hand ------------------------------------------------------------------------------------------------------------


def biases() -> Iterator[File]:
    """A bias in float, in a scale of its own, and none."""
    for bias in ("exact", "float", "own", "none"):
        g = Graph(1)
        y = g.op("Relu", g.conv(g.qdq("x", 0.03, 120), 0.03, 3, 12, bias=bias))
        y = g.conv(g.qdq(y, 0.02), 0.02, 12, 20, 1, bias=bias)
        yield _file(f"bias-{bias}", g, g.head(g.qdq(y, 0.03, 131), 0.03, 20))


def weights() -> Iterator[File]:
    """Weights of either sign, with zero points, with one scale for all, that are quantized in the graph."""
    kinds: dict[str, dict[str, Any]] = {
        "uint8": {"dtype": "uint8", "zero": 128}, "shifted": {"dtype": "int8", "zero": 5}, "tensor": {"axis": None},
    }  # fmt: skip
    for name, how in kinds.items():
        g = Graph(2)
        y = g.qdq(g.conv(g.qdq("x", 0.03, 128), 0.03, 3, 8, weight=how), 0.03, 120)
        yield _file(f"weights-{name}", g, g.head(y, 0.03, 8))
    g = Graph(3)
    x = g.qdq("x", 0.03, 0, "int8")
    weight = g.qdq(g.constant(g.normal(8, 3, 3, 3)), 0.005, 0, "int8")
    y = g.qdq(g.op("Conv", x, weight, pads=[1] * 4), 0.02, -3, "int8")
    yield _file("weights-quantized-in-the-graph", g, g.head(y, 0.02, 8))
    g = Graph(4)
    x, weight = g.qdq("x", 0.03, 128), g.weight(3, 3, 3, 3)[0]
    shared = g.op("DequantizeLinear", *weight, axis=0)
    y = g.qdq(g.op("Relu", g.op("Conv", x, shared, pads=[1] * 4)), 0.02)
    y = g.qdq(g.op("Conv", y, shared, pads=[1] * 4), 0.02, 128)
    yield _file("weights-shared", g, g.head(y, 0.02, 3))
    for name, group in (("", 1), ("-grouped", 4), ("-depthwise", 16)):
        g = Graph(5)
        y = g.qdq(g.op("Conv", g.qdq("x", 0.03, 128), _wide(g, 16, 3, 3, 3), pads=[1] * 4), 0.05, 100)
        y = g.op("Conv", y, _wide(g, 16, 16 // group, 3, 3), pads=[1] * 4, strides=[2, 1], group=group)
        y = g.op("Flatten", g.qdq(g.op("GlobalAveragePool", g.qdq(y, 0.05, 128)), 0.05, 128))
        yield _file(f"weights-of-9-bits{name}", g, g.op("Gemm", g.qdq(y, 0.05, 128), _wide(g, 5, 16), transB=1))


def _wide(g: Graph, *shape: int) -> str:
    """Unsigned weights with a zero point far from the middle, some of them the largest."""
    wide, _ = g.weight(*shape, dtype="uint8", zero=20, axis=None)
    integers = numpy_helper.to_array(g.constants[-3]).copy()
    integers.reshape(-1)[::7] = 255
    g.constants[-3] = numpy_helper.from_array(integers, wide[0])
    name: str = g.op("DequantizeLinear", *wide)
    return name


def activations() -> Iterator[File]:
    """Q and DQ before and behind a Relu or a Clip, missing here and there, with other numbers on the way back."""
    for name in ("before", "behind", "both", "clip"):
        g = Graph(6)
        y = g.conv(g.qdq("x", 0.03, 128), 0.03, 3, 16)
        if name in ("before", "both"):
            y = g.qdq(y, 0.03, 140)
        clip = (g.constant([-0.5]), g.constant([1.5]))
        y = g.op("Clip", y, *clip) if name == "clip" else g.op("Relu", y)
        y = g.qdq(y, 0.02, 0 if name != "clip" else 30)
        yield _file(f"relu-{name}", g, g.head(y, 0.02, 16))
    g = Graph(7)
    y = g.op("Relu", g.conv(g.qdq("x", 0.03, 128), 0.03, 3, 16))  # no Q behind it
    y = g.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2])
    yield _file("missing", g, g.head(g.qdq(y, 0.02), 0.02, 16))
    for dtype, zero in (("uint8", 100), ("int8", 10)):
        g = Graph(8)
        stored, _, _ = g.q("x", 0.03, zero, dtype)
        x = g.op("DequantizeLinear", stored, g.constant(0.04), g.constant(zero - 7, dtype))
        stored, _, _ = g.q(g.conv(x, 0.04, 3, 16), 0.02, zero, dtype)
        y = g.op("DequantizeLinear", stored, g.constant(0.03), g.constant(zero + 3, dtype))
        yield _file(f"other-numbers-{dtype}", g, g.head(y, 0.03, 16))
    g = Graph(9)
    y = g.qdq(g.conv(g.qdq("x", 0.03, 128), 0.03, 3, 16), 0.03, 128)
    y = g.qdq(y, 0.06, 128)
    yield _file("twice", g, g.head(y, 0.06, 16))
    g = Graph(41)  # 0.31 lies between two numbers of the first scale, and not of the second
    y = g.qdq(g.conv(g.qdq("x", 0.03, 128), 0.03, 3, 16), 0.2, 128)
    y = g.qdq(g.op("Pad", y, g.constant([0, 0, 1, 1, 0, 0, 1, 1], "int64"), g.constant(0.31)), 0.01, 100)
    yield _file("padded", g, g.head(y, 0.01, 16), floats=("Pad",))
    g = Graph(10)
    y = g.qdq(g.conv(g.qdq("x", 0.03, 128), 0.03, 3, 16), 0.03, 128)
    y = g.qdq(g.op("Softplus", y), 0.02)
    y = g.qdq(g.op("Mul", y, g.op("Sigmoid", y)), 0.02)
    yield _file("gate", g, g.head(y, 0.02, 16))


def joins() -> Iterator[File]:
    """Concats and adds of scales of their own; of a constant; of other shapes."""
    g = Graph(11)
    x = g.qdq("x", 0.03, 128)
    parts = [g.qdq(g.conv(x, 0.03, 3, out), scale, zero) for out, scale, zero in ((10, 0.02, 128), (7, 0.05, 90))]
    yield _file("concat", g, g.head(g.qdq(g.op("Concat", *parts, axis=1), 0.04, 110), 0.04, 17))
    for scales in ((0.02, 0.05), (0.02, 0.04), (0.03, 0.03)):
        g = Graph(12)
        x = g.qdq("x", 0.03, 128)
        a, b = (g.qdq(g.conv(x, 0.03, 3, 16), scale, zero) for scale, zero in zip(scales, (128, 100), strict=True))
        yield _file(f"add-{scales[0]}-{scales[1]}", g, g.head(g.qdq(g.op("Relu", g.op("Add", a, b)), 0.04), 0.04, 16))
    for dtype, zero in (("uint8", 120), ("int8", 0)):
        g = Graph(35)  # the sum is rounded, what it is of is not
        y = g.qdq(g.conv(g.qdq("x", 0.03, zero, dtype), 0.03, 3, 16), 0.03, zero, dtype)
        z = g.op("Relu", g.op("Add", g.conv(y, 0.03, 16, 16), y))
        z = g.op("Add", z, g.conv(g.qdq(z, 0.05), 0.05, 16, 16)) if dtype == "int8" else z
        floats = ("Add", "Relu", "Add") if dtype == "int8" else ()
        yield _file(f"add-unrounded-{dtype}", g, g.head(g.qdq(z, 0.04), 0.04, 16), floats=floats)
    g = Graph(13)
    y = g.qdq(g.conv(g.qdq("x", 0.03, 128), 0.03, 3, 16), 0.03, 128)
    row, column = g.normal(1, 16, 1, 1), g.constant(0.01)
    added = g.op("DequantizeLinear", g.constant(np.rint(row * 100), "int8"), column)
    yield _file("add-a-constant", g, g.head(g.qdq(g.op("Add", y, added), 0.03, 128), 0.03, 16))
    g = Graph(14)
    y = g.qdq(g.conv(g.qdq("x", 0.03, 128), 0.03, 3, 16), 0.03, 128)
    mean = g.qdq(g.op("GlobalAveragePool", y), 0.01, 128)
    yield _file("add-a-mean", g, g.head(g.qdq(g.op("Add", y, mean), 0.03, 128), 0.03, 16), floats=("Add",))


def scaled() -> Iterator[File]:
    """What scales and shifts each channel, between integers: a batch norm that was left where it was."""
    for dtype, zero in (("uint8", 120), ("int8", -3)):
        g = Graph(36)  # behind a convolution, a depthwise one, a sum, a concat; before a sum
        y = g.qdq(g.conv(g.qdq("x", 0.03, zero, dtype), 0.03, 3, 16), 0.03, zero, dtype)
        y = g.qdq(g.op("Relu", _norm(g, y, 16)), 0.02, zero, dtype)
        d = g.qdq(g.conv(y, 0.02, 16, 16, group=16), 0.02, zero, dtype)
        d = g.qdq(g.op("Clip", _norm(g, d, 16), g.constant(-0.5), g.constant(1.5)), 0.015, zero, dtype)
        z = g.qdq(_norm(g, g.qdq(g.conv(d, 0.015, 16, 16, 1), 0.02, zero, dtype), 16), 0.03, zero, dtype)
        y = g.qdq(g.op("Relu", g.op("Add", z, y)), 0.03, zero, dtype)
        y = g.qdq(g.op("Mul", y, g.constant(g.normal(16, 1, 1))), 0.01, zero, dtype)
        parts = [y, g.qdq(g.op("Sub", g.constant(g.normal(1, 16, 1, 1)), y), 0.01, zero, dtype)]
        y = g.qdq(g.op("Concat", *parts, axis=1), 0.01, zero, dtype)
        y = g.qdq(g.op("Relu", _norm(g, y, 32)), 0.02, zero, dtype)
        yield _file(f"norm-{dtype}", g, g.head(y, 0.02, 32))
    g = Graph(37)  # of one number for all channels after all; and one that leaves as float
    y = g.qdq(g.conv(g.qdq("x", 0.03, 128), 0.03, 3, 16), 0.03, 128)
    y = g.qdq(g.op("Mul", g.op("Add", y, g.constant(np.full((16, 1, 1), 0.25))), g.constant(0.5)), 0.02, 128)
    y = g.op("Mul", y, g.constant(g.normal(16, 1, 1)))
    yield _file("norm-left", g, g.head(y, 0.02, 16), floats=("Mul", "GlobalAveragePool"))


def by_channel() -> Iterator[File]:
    """Before depthwise convolutions a scale for each channel, as NNCF has them; and with zero points of their own."""
    for zeros, floats in (([0] * 16, ()), ([0] * 15 + [9], ("Mul", "Add", "Mul", "Add", "Conv", "Relu"))):
        g = Graph(38)
        y = g.op("Relu", g.conv(g.qdq("x", 0.03, 128), 0.03, 3, 16, bias="float"))
        numbers = g.constant(g.random.uniform(0.005, 0.02, 16)), g.constant(zeros, "uint8")
        y = g.op("DequantizeLinear", g.op("QuantizeLinear", y, *numbers, axis=1), *numbers, axis=1)
        y = g.qdq(g.op("Relu", g.conv(y, 0.01, 16, 16, group=16, bias="float")), 0.01)
        yield _file(f"by-channel-{zeros[-1]}", g, g.head(y, 0.01, 16), floats=floats)


def old() -> Iterator[File]:
    """Opset 10, in which a Clip and a Pad have attributes."""
    g = Graph(39, 10)
    y = g.op("Clip", g.conv(g.qdq("x", 0.03, 128), 0.03, 3, 16, weight={"axis": None}, bias="none"), min=-1.0, max=1.5)
    y = g.op("Dropout", g.op("Pad", g.qdq(y, 0.01, 100), pads=[0, 0, 1, 1, 0, 0, 1, 1], value=0.5), ratio=0.3)
    y = g.op("Flatten", g.op("GlobalAveragePool", g.qdq(y, 0.01, 100)))
    yield _file("old", g, y, floats=("Flatten",))


def _norm(g: Graph, y: str, channels: int) -> str:
    """BatchNormalization with numbers of which some are negative."""
    numbers = (g.normal(channels, 1).reshape(-1) for _ in range(3))
    name: str = g.op("BatchNormalization", y, *map(g.constant, numbers), g.constant(g.random.uniform(0.5, 2, channels)))
    return name


def linear() -> Iterator[File]:
    """Fully connected layers as Gemm and as MatMul, either way round, with and without a bias."""
    features = int(np.prod(SHAPE[1:]))
    for op, transposed in (("Gemm", 0), ("Gemm", 1), ("MatMul", 0), ("MatMulAdd", 0)):
        g = Graph(15)
        x = g.qdq(g.op("Flatten", "x"), 0.03, 128)
        shape, axis = ((9, features), 0) if transposed else ((features, 9), 1)
        weight = g.op("DequantizeLinear", *g.weight(*shape, axis=axis)[0], axis=axis)
        bias = g.constant(g.normal(9, 1).reshape(-1))
        if op == "Gemm":
            y = g.op("Gemm", x, weight, bias, transB=transposed, alpha=1.5)
        else:
            y = g.op("MatMul", x, weight)
            y = g.op("Add", y, bias) if op == "MatMulAdd" else y
        yield _file(f"linear-{op}-{transposed}", g, g.qdq(y, 0.05, 128), floats=("Flatten",))


def sixteen() -> Iterator[File]:
    """Activations of 16 bits, by ONNX's own operators and by onnxruntime's; beside those of 8."""
    yield from _by_either_domain()
    for dtype, zero in (("uint16", 31000), ("int16", -700)):
        for name, make in (("sums", _sums), ("joins", _joins), ("moves", _moves), ("dense", _dense), ("long", _long)):
            g = Graph(17, 21)
            yield _file(f"16-bits-{name}-{dtype}", g, make(g, dtype, zero))


def _sums(g: Graph, dtype: str, zero: int) -> str:
    """Convolutions from 8 bits to 16, 16 to 16 and 16 to 8: plain, with padding, in groups, depthwise, with a batch norm
    and a sum behind them.
    """
    y = g.qdq(g.conv(g.qdq("x", 0.03, 120), 0.03, 3, 16), 0.0002, zero, dtype)
    y = g.qdq(g.op("Relu", g.conv(y, 0.0002, 16, 32, strides=[2, 1])), 0.0001, 0, dtype)
    z = g.qdq(g.conv(y, 0.0001, 32, 32, group=2), 0.0001, zero, dtype)
    clip = (g.constant([-0.5]), g.constant([1.5]))
    z = g.qdq(g.op("Clip", g.conv(z, 0.0001, 32, 32, group=32), *clip), 0.0001, zero, dtype)
    z = g.qdq(_norm(g, g.qdq(g.conv(z, 0.0001, 32, 32, 1), 0.0002, zero, dtype), 32), 0.02, 128)
    z = g.qdq(g.op("Add", g.qdq(g.conv(z, 0.02, 32, 32, 1), 0.02, 128), y), 0.0002, zero, dtype)
    z = g.qdq(g.op("Relu", g.op("Add", g.conv(z, 0.0002, 32, 32, 1, bias="float"), y)), 0.02)
    return g.head(z, 0.02, 32)


def _joins(g: Graph, dtype: str, zero: int) -> str:
    """Sums, products and concats of 8 and 16 bits, tables of each to each, pools of 16."""
    x = g.qdq("x", 0.0002, zero, dtype)
    wide = g.qdq(g.conv(x, 0.0002, 3, 16), 0.0002, zero, dtype)
    narrow = g.qdq(g.conv(x, 0.0002, 3, 16), 0.02, 110)
    y = g.qdq(g.op("Add", wide, narrow), 0.0003, zero, dtype)
    y = g.qdq(g.op("Mul", y, wide), 0.0003, zero, dtype)
    y = g.qdq(
        g.op("Mul", y, g.qdq(g.op("Sigmoid", g.qdq(g.op("GlobalAveragePool", y), 0.01, 90)), 0.00002, 0, dtype)),
        0.02,
        128,
    )
    y = g.qdq(
        g.op("Concat", y, wide, g.qdq(g.op("LeakyRelu", wide, alpha=0.1), 0.0002, zero, dtype), axis=1),
        0.0003,
        zero,
        dtype,
    )
    y = g.qdq(g.op("AveragePool", y, kernel_shape=[3, 3], pads=[1, 0, 1, 1]), 0.0003, zero, dtype)
    y = g.qdq(g.op("MaxPool", y, kernel_shape=[2, 2], strides=[2, 2]), 0.0003, zero, dtype)
    return g.head(g.qdq(g.op("Tanh", y), 0.01, 128), 0.01, 48)


def _moves(g: Graph, dtype: str, zero: int) -> str:
    """Numbers of 16 bits in other places; then the same in 8 bits, and in 16 again."""

    def again(y: str) -> str:
        return g.qdq(y, 0.0002, zero, dtype)

    y = again(g.conv(again("x"), 0.0002, 3, 20))
    y = again(g.op("Pad", y, g.constant([0, 0, 1, 0, 0, 0, 0, 2], "int64"), g.constant(0.5)))
    left, right = g.op("Split", y, g.constant([9, 11], "int64"), outputs=2, axis=1)
    y = again(g.op("Concat", again(right), again(left), axis=1))
    y = again(g.op("Gather", y, g.constant([19, 2, 2, 7, 11, 3, 0, 1, 5], "int64"), axis=1))
    y = g.op("Resize", y, "", g.constant([1, 1, 2, 2]), **NEAREST)
    y = again(g.qdq(again(y), 0.02, 120))
    return g.head(g.qdq(g.conv(y, 0.0002, 9, 12), 0.03, 128), 0.03, 12)


def _dense(g: Graph, dtype: str, zero: int) -> str:
    """A fully connected layer of a flattened map of 16 bits, and one behind it."""
    y = g.qdq(g.conv(g.qdq("x", 0.03, 128), 0.03, 3, 5, strides=[3, 3]), 0.0002, zero, dtype)
    weight, _ = g.weight(12, 100)
    y = g.op("Gemm", g.op("Flatten", y), g.op("DequantizeLinear", *weight, axis=0), transB=1)
    weight, _ = g.weight(12, 5, axis=None)
    y = g.op("MatMul", g.qdq(g.op("Relu", y), 0.0001, 0, dtype), g.op("DequantizeLinear", *weight))
    return str(y)


def _long(g: Graph, dtype: str, zero: int) -> str:
    """Sums that 32 bits do not hold, over many input blocks, with and without padding."""
    y = g.qdq(g.conv(g.qdq("x", 0.03, 128), 0.03, 3, 400, 1), 0.03, 128)
    y = g.qdq(g.op("Abs", y), 0.00004, 0, dtype)
    parts = []
    for kernel in (1, 3):
        weight, scale = np.full((24, 400, kernel, kernel), 127), np.float32(1 / (400 * 127 * kernel**2))
        weight[1::2] = -128
        weight[:, ::3] = 100
        stored = [g.constant(weight, "int8"), g.constant(scale), g.constant(0, "int8")]
        inputs = [y, g.op("DequantizeLinear", *stored), g.constant(g.normal(24, 1).reshape(-1))]
        z = g.op("Conv", *inputs, pads=[kernel // 2] * 4, strides=[3, 3])
        parts.append(g.qdq(z, 0.00006, zero, dtype))
    return g.head(g.qdq(g.op("Concat", *parts, axis=1), 0.02, 120), 0.02, 48)


def _by_either_domain() -> Iterator[File]:
    """By onnxruntime's operators where ONNX's own are too old."""
    for domain, opset in (("", 21), ("com.microsoft.", 18), ("com.microsoft.", 13)):
        g = Graph(16, opset)

        def pair(y: str, scale: float, zero: int, g: Graph = g, domain: str = domain) -> str:
            numbers = g.constant(scale), g.constant(zero, "uint16")
            stored = g.op(f"{domain}QuantizeLinear", y, *numbers)
            name: str = g.op(f"{domain}DequantizeLinear", stored, *numbers)
            return name

        y = g.conv(pair("x", 0.0002, 30000), 0.0002, 3, 8, bias="float")
        y = g.op("GlobalAveragePool", pair(g.op("Relu", y), 0.0001, 0))
        yield _file(f"16-bits-{opset}", g, g.op("Flatten", y), floats=None)


def two_inputs(*, quantized: bool) -> onnx.ModelProto:
    """A network of ``x`` and ``z``, alike in shape, as QDQ or in float."""
    g, parts = Graph(40), []
    for name in ("x", "z"):
        if quantized:
            parts.append(g.qdq(g.op("Relu", g.conv(g.qdq(name, 0.03, 128), 0.03, 3, 16)), 0.02))
        else:
            parts.append(g.op("Conv", name, g.constant(g.normal(16, 3, 3, 3))))
    y = g.op("Concat", *parts, axis=1)
    y = g.head(g.qdq(y, 0.02), 0.02, 32) if quantized else g.op("Flatten", g.op("GlobalAveragePool", y))
    model = g.model(y)
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, SHAPE))
    return model


# -- operators on integers ---------------------------------------------------------------------------------------------


def operators() -> Iterator[File]:
    """QLinearConv with what stands around it, for each of onnxruntime's operators on integers."""
    for kind in (
        "QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu", "QLinearConcat", "QLinearAveragePool", "MaxPool",
        "Clip", "Pad", "Transpose", "Slice", "Cast", "QLinearSoftmax",
    ):  # fmt: skip
        for dtype, zero in (("uint8", 128), ("int8", -4)):
            yield _operator(kind, dtype, zero)


def _operator(kind: str, dtype: str, zero: int) -> File:
    g = Graph(17, 13)

    def numbers(scale: float, zero: int) -> tuple[str, str]:
        return g.constant(scale), g.constant(zero, dtype)

    x = g.q("x", 0.03, zero, dtype)
    weight, scales = g.weight(16, 3, 3, 3)
    bias = g.constant(np.rint(g.normal(16, 1).reshape(-1) / (np.float32(0.03) * scales)), "int32")
    y = (g.op("QLinearConv", *x, *weight, *(how := numbers(0.03, zero)), bias, pads=[1] * 4), *how)
    to, channels, floats = numbers(0.02, zero), 16, ()
    if kind in ("QLinearAdd", "QLinearMul"):
        z = g.op(f"com.microsoft.{kind}", *y, *y, *to)
    elif kind == "QLinearConcat":
        z, channels = g.op("com.microsoft.QLinearConcat", *to, *y, *y, axis=1), 32
    elif kind == "QLinearAveragePool":
        z = g.op("com.microsoft.QLinearAveragePool", *y, *to, kernel_shape=[3, 3], pads=[1] * 4)
    elif kind in ("QLinearSigmoid", "QLinearLeakyRelu"):
        z = g.op(f"com.microsoft.{kind}", *y, *to, **({"alpha": 0.2} if "Leaky" in kind else {}))
    elif kind == "QLinearSoftmax":
        z, floats = g.op("com.microsoft.QLinearSoftmax", *y, *to, axis=1, opset=13), ("Softmax",)
    else:
        to = how
        if kind == "MaxPool":
            z = g.op("MaxPool", y[0], kernel_shape=[3, 3], pads=[1] * 4)
        elif kind == "Clip":
            z = g.op("Clip", y[0], g.constant(zero - 20, dtype), g.constant(zero + 90, dtype))
        elif kind == "Pad":
            z = g.op("Pad", y[0], g.constant([0, 0, 1, 2, 0, 0, 2, 1], "int64"))
        elif kind == "Transpose":
            z = g.op("Transpose", y[0], perm=[0, 1, 3, 2])
        elif kind == "Slice":
            z, channels = g.op("Slice", y[0], *(g.constant([i], "int64") for i in (2, 12, 1))), 10
        else:
            real = g.op("Cast", y[0], to=TensorProto.FLOAT)
            z = g.op("QuantizeLinear", g.op("Relu", real), *(to := (g.constant(1.0), g.constant(0, dtype))))
    mean = g.op("com.microsoft.QLinearGlobalAveragePool", z, *to, *to)
    flat = g.op("Flatten", mean)
    gemm, _ = g.weight(5, channels)
    out = numbers(0.05, zero)
    scores = g.op("com.microsoft.QGemm", flat, *to, *gemm, "", *out, transB=1)
    return _file(f"{kind}-{dtype}", g, g.op("DequantizeLinear", scores, *out), floats=floats)


def integers() -> Iterator[File]:
    """ConvInteger and MatMulInteger: of static numbers, and of those that DynamicQuantizeLinear finds as it goes."""
    for dynamic in (False, True):
        g = Graph(18, 13)
        weight, scales = g.weight(12, 3, 3, 3, axis=None)
        if dynamic:
            x, scale, zero = g.op("DynamicQuantizeLinear", "x", outputs=3)
            scale = g.op("Mul", scale, g.constant(scales))
        else:
            x, _, zero = g.q("x", 0.03, 117)
            scale = g.constant(np.float32(0.03) * scales)
        acc = g.op("ConvInteger", x, weight[0], zero, weight[2], pads=[1] * 4, strides=[2, 2])
        y = g.op("Relu", g.op("Mul", g.op("Cast", acc, to=TensorProto.FLOAT), scale))
        y = g.op("Flatten", g.op("GlobalAveragePool", y))
        weight, scales = g.weight(12, 7, axis=None)
        if dynamic:
            y, scale, zero = g.op("DynamicQuantizeLinear", y, outputs=3)
            acc = g.op("MatMulInteger", y, weight[0], zero, weight[2])
            y = g.op("Mul", g.op("Cast", acc, to=TensorProto.FLOAT), g.op("Mul", scale, g.constant(scales)))
        yield _file(f"integers-{'dynamic' if dynamic else 'static'}", g, y, floats=None)


def outputs() -> Iterator[File]:
    """A network whose scores leave as bytes."""
    for dtype, zero in (("uint8", 128), ("int8", -4)):
        g = Graph(19)
        y = g.qdq(g.conv(g.qdq("x", 0.03, zero, dtype), 0.03, 3, 12), 0.03, zero, dtype)
        kind = TensorProto.UINT8 if dtype == "uint8" else TensorProto.INT8
        stored, _, _ = g.q(g.head(y, 0.03, 12), 0.02, zero, dtype)
        yield _file(f"bytes-out-{dtype}", g, stored, kind=kind, floats=("Cast",))


# -- by onnxruntime's quantizer ----------------------------------------------------------------------------------------


def by_onnxruntime() -> Iterator[File]:
    """`quantize_static` in both formats, for the types it has; `quantize_dynamic`."""
    from onnxruntime.quantization import QuantFormat, QuantType

    static = [
        (form, activation, weight, channel)
        for form in (QuantFormat.QDQ, QuantFormat.QOperator)
        for activation, weight in (
            (QuantType.QUInt8, QuantType.QInt8), (QuantType.QInt8, QuantType.QInt8), (QuantType.QUInt8, QuantType.QUInt8),
        )
        for channel in (False, True)
    ]  # fmt: skip
    static += [(QuantFormat.QDQ, wide, QuantType.QInt8, True) for wide in (QuantType.QInt16, QuantType.QUInt16)]
    for form, activation, weight, channel in static:
        yield _quantized(
            f"ort-{form.name}-{activation.name}-{weight.name}-{'channel' if channel else 'tensor'}",
            {"quant_format": form, "activation_type": activation, "weight_type": weight, "per_channel": channel},
        )
    for contrib in (False, True):
        how = {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
        options = {"TensorQuantOverrides": _mixed(), "UseQDQContribOps": contrib}
        yield _quantized(f"ort-mixed-QUInt8-QInt8-{contrib}", {**how, "per_channel": True, "extra_options": options})
    yield _quantized("ort-dynamic", None)


def float_network() -> onnx.ModelProto:
    """A small network with most of what a CNN has."""
    g = Graph(20)

    def conv(y: str, channels: int, out: int, kernel: int = 3, **how: Any) -> str:
        weight = g.constant(g.normal(out, channels // how.get("group", 1), kernel, kernel))
        made: str = g.op("Conv", y, weight, g.constant(g.normal(out, 1).reshape(-1) / 4), pads=[kernel // 2] * 4, **how)
        return made

    y = g.op("Relu", conv("x", 3, 16, strides=[2, 2]))
    d = g.op("Clip", conv(y, 16, 16, group=16), g.constant(0.0), g.constant(6.0))
    d = conv(d, 16, 16, 1)
    y = g.op("Relu", g.op("Add", y, d))
    parts = [
        g.op("MaxPool", y, kernel_shape=[3, 3], pads=[1] * 4),
        g.op("AveragePool", y, kernel_shape=[3, 3], pads=[1] * 4),
        g.op("LeakyRelu", conv(y, 16, 9, 1), alpha=0.1),
        g.op("Sigmoid", conv(y, 16, 7, 1)),
    ]
    y = g.op("Relu", conv(g.op("Concat", *parts, axis=1), 48, 24))
    y = g.op("Flatten", g.op("GlobalAveragePool", y))
    return g.model(g.op("Gemm", y, g.constant(g.normal(10, 24)), g.constant(g.normal(10, 1).reshape(-1)), transB=1))


def _mixed() -> dict[str, Any]:
    """Two tensors of 16 bits, with conversions where operators of 8 bits read or make them."""
    from onnxruntime.quantization import QuantType
    from onnxruntime.quantization.execution_providers.qnn import mixed_precision_overrides_utils as utils
    from onnxruntime.quantization.tensor_quant_overrides import TensorQuantOverridesHelper

    model = onnx.shape_inference.infer_shapes(float_network())
    wide = {model.graph.node[number].output[0]: [{"quant_type": QuantType.QUInt16}] for number in (1, 4)}
    overrides = TensorQuantOverridesHelper(wide)
    utils.MixedPrecisionTensorQuantOverridesFixer.create_from_model(overrides, model, QuantType.QUInt8).apply(
        QuantType.QUInt8, False
    )
    found: dict[str, Any] = overrides.get_dict()
    return found


def _quantized(name: str, how: dict[str, Any] | None) -> File:
    from onnxruntime import quantization

    class Pictures(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.left = [np.random.default_rng(i).standard_normal(SHAPE).astype(np.float32) for i in range(4)]

        def get_next(self) -> dict[str, np.ndarray] | None:
            return {"x": self.left.pop()} if self.left else None

    logging.getLogger().setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder:
        given, made = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(onnx.shape_inference.infer_shapes(float_network()), str(given))
        if how is None:
            quantization.quantize_dynamic(given, made, weight_type=quantization.QuantType.QUInt8)
        else:
            quantization.quantize_static(given, made, Pictures(), **how)
        return File(name, onnx.load(str(made)), _picture(), floats=None)


def _file(
    name: str, g: Graph, output: str, *, floats: tuple[str, ...] | None = (), kind: int = TensorProto.FLOAT
) -> File:
    return File(name, g.model(output, kind=kind), _picture(), floats)


def _picture() -> np.ndarray:
    return np.random.default_rng(100).standard_normal(SHAPE).astype(np.float32)


def by_other_tools() -> Iterator[File]:
    """What `other_tools.py` wrote. Their gates and their hard swish are not quantized where they begin."""
    gate = ("GlobalAveragePool", "Conv", "Relu", "Conv", "Sigmoid", "Mul", "HardSwish")
    floats = {"pt2e-x86": ("Sigmoid", "Mul", "HardSwish", "GlobalAveragePool")}
    floats |= dict.fromkeys(("nncf-mixed", "nncf-performance"), ("Concat", "MaxPool", *gate))
    for path in sorted((Path(__file__).parent / "data").glob("*.onnx")):
        model = onnx.load(path)
        size = [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
        x = np.random.default_rng(100).standard_normal(size).astype(np.float32)
        yield File(path.stem, model, x, floats[path.stem])


KINDS: tuple[Callable[[], Iterator[File]], ...] = (
    biases, weights, activations, joins, scaled, by_channel, old, linear, sixteen, operators, integers, outputs, by_other_tools, by_onnxruntime,
)  # fmt: skip


def files() -> Iterator[File]:
    """All of them."""
    for kind in KINDS:
        yield from kind()
