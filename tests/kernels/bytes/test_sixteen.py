"""Kernels of quantized numbers of 16 bits, on AVX2: every result is `quantize.arith`'s, of the largest numbers that there
are.
"""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from inception_deploy import targets
from inception_deploy.kernels.bytes import conv
from inception_deploy.kernels.elements import BLOCK, BYTE, SIXTEEN, Addition, Product, Rounding, element_of, ends
from inception_deploy.kernels.spec import Conv, Map, Spec, Window, WindowOp
from inception_deploy.lower.lower import kernel_of
from inception_deploy.quantize import arith
from inception_deploy.quantize.step_weights import channels_summed
from inception_deploy.targets.link import link_shared
from inception_deploy.targets.objects import compile_kernel

from ...cases.aligned import aligned

TARGET = targets.parse("cpu:avx2").at("int8")
LEAST, MOST = ends(SIXTEEN)
WHOLE = {BYTE: Rounding(17, 0, 255), SIXTEEN: Rounding(-301, LEAST, MOST)}


def computed(spec: Spec, folder: Path, *given: np.ndarray, schedule: Any = None) -> np.ndarray:
    """What a kernel makes of its operands, all work units at once."""
    if reason := TARGET.missing():
        pytest.skip(reason)
    kernel = kernel_of(TARGET, spec, schedule)
    library = folder / f"{kernel.symbol}.so"
    link_shared([compile_kernel(kernel, TARGET.tvm_target())], [kernel.symbol], library, TARGET.isa.triple)
    last = spec.operands[-1]
    assert [np.dtype(one.dtype) for one in spec.operands[:-1]] == [array.dtype for array in given]
    assert [one.size for one in spec.operands[:-1]] == [array.size for array in given]
    arrays = [aligned(array) for array in (*given, np.zeros(last.size, last.dtype))]
    args = (ctypes.c_void_p * len(arrays))(*[array.ctypes.data for array in arrays])
    assert getattr(ctypes.CDLL(str(library)), kernel.symbol)(args, 0, kernel.units) == 0
    return arrays[-1]


