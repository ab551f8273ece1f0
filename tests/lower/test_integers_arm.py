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
from ..cases.int8_files import scaled, sixteen, weights
from .conftest import Builder

SIZE = (2, 3, 14, 13)

DOTS = {"cortex-a72": "smlal2+sadalp", "cortex-a76": "sdot", "cortex-a9": "vmlal.s16",
        "neoverse-v1": "smmla"}  # fmt: skip
"""Each kind of core, and what it multiplies with."""

PROVEN_OTHERWISE = {"cortex-a72": {"smull+sadalp"}}
"""What a layer beside others multiplies with whose weights do not prove that two products fit 16 bits."""


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


def shuffled(b: Builder, x: str) -> str:
    """A gate, x * sigmoid(x), a batch norm behind a concat, a nearest resize, padding, and a channel shuffle."""
    y = b.conv(x, 3, 12, pads=[1, 1, 1, 1], strides=[2, 2])
    y = b.op("Mul", y, b.op("Sigmoid", y))
    y = b.op("Concat", y, b.conv(y, 12, 8, (1, 1)), axis=1)
    y = b.op("Relu", b.op("Add", b.op("Mul", y, b.weight(20, 1, 1)), b.weight(20, 1, 1)))
    y = b.op("Mul", y, b.op("HardSigmoid", b.conv(b.op("GlobalAveragePool", y), 20, 20, (1, 1))))
    left, right = b.op("Split", y, outputs=2, axis=1, num_outputs=2)
    y = b.op("Concat", left, b.op("Relu", b.conv(right, 10, 10, group=10, pads=[1, 1, 1, 1])), axis=1)
    y = b.op("Reshape", y, b.constant([SIZE[0], 2, 10, 7, 7], "int64"))
    y = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3, 4]), b.constant([SIZE[0], 20, 7, 7], "int64"))
    left, right = b.op("Split", y, outputs=2, axis=1, num_outputs=2)
    y = b.op("Resize", b.op("Mul", left, right), "", b.constant([1.0, 1.0, 2.0, 2.0]), mode="nearest")
    y = b.conv(b.op("Pad", y, b.constant([0, 0, 1, 0, 0, 0, 0, 2], "int64")), 10, 6)
    y = b.op("Flatten", b.op("GlobalMaxPool", y))
    return b.op("Gemm", y, b.weight(5, 6), b.weight(5), transB=1)


NETWORKS = (lenet, inception, mobile, shuffled)

QUICK = {
    ("cortex-a72", inception, "float-scale"),
    ("cortex-a76", mobile, "float-scale"),
    ("cortex-a9", lenet, "power-of-two"),
    ("cortex-a72", shuffled, "power-of-two"),
    ("neoverse-v1", inception, "power-of-two"),
    ("neoverse-v1", mobile, "float-scale"),
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
     ("googlenet", "neoverse-v1", "float-scale"),
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
    quantized = quantize(model, list(pictures), scheme=scheme).model
    used = held(quantized, pictures[: SIZE[0]], isa, folder)
    assert used - STEM.get(isa, set()) - PROVEN_OTHERWISE.get(isa, set()) == {DOTS[isa]}


STEM = {"neoverse-v1": {"sdot"}}
"""What multiplies the network's own input, whose pixels have too few channels."""

WIDE = {**DOTS, "cortex-a76": "smlal", "cortex-a72": "smlal"}
"""What multiplies by 16 bits."""


@pytest.mark.parametrize(
    "isa",
    [
        "cortex-a76",
        pytest.param("cortex-a72", marks=pytest.mark.slow),
        pytest.param("cortex-a9", marks=pytest.mark.slow),
    ],
)
def test_weights_of_9_bits(isa: str, tmp_path: Path) -> None:
    file = next(file for file in weights() if file.name == "weights-of-9-bits-grouped")
    onnx.save(file.model, str(tmp_path / "model.onnx"))
    model, _ = optimise(capture.load_onnx(tmp_path / "model.onnx"), verify=False)
    assert held(model, file.x, isa, tmp_path) == {WIDE[isa]}


@pytest.mark.parametrize(
    "isa",
    [
        "cortex-a72",
        pytest.param("cortex-a76", marks=pytest.mark.slow),
        pytest.param("cortex-a9", marks=pytest.mark.slow),
        pytest.param("neoverse-v1", marks=pytest.mark.slow),
    ],
)
def test_batch_norms_of_files_of_others(isa: str, tmp_path: Path) -> None:
    file = next(scaled())
    onnx.save(file.model, str(tmp_path / "model.onnx"))
    model, _ = optimise(capture.load_onnx(tmp_path / "model.onnx"), verify=False)
    held(model, file.x, isa, tmp_path)


SIXTEEN = {file.name: file for file in sixteen() if file.floats is not None}


@pytest.mark.parametrize(
    ("isa", "name"),
    [
        pytest.param(isa, name, marks=() if (isa, name) == ("cortex-a72", "16-bits-sums-uint16") else pytest.mark.slow)
        for isa in DOTS
        for name in SIXTEEN
    ],
)
def test_numbers_of_16_bits(isa: str, name: str, tmp_path: Path) -> None:
    onnx.save(SIXTEEN[name].model, str(tmp_path / "model.onnx"))
    model, _ = optimise(capture.load_onnx(tmp_path / "model.onnx"), verify=False)
    assert not integer_network.read(model).float_nodes
    assert held(model, SIXTEEN[name].x, isa, tmp_path) & {"smlal", "vmlal.s16"}


def test_products_that_do_not_fit_16_bits_in_pairs(tmp_path: Path) -> None:
    """Every weight of the second convolution is -128, and so are many of its inputs: pairs would go round."""
    b = Builder(3)
    y = b.conv(b.input(*SIZE), 3, 16, (1, 1))
    model = b.model(b.conv(y, 16, 16, (3, 3)))
    pictures = np.random.default_rng(1).standard_normal((4, *SIZE[1:])).astype(np.float32)
    quantized = quantize(model, list(pictures), scheme="power-of-two").model
    for tensor in quantized.graph.initializer:
        if tensor.data_type == onnx.TensorProto.INT8 and len(tensor.dims) == 4 and tensor.dims[1] == 16:
            least = np.full(tuple(tensor.dims), -128, np.int8)
            tensor.CopyFrom(onnx.numpy_helper.from_array(least, tensor.name))
    used = held(quantized, np.full_like(pictures[: SIZE[0]], -100), "cortex-a72", tmp_path, flat=True)
    assert used == {"smlal2+sadalp", "smull+sadalp"}


def held(quantized: onnx.ModelProto, pictures: np.ndarray, isa: str, folder: Path, *, flat: bool = False) -> set[str]:
    """Compiled and run, on pictures inside and outside of the calibrated range; gives the instructions that multiply."""
    target = targets.parse(f"arm:{isa}").at("int8")
    emulator(target.isa)
    plan = lower(quantized, target)
    target.build(plan, folder)
    for scale in (1.0, 4.0):
        x = pictures * np.float32(scale)
        (expected,) = integer_network.reference(quantized, {quantized.graph.input[0].name: x})
        got = run_library(target.isa, folder, x, expected.size)
        np.testing.assert_array_equal(got.reshape(expected.shape), expected)
        assert flat or np.ptp(expected) > 0
    return {getattr(kernel.schedule, "dot", None) for kernel in plan.kernels.values()} - {None}
