"""Random networks of what a VTA computes: any kernel, stride, padding, dilation, groups, odd widths; to the bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from inception_deploy.quantize import quantize
from inception_deploy.quantize.scheme import Choices

from ...lower.conftest import Builder
from .test_target import exact

SCHEMES = ("power-of-two", "power-of-two-tensor")
CHOICES = (Choices(), Choices(add="accumulator", average="summed"))


class Random:
    """A network that grows, an operator at a time; one that the map has no room for is left out."""

    def __init__(self, seed: int) -> None:
        self.random, self.builder = np.random.default_rng(seed), Builder(seed)
        batch, channels = int(self.random.choice([1, 1, 2])), int(self.random.choice([1, 2, 3, 4, 5, 17]))
        self.shape = [batch, channels, self.upto(5, 24), self.upto(5, 24)]
        self.given = tuple(self.shape)
        self.last = self.builder.input(*self.shape)
        steps = [
            self.conv,
            self.conv,
            self.conv,
            self.depthwise,
            self.group,
            self.pool,
            self.bound,
            self.add,
            self.join,
        ]
        for _ in range(self.upto(2, 6)):
            steps[self.upto(0, len(steps))]()
        flat = self.builder.op("Flatten", self.last)
        weight = self.builder.weight(5, int(np.prod(self.shape[1:])))
        self.model = self.builder.model(self.builder.op("Gemm", flat, weight, self.builder.weight(5), transB=1))

    def upto(self, low: int, high: int) -> int:
        return int(self.random.integers(low, high))

    def grow(self, name: str) -> None:
        self.last = name
        model = onnx.shape_inference.infer_shapes(self.builder.model(name))
        self.shape = [dim.dim_value for dim in model.graph.output[0].type.tensor_type.shape.dim]

    def conv(self) -> None:
        size = self.shape[2:]
        kernel = (self.upto(1, min(6, size[0]) + 1), self.upto(1, min(6, size[1]) + 1))
        dilations = [self.upto(1, 3), self.upto(1, 3)] if self.upto(0, 5) == 0 else [1, 1]
        pads = [self.upto(0, k) for k in (*kernel, *kernel)]
        reach = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
        if all(n + a + b >= r for n, a, b, r in zip(size, pads[:2], pads[2:], reach, strict=True)):
            how = {"pads": pads, "strides": [self.upto(1, 4), self.upto(1, 4)], "dilations": dilations}
            out = int(self.random.choice([3, 16, 20, 33, 48]))
            self.grow(self.builder.conv(self.last, self.shape[1], out, kernel, **how))

    def depthwise(self) -> None:
        channels = self.shape[1]
        if channels > 1 and min(self.shape[2:]) > 2:
            how = {"pads": [1, 1, 1, 1], "strides": [self.upto(1, 3)] * 2}
            self.grow(self.builder.conv(self.last, channels, channels, group=channels, **how))

    def group(self) -> None:
        groups = [g for g in (2, 3, 4, 8, 16) if self.shape[1] % g == 0]
        if groups:
            group = int(self.random.choice(groups))
            out = group * int(self.random.choice([1, 4, 8, 16]))
            self.grow(self.builder.conv(self.last, self.shape[1], out, (1, 1), group=group))

    def pool(self) -> None:
        if min(self.shape[2:]) < 3:
            return self.grow(self.builder.op("GlobalAveragePool", self.last))
        kernel = [self.upto(1, 4), self.upto(1, 4)]
        pads = [self.upto(0, k) for k in kernel] * 2
        how = {"kernel_shape": kernel, "pads": pads, "strides": [self.upto(1, 3), self.upto(1, 3)]}
        if self.upto(0, 2):
            return self.grow(self.builder.op("MaxPool", self.last, **how))
        return self.grow(self.builder.op("AveragePool", self.last, count_include_pad=self.upto(0, 2), **how))

    def bound(self) -> None:
        if self.upto(0, 2):
            return self.grow(self.builder.op("Relu", self.last))
        low, high = self.builder.constant(-float(self.upto(0, 3))), self.builder.constant(float(self.upto(1, 4)))
        return self.grow(self.builder.op("Clip", self.last, low, high))

    def add(self) -> None:
        other = self.builder.conv(self.last, self.shape[1], self.shape[1], (1, 1))
        sides = (other, self.last) if self.upto(0, 2) else (self.last, other)
        self.grow(self.builder.op("Add", *sides))

    def join(self) -> None:
        other = self.builder.conv(self.last, self.shape[1], int(self.random.choice([5, 16, 24])), (1, 1))
        self.grow(self.builder.op("Concat", self.last, other, axis=1))


@pytest.mark.parametrize("seed", [*range(8), *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(8, 100))])
def test_random_network(seed: int, tmp_path: Path) -> None:
    made = Random(seed)
    pictures = made.random.standard_normal((6, *made.given[1:])).cumsum(-1).astype(np.float32) / 3
    how = {"scheme": SCHEMES[seed // 2 % 2], "method": "minmax", "choices": CHOICES[seed % 2]}
    quantized = quantize(made.model, pictures, **how).model
    for board in ("pynq", "de10nano"):
        (tmp_path / board).mkdir()
        assert not exact(quantized, pictures[: made.given[0]], board, tmp_path / board)