def blocks(x: np.ndarray) -> np.ndarray:
    """(N, C, H, W) as NCHW16c."""
    count, channels, height, width = x.shape
    parts = x.reshape(count, channels // BLOCK, BLOCK, height, width).transpose(0, 1, 3, 4, 2)
    return np.ascontiguousarray(parts)


def extremes(random: np.random.Generator, low: int, high: int, *shape: int) -> np.ndarray:
    """Whole numbers, half of them at the ends."""
    x = random.integers(low, high + 1, shape)
    return np.where(random.random(shape) < 0.5, random.choice([low, high], shape), x)


@pytest.mark.parametrize("out", [SIXTEEN, BYTE, "float32"])
@pytest.mark.parametrize(
    ("channels", "kernel", "largest", "weight_element"),
    [(16, 3, 127, "int8"), (48, 1, 128, "int8"), (32, 1, 255, "int16"), (528, 1, 127, "int8"), (64, 3, 128, "int8"),
     (2064, 1, 128, "int8")],
)  # fmt: skip
def test_a_convolution(channels: int, kernel: int, largest: int, weight_element: str, out: str, tmp_path: Path) -> None:
    """With sums of up to 32 bits, and with longer ones where the weights allow them."""
    random = np.random.default_rng(channels + kernel)
    weight = extremes(
        random, -largest, min(largest, 127 if weight_element == "int8" else 255), 32, channels, kernel, kernel
    )
    weight[::2] = np.abs(weight[::2]).clip(0, 127)  # sums as long as can be
    x = extremes(random, LEAST, MOST, 1, channels, 7, 5)
    x[:, :, :3] = MOST
    bias = random.integers(-(2**40), 2**40, 32)
    acc = arith.convolve(x.astype(np.int16), weight, bias)
    height, width = acc.shape[2:]
    parts = channels_summed(weight)
    assert parts
    spec = Conv(
        1, channels, 7, 5, 32, height, width, (kernel, kernel), in_element=SIXTEEN, out_element=out,
        weight_element=weight_element, sum_blocks=-(-parts // BLOCK), rounding=WHOLE.get(out),
    )  # fmt: skip
    factor = random.uniform(0.5, 2, 32).astype(np.float32) * np.float32(
        ends(out)[1] / np.abs(acc).max() if out in WHOLE else 1
    )
    column = factor.reshape(-1, 1, 1)
    if out in WHOLE:
        how = WHOLE[out]
        wanted = arith.requantize_scale(acc, column, how.zero, element_of(out).stored)
    else:
        wanted = acc.astype(np.float32) * column
    chosen = conv.choose(spec, TARGET.isa)
    halves = np.concatenate([bias >> 16, bias & 0xFFFF]).astype(np.int32)
    for schedule in {chosen, replace(chosen, vectors=2, pixels=3)}:
        packed = conv.pack_weight(weight, spec, schedule)
        got = computed(spec, tmp_path, blocks(x.astype(np.int16)), packed, halves, factor, schedule=schedule)
        np.testing.assert_array_equal(got, blocks(wanted).ravel())
    if np.abs(acc).max() + 2**40 < 2**31:
        return
    short = np.abs(arith.convolve(x.astype(np.int16), weight, None)).max() < 2**31
    if short:  # what 32 bits hold: the same sums at once, with a bias that fits
        small = bias % 1000
        acc = arith.convolve(x.astype(np.int16), weight, small)
        spec = replace(spec, sum_blocks=0, rounding=None, out_element="float32")
        packed = conv.pack_weight(weight, spec, conv.choose(spec, TARGET.isa))
        got = computed(spec, tmp_path, blocks(x.astype(np.int16)), packed, small.astype(np.int32), factor)
        np.testing.assert_array_equal(got, blocks(acc.astype(np.float32) * column).ravel())


@pytest.mark.parametrize("out", [SIXTEEN, BYTE])
def test_a_depthwise_convolution_and_pools(out: str, tmp_path: Path) -> None:
    random, zero = np.random.default_rng(1), 31007
    x = extremes(random, LEAST, MOST, 1, 32, 6, 9).astype(np.int16)
    size: dict[str, Any] = {
        "kernel": (3, 3),
        "stride": (1, 1),
        "pad": (1, 1, 1, 1),
        "in_element": SIXTEEN,
        "zero": zero,
    }
    weight, bias = extremes(random, -128, 127, 32, 1, 3, 3), random.integers(-(2**20), 2**20, 32)
    acc = arith.convolve(x, weight, bias, zero=zero, pads=(1, 1, 1, 1), group=32)
    how, factor = WHOLE[out], np.full(32, ends(out)[1] / np.abs(acc).max() * 1.5, np.float32)
    spec = Window(WindowOp.DEPTHWISE, 1, 2, 6, 9, 6, 9, **size, out_element=out, rounding=how)
    packed = weight.reshape(2, BLOCK, 3, 3).transpose(0, 2, 3, 1).astype(np.int8)
    got = computed(spec, tmp_path, blocks(x), np.ascontiguousarray(packed), bias.astype(np.int32), factor)
    wanted = arith.requantize_scale(acc, factor.reshape(-1, 1, 1), how.zero, element_of(out).stored)
    np.testing.assert_array_equal(got, blocks(wanted).ravel())

    total, counts = (
        arith.window_sum(x, (3, 3), zero=zero, pads=(1, 1, 1, 1)),
        arith.window_count((6, 9), (3, 3), pads=(1,) * 4),
    )
    means = np.float32(0.7 * ends(out)[1] / 2**16) / counts.astype(np.float32)
    spec = Window(WindowOp.AVERAGE, 1, 2, 6, 9, 6, 9, **size, out_element=out, rounding=how)
    wanted = arith.requantize_scale(total, means, how.zero, element_of(out).stored)
    np.testing.assert_array_equal(computed(spec, tmp_path, blocks(x), means), blocks(wanted).ravel())
    if out == SIXTEEN:
        spec = Window(WindowOp.MAX, 1, 2, 6, 9, 6, 9, **size, out_element=out)
        wanted = arith.max_pool(x, (3, 3), pads=(1, 1, 1, 1))
        np.testing.assert_array_equal(computed(spec, tmp_path, blocks(x)), blocks(wanted).ravel())


@pytest.mark.parametrize(("first", "second", "out"), [(SIXTEEN, SIXTEEN, SIXTEEN), (SIXTEEN, BYTE, BYTE), (BYTE, SIXTEEN, SIXTEEN), (BYTE, BYTE, SIXTEEN)])  # fmt: skip
def test_sums_and_products(first: str, second: str, out: str, tmp_path: Path) -> None:
    random, how, stored = np.random.default_rng(2), WHOLE[out], element_of(out).stored
    sides = [
        extremes(random, *ends(element), 1, 16, 64, 64).astype(element_of(element).stored)
        for element in (first, second)
    ]
    zeros = [130 if element == BYTE else -29000 for element in (first, second)]
    scales = [1.13 if element == BYTE else 0.0047 for element in (first, second)]
    scale_y = 1.9 if out == BYTE else 0.0081
    elements = {"in_element": first, "second_element": second, "out_element": out}
    factors = [float(np.float32(scale) / np.float32(scale_y)) for scale in scales]
    spec = Map(
        "add", 1, 1, 64 * 64, "tensor", **elements, addition=Addition(tuple(zeros), (0, 0), 1.0, how, tuple(factors))
    )
    wanted = arith.add_scale(*sides, *zeros, *scales, scale_y, how.zero, stored)
    np.testing.assert_array_equal(computed(spec, tmp_path, *map(blocks, sides)), blocks(wanted).ravel())
    factor = float(arith.multiplier(scales[0], scales[1], scale_y * 50))
    spec = Map("mul", 1, 1, 64 * 64, "tensor", **elements, product=Product(tuple(zeros), factor, how))
    acc = arith.product(*sides, zero_a=zeros[0], zero_b=zeros[1])
    wanted = arith.requantize_scale(acc, factor, how.zero, stored)
    np.testing.assert_array_equal(computed(spec, tmp_path, *map(blocks, sides)), blocks(wanted).ravel())


@pytest.mark.parametrize(("given", "made"), [(SIXTEEN, SIXTEEN), (SIXTEEN, BYTE), (BYTE, SIXTEEN)])
def test_every_number_by_itself(given: str, made: str, tmp_path: Path) -> None:
    """Tables, changes of scale, and both ways between reals and integers."""
    (low, high), stored = ends(given), element_of(made).stored
    q = np.arange(low, high + 1).astype(element_of(given).stored).reshape(1, -1, 1, BLOCK).transpose(0, 3, 1, 2)
    pixels, how, zero = q.shape[2], WHOLE[made], 12
    entries = np.random.default_rng(3).integers(*ends(made), high - low + 1, endpoint=True).astype(stored)
    spec = Map("table", 1, 1, pixels, "table", in_element=given, out_element=made)
    got = computed(spec, tmp_path, blocks(q), entries)
    np.testing.assert_array_equal(got, blocks(entries[q.astype(int) - low]).ravel())
    factor = 0.7 * ends(made)[1] / high
    spec = Map(
        "rescale", 1, 1, pixels, constants=(factor,), in_element=given, out_element=made, zero=zero, rounding=how
    )
    wanted = arith.rescale(q, zero, factor, how.zero, stored)
    np.testing.assert_array_equal(computed(spec, tmp_path, blocks(q)), blocks(wanted).ravel())
    spec = Map("dequantize", 1, 1, pixels, constants=(0.3,), in_element=given, zero=zero)
    reals = arith.dequantize(q, 0.3, zero)
    np.testing.assert_array_equal(computed(spec, tmp_path, blocks(q)), blocks(reals).ravel())
    spec = Map("quantize", 1, 1, pixels, constants=(0.3 / factor,), out_element=made, rounding=how)
    wanted = arith.quantize(reals, 0.3 / factor, how.zero, stored)
    np.testing.assert_array_equal(computed(spec, tmp_path, blocks(reals)), blocks(wanted).ravel())
    spec = Map("clip", 1, 1, pixels, in_element=given, out_element=given, rounding=Rounding(0, low + 5, high - 9))
    np.testing.assert_array_equal(computed(spec, tmp_path, blocks(q)), blocks(q.clip(low + 5, high - 9)).ravel())
