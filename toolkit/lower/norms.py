"""Normalization over pixels, and over groups of channels with them, on the map as it lies in blocks.

Given: InstanceNormalization of a map, or of one that was reshaped to (N, G, -1) for it and back: GroupNormalization as
PyTorch exports it. Result: of a map x of C channels of P pixels, G groups of them,

    mean[g] = mean over a group's channels of (mean over the pixels of x)
    d = x - mean[g]
    y = d * scale[g] / sqrt(mean over a group's channels of (|d|^2 / P) + epsilon) + bias[g]

in kernels of ours; what is left to TVM's default is as large as the number of channels.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper

from .default import extern
from .operators.common import attributes
from .reader import Reader, Refuse
from .table import OPS


def take(reader: Reader, node: onnx.NodeProto) -> bool:
    """Whether a node is such a normalization, or begins one; then all of it is computed."""
    norm, last = node, node
    if node.op_type == "Reshape":
        norm = reader.only_reader(node.output[0]) or node
        last = reader.only_reader(norm.output[0]) or node
    if norm.op_type != "InstanceNormalization" or norm.input[0] not in (node.input[0], node.output[0]):
        return False
    value = reader.values.get(node.input[0])
    if value is None or not value.storage.real or len(value.shape) != 4:
        return False
    groups = reader.shape(norm.output[0])[1]
    if norm is not node:
        begun = len(reader.shape(norm.output[0])) == 3 and value.shape[1] % groups == 0
        if not begun or last.op_type != "Reshape" or reader.shape(last.output[0]) != value.shape:
            return False
    if any(name not in reader.constants for name in norm.input[1:]):
        return False
    _Formula(reader, norm, groups).emit(node.input[0], last.output[0])
    reader.folded.update((norm.output[0], last.output[0]))
    return True


class _Formula:
    """Computes operator after operator, each by a kernel of ours where there is one."""

    def __init__(self, reader: Reader, norm: onnx.NodeProto, groups: int) -> None:
        self.reader, self.norm, self.groups, self.count = reader, norm, groups, 0

    def emit(self, x: str, y: str) -> None:
        """All of it: `x` to `y`."""
        reader, (scale, bias) = self.reader, (self.reader.constants[name] for name in self.norm.input[1:])
        shape = reader.shape(x)
        channel = (*shape[:2], 1, 1)
        epsilon = attributes(self.norm).get("epsilon", 1e-5)
        off = self("Sub", x, self.of_group(self.over("ReduceMean", x, (2, 3), channel), channel), shape=shape)
        length = self.over("ReduceL2", off, (2, 3), channel)
        square = self("Mul", length, length, shape=channel)
        variance = self("Mul", square, self.constant(1 / (shape[2] * shape[3])), shape=channel)
        variance = self.of_group(variance, channel)
        deviation = self("Sqrt", self("Add", variance, self.constant(epsilon), shape=channel), shape=channel)
        each = [np.repeat(numbers, shape[1] // self.groups).reshape(1, -1, 1, 1) for numbers in (scale, bias)]
        factor = self("Reciprocal", deviation, shape=channel)
        if not np.all(each[0] == 1):
            factor = self("Mul", factor, self.constant(each[0]), shape=channel)
        if np.any(each[1]):
            scaled = self("Mul", off, factor, shape=shape)
            self("Add", scaled, self.constant(each[1]), shape=shape, out=y)
        else:
            self("Mul", off, factor, shape=shape, out=y)

    def of_group(self, numbers: str, shape: tuple[int, ...]) -> str:
        """The mean of one number a channel over each group's channels, for every channel."""
        n, channels = shape[:2]
        if self.groups == channels:
            return numbers
        apart = (n, self.groups, channels // self.groups)
        numbers = self("Reshape", numbers, self.constant(apart, np.int64), shape=apart)
        numbers = self.over("ReduceMean", numbers, (2,), (n, self.groups, 1))
        numbers = self("Expand", numbers, self.constant(apart, np.int64), shape=apart)
        return self("Reshape", numbers, self.constant(shape, np.int64), shape=shape)

    def over(self, op: str, name: str, axes: tuple[int, ...], shape: tuple[int, ...]) -> str:
        """A reduction that keeps its axes."""
        if self.reader.opsets[""] < 18:
            return self(op, name, shape=shape, axes=axes, keepdims=1)
        return self(op, name, self.constant(axes, np.int64), shape=shape, keepdims=1)

    def constant(self, values: Any, dtype: type = np.float32) -> str:
        """A constant by name."""
        name = self._name("constant")
        self.reader.constants[name] = np.asarray(values, dtype)
        return name

    def __call__(self, op: str, *inputs: str, shape: tuple[int, ...], out: str = "", **attrs: Any) -> str:
        """The value that an operator gives, computed."""
        reader, out = self.reader, out or self._name(op.lower())
        if out not in reader.types:
            reader.declare(out, onnx.TensorProto.FLOAT, shape)
            reader.uses[out] = 2  # nothing is fused into what these kernels read again
        node = helper.make_node(op, inputs, [out], self._name(op.lower()), **attrs)
        try:
            if op not in OPS:
                raise Refuse(f"there is no kernel of ours for {op}")
            OPS[op](reader, node)
        except Refuse as refuse:
            extern(reader, node, str(refuse))
        return out

    def _name(self, what: str) -> str:
        self.count += 1
        return f"{self.norm.name or self.norm.output[0]}:{what}{self.count}"
