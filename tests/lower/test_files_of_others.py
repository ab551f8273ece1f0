"""Quantized files of other tools, compiled: every byte is what `quantize.arith` says, where integers compute."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest

from inception_deploy import targets
from inception_deploy.graph import driver
from inception_deploy.quantize import integer_network
from inception_deploy.sources import capture
from inception_deploy.verify import TOLERANCES, compare

from ..cases.int8_files import (
    activations,
    by_channel,
    by_onnxruntime,
    by_other_tools,
    integers,
    joins,
    outputs,
    scaled,
    sixteen,
    weights,
)
from .conftest import Compiled

FAST = {
    "weights-shifted",
    "relu-both",
    "other-numbers-int8",
    "gate",
    "concat",
    "add-0.02-0.05",
    "bytes-out-int8",
    "pt2e-x86",
    "norm-uint8",
    "by-channel-0",
    "16-bits-sums-uint16",
    "16-bits-joins-int16",
}
"""These run in `make test`."""

TARGETS = ("cpu:avx512-vnni", "cpu:avx2")
"""The first of these that this machine can run."""

FILES = [
    pytest.param(file, id=file.name, marks=[] if file.name in FAST else pytest.mark.slow)
    for make in (weights, activations, joins, scaled, by_channel, sixteen, integers, outputs, by_other_tools)
    for file in make()
]


def check(file, folder: Path) -> Compiled:
    able = [target for target in map(targets.parse, TARGETS) if not target.missing()]
    if not able:
        pytest.skip("no x86 CPU that multiplies bytes")
    target = able[0].at("int8")
    onnx.save(file.model, str(folder / "model.onnx"))
    model, _ = driver.optimise(capture.load_onnx(folder / "model.onnx"), verify=False)
    made = Compiled(model, target, folder / "kernels.so")
    (expected,) = integer_network.reference(model, {"x": file.x})
    for side in ("begin", "end"):
        (got,) = made.run(file.x, side=side)
        assert got.dtype == expected.dtype
        if integer_network.read(model).float_nodes:
            assert compare(expected, got, "compiled-int8", noise=TOLERANCES["pass"].max_rel)["ok"]
        else:
            np.testing.assert_array_equal(got, expected)
    return made


@pytest.mark.parametrize("file", FILES)
def test_a_form_by_hand(file, tmp_path: Path) -> None:
    check(file, tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("number", [1, 7])
def test_a_file_of_onnxruntime_has_no_float_kernel(number: int, tmp_path: Path) -> None:
    """QDQ and QOperator, per channel."""
    file = next(itertools.islice(by_onnxruntime(), number, None))
    made = check(file, tmp_path)
    assert {step.op for step in made.plan.steps} <= {
        "quantize", "conv", "winograd_in", "winograd_out", "depthwise", "max_pool", "average_pool", "table", "rescale",
        "clip", "add", "dense", "copy", "dequantize", "unpack",
    }  # fmt: skip


@pytest.mark.parametrize("number", [3, 4])
def test_numbers_of_16_bits_without_kernels_of_such(number: int, tmp_path: Path, monkeypatch) -> None:
    """As on a GPU: layers of bytes are integers, the others float32 that hold the same numbers."""
    target = targets.parse("cpu:avx2").at("int8")
    if reason := target.missing():
        pytest.skip(reason)
    file = next(itertools.islice(sixteen(), number, None))
    onnx.save(file.model, str(tmp_path / "model.onnx"))
    model, _ = driver.optimise(capture.load_onnx(tmp_path / "model.onnx"), verify=False)
    monkeypatch.setattr(type(target), "sixteen", property(lambda _: False))
    made = Compiled(model, target, tmp_path / "kernels.so")
    assert not [kernel for kernel in made.plan.kernels.values() if "q16" in str(kernel.spec.encode())]
    assert any(kernel.spec.quantized for kernel in made.plan.kernels.values())
    (expected,) = integer_network.reference(model, {"x": file.x})
    (got,) = made.run(file.x)
    assert compare(expected, got, "compiled-int8", noise=TOLERANCES["emulated-int8"].max_rel)["ok"]
