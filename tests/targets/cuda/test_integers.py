"""Quantized networks on the simulated GPU: every bit is that of `quantize.arith`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from inception_deploy.graph.driver import optimise
from inception_deploy.kernels.elements import BLOCK, BYTE, Rounding
from inception_deploy.kernels.gpu import mma
from inception_deploy.kernels.gpu.emit import GpuEmitter
from inception_deploy.kernels.spec import Conv
from inception_deploy.lower.lower import lower
from inception_deploy.quantize import integer_network, quantize
from inception_deploy.quantize.scheme import Choices
from inception_deploy.sources import capture
from inception_deploy.targets import cuda

from ...cases.int8_files import scaled, weights
from ...lower.test_integers import NETWORKS, SIZE, branches, islands, model_of, residual
from .conftest import both_orders, bundle
from .test_kernels import blocked, convolution

TARGET = cuda.parse("cuda", "sm_90").at("int8")
FAST = ("branches",)


def check(simulated: Any, model: onnx.ModelProto, x: np.ndarray, folder: Path) -> set[str]:
    """Compare every output; gives the families of the kernels."""
    plan = lower(model, TARGET)
    bundle(simulated, plan, TARGET.archs, folder)
    (expected,) = integer_network.reference(model, {plan.inputs[0].name: x})
    np.testing.assert_array_equal(both_orders(simulated, folder, x), expected)
    assert np.ptp(expected) > 0
    return {kernel.family for kernel in plan.kernels.values()}


def quantized(make: Callable[[Any, str], str], scheme: str, **choices: Any) -> tuple[onnx.ModelProto, np.ndarray]:
    model, pictures = model_of(make)
    found = quantize(model, list(pictures), scheme=scheme, choices=Choices(**choices)).model
    return found, pictures[: SIZE[0]] * np.float32(4)  # beyond the calibrated range, too


@pytest.mark.parametrize("tile", mma.NARROW_TILES, ids=lambda t: f"{t.bm}x{t.bn}")
@pytest.mark.parametrize("split", [1, 3])
def test_every_tile(gpu, tile, split):
    """On a map and channels that no tile divides, and a depth that is no whole number of steps; two images, in groups."""
    spec = Conv(
        2, 48, 9, 15, 160, 9, 15, (3, 3), pad=(1, 1), groups=2, in_stride=96 * 135, out_stride=160 * 135,
        in_element=BYTE, out_element=BYTE, rounding=Rounding(7, 9, 250),
    )  # fmt: skip
    random = np.random.default_rng(5)
    x = random.integers(0, 256, (2, 96, 9, 15), dtype=np.uint8)
    weight = random.integers(-128, 128, (160, 48, 3, 3), dtype=np.int8)
    bias = random.integers(-1000, 1000, 160, dtype=np.int32)
    factor = (random.uniform(0.5, 2, 160) / 20000).astype(np.float32)
    schedule = replace(tile, split=split)
    out = np.zeros((2, 10, 9, 15, BLOCK), np.uint8)
    gpu.call(spec, [blocked(x), mma.pack_weight(weight, spec, schedule), bias, factor, out], schedule)
    acc = convolution(x, weight, bias, 0, replace(spec, activation=None)).astype(np.float32)
    want = np.clip(np.rint(acc * factor[:, None, None]) + 7, 9, 250)
    np.testing.assert_array_equal(out, blocked(want))


def test_a_missing_wait_shows(gpu, monkeypatch):
    """Copies that nobody waits for are not there when they are multiplied."""
    spec = Conv(1, 128, 4, 4, 32, 4, 4, (1, 1), in_element=BYTE, out_element="float32")
    x, weight = np.ones((1, 128, 4, 4), np.uint8), np.ones((32, 128, 1, 1), np.int8)
    schedule, out = mma.NARROW_TILES[-1], np.zeros((1, 2, 4, 4, BLOCK), np.float32)
    given = [blocked(x), mma.pack_weight(weight, spec, schedule), np.zeros(32, np.int32), np.ones(32, np.float32), out]
    gpu.call(spec, given, schedule)
    np.testing.assert_array_equal(out, 128)
    do = GpuEmitter.do
    monkeypatch.setattr(GpuEmitter, "do", lambda em, name, *args: None if "wait" in name else do(em, name, *args))
    gpu.call(spec, given, schedule)
    assert (out != 128).any()


@pytest.mark.parametrize("scheme", ["float-scale", "power-of-two"])
@pytest.mark.parametrize(
    "make", [pytest.param(n, marks=() if n.__name__ in FAST else pytest.mark.slow, id=n.__name__) for n in NETWORKS]
)
def test_every_bit_is_the_references(simulated, tmp_path, make, scheme):
    families = check(simulated, *quantized(make, scheme), tmp_path)
    assert "gpu.mma" in families
    assert "gpu.conv" not in families
    assert make is islands or "gpu.map" not in families


@pytest.mark.slow
def test_a_shortcut_in_the_accumulator(simulated, tmp_path):
    check(simulated, *quantized(residual, "power-of-two", add="accumulator"), tmp_path)


@pytest.mark.slow
def test_scales_of_their_own(simulated, tmp_path):
    check(simulated, *quantized(branches, "float-scale", add="own", concat="own"), tmp_path)


def test_weights_of_9_bits(simulated, tmp_path):
    """What tensor cores cannot multiply is multiplied one by one."""
    file = next(file for file in weights() if file.name == "weights-of-9-bits")
    onnx.save(file.model, str(tmp_path / "model.onnx"))
    model, _ = optimise(capture.load_onnx(tmp_path / "model.onnx"), verify=False)
    assert "gpu.bytes_conv" in check(simulated, model, file.x, tmp_path)


def test_batch_norms_of_files_of_others(simulated, tmp_path):
    """They are the end of convolutions of either family, or kernels."""
    file = next(scaled())
    onnx.save(file.model, str(tmp_path / "model.onnx"))
    model, _ = optimise(capture.load_onnx(tmp_path / "model.onnx"), verify=False)
    assert {"gpu.mma", "gpu.bytes_window", "gpu.bytes_map"} <= check(simulated, model, file.x, tmp_path)
