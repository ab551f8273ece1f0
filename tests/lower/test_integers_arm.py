"""Integer kernels for ARM against `quantize.arith`: every bit of the output of a bundle's library, under an emulator of the
core that it was built for, which refuses the instructions of newer ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from inception_deploy import models, targets
from inception_deploy.graph.driver import optimise
from inception_deploy.lower.lower import lower
from inception_deploy.quantize import integer_network, quantize
from inception_deploy.quantize.scheme import SCHEMES
from inception_deploy.sources import capture

from ..cases.emulator import emulator, run_library
from .conftest import Builder

SIZE = (2, 3, 14, 13)

DOTS = {"cortex-a72": "smlal", "cortex-a76": "sdot", "cortex-a9": "vmlal.s16"}
"""Each kind of core, and what it multiplies with."""


def lenet(b: Builder, x: str) -> str:
    """Kernels of 5 x 5, average pools, tables, and fully connected layers."""
    y = b.op("Tanh", b.conv(x, 3, 6, (5, 5), pads=[2, 2, 2, 2]))
    y = b.op("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2])
    y = b.op("Tanh", b.conv(y, 6, 16, (5, 5)))
    y = b.op("Relu", b.op("Gemm", b.op("Flatten", y), b.weight(20, 16 * 3 * 2), b.weight(20), transB=1))
    return b.op("Gemm", y, b.weight(5, 20), b.weight(5), transB=1)


def inception(b: Builder, x: str) -> str:
    """A stem whose zero point is inside of its range, and a block of four branches behind it."""
    y = b.conv(x, 3, 24, pads=[1, 1, 1, 1], strides=[2, 2])
    one = b.op("Relu", b.conv(y, 24, 10, (1, 1)))
    three = b.op("Relu", b.conv(b.conv(y, 24, 16, (1, 1)), 16, 22, pads=[1, 1, 1, 1]))
    five = b.op("Relu", b.conv(b.conv(y, 24, 8, (1, 1)), 8, 16, (5, 5), pads=[2, 2, 2, 2]))
    pooled = b.op("MaxPool", y, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1])
    y = b.op("Concat", one, three, five, b.conv(pooled, 24, 16, (1, 1)), axis=1)
    return b.op("Gemm", b.op("Flatten", b.op("GlobalAveragePool", y)), b.weight(5, 64), b.weight(5), transB=1)


def mobile(b: Builder, x: str) -> str:
    """An inverted residual: expansion, depthwise, projection, and the add."""
    y = b.conv(x, 3, 16, pads=[1, 1, 1, 1], strides=[2, 2])
    up = b.op("Clip", b.conv(y, 16, 48, (1, 1)), b.constant(0.0), b.constant(6.0))
    deep = b.op("Clip", b.conv(up, 48, 48, group=48, pads=[1, 1, 1, 1]), b.constant(0.0), b.constant(6.0))
    y = b.op("Add", y, b.conv(deep, 48, 16, (1, 1)))
    y = b.op("Relu", b.conv(y, 16, 32, group=2, pads=[1, 1, 1, 1], strides=[2, 2]))
    return b.op("Gemm", b.op("Flatten", b.op("GlobalAveragePool", y)), b.weight(5, 32), b.weight(5), transB=1)


NETWORKS = (lenet, inception, mobile)

QUICK = {
    ("cortex-a72", inception, "float-scale"),
    ("cortex-a76", mobile, "float-scale"),
    ("cortex-a9", lenet, "power-of-two"),
}

CASES = [
    pytest.param(isa, make, scheme, marks=() if (isa, make, scheme) in QUICK else pytest.mark.slow)
    for isa in DOTS for make in NETWORKS for scheme in SCHEMES
]  # fmt: skip


@pytest.mark.parametrize(("isa", "make", "scheme"), CASES, ids=lambda value: getattr(value, "__name__", value))
def test_every_bit_is_the_references(
    isa: str, make: Callable[[Builder, str], str], scheme: str, tmp_path: Path
) -> None:
    b = Builder(3)
    model = b.model(make(b, b.input(*SIZE)))
    pictures = np.random.default_rng(1).standard_normal((16, *SIZE[1:])).cumsum(-1).astype(np.float32) / 4
    check(model, pictures, scheme, isa, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "isa", "scheme"),
    [("lenet5", "cortex-a72", "power-of-two"), ("googlenet", "cortex-a76", "float-scale"),
     ("mobilenet_v1", "cortex-a9", "float-scale")],
)  # fmt: skip
def test_networks_of_the_zoo(name: str, isa: str, scheme: str, tmp_path: Path) -> None:
    module = models.build(name, seed=0)
    size = module.input_shape if name == "lenet5" else (3, 64, 64)
    model, _ = optimise(capture.to_onnx(module, (SIZE[0], *size)), verify=False)
    pictures = np.random.default_rng(1).standard_normal((8, *size)).cumsum(-1).astype(np.float32) / 4
    check(model, pictures, scheme, isa, tmp_path)


def check(model: onnx.ModelProto, pictures: np.ndarray, scheme: str, isa: str, folder: Path) -> None:
    """Quantized, compiled and run, on pictures inside and outside of the calibrated range."""
    target = targets.parse(f"arm:{isa}").at("int8")
    emulator(target.isa)
    quantized = quantize(model, list(pictures), scheme=scheme).model
    plan = lower(quantized, target)
    target.build(plan, folder)
    for scale in (1.0, 4.0):
        x = pictures[: SIZE[0]] * np.float32(scale)
        (expected,) = integer_network.reference(quantized, {model.graph.input[0].name: x})
        got = run_library(target.isa, folder, x, expected.size)
        np.testing.assert_array_equal(got.reshape(expected.shape), expected)
        assert np.ptp(expected) > 0
    used = {getattr(kernel.schedule, "dot", None) for kernel in plan.kernels.values()} - {None}
    assert used == {DOTS[isa]}
