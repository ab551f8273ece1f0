"""Convolutions for 16 vector registers: what they compute, and that their sums stay in registers."""

from __future__ import annotations

import ctypes
import re

import numpy as np
import pytest

from inception_deploy import targets
from inception_deploy.kernels.elements import BLOCK
from inception_deploy.kernels.isa import ISAS
from inception_deploy.kernels.spec import Conv
from inception_deploy.kernels.vector import conv
from inception_deploy.targets.objects import assembly, innermost
from inception_deploy.verify import bound

from ...cases.aligned import aligned

AVX2 = next(isa for isa in ISAS if isa.name == "avx2")
TARGET = targets.parse("cpu:avx2").tvm_target()


def of(channels: int, outputs: int, size: int, kernel: tuple[int, int], stride: int = 1, **more: bool) -> Conv:
    """A padded convolution of a square image."""
    pad = (kernel[0] // 2, kernel[1] // 2)
    high, wide = ((size + 2 * p - k) // stride + 1 for p, k in zip(pad, kernel, strict=True))
    return Conv(1, channels, size, size, outputs, high, wide, kernel, (stride, stride), pad, **more)


SHAPES = {
    "pointwise": of(64, 48, 13, (1, 1)),
    "pointwise, deep": of(512, 48, 13, (1, 1)),
    "pointwise, deep, few tiles": of(512, 48, 7, (1, 1)),
    "3x3": of(32, 32, 19, (3, 3)),
    "3x3, one tile a row": of(32, 32, 5, (3, 3)),
    "3x3, stride 2": of(32, 32, 27, (3, 3), 2),
    "1x7": of(32, 64, 17, (1, 7)),
    "7x7 of a picture": of(3, 32, 31, (7, 7), 2, planar=True),
    "3x3 of five planes": of(5, 32, 19, (3, 3), planar=True),
    "dense": of(256, 64, 1, (1, 1)),
}


@pytest.mark.parametrize("spec", SHAPES.values(), ids=SHAPES)
def test_columns_apart_give_the_sum(spec: Conv, tmp_path) -> None:
    """Interior and edge tiles, whose columns are loops and code of their own, against a sum in double precision."""
    from inception_deploy.lower.lower import kernel_of
    from inception_deploy.targets.link import link_shared
    from inception_deploy.targets.objects import compile_kernel

    target = targets.parse("cpu:avx2").at("fp32")
    if reason := target.missing():
        pytest.skip(reason)
    kernel = kernel_of(target, spec)
    library = tmp_path / "conv.so"
    link_shared([compile_kernel(kernel, target.tvm_target())], [kernel.symbol], library, target.isa.triple)
    random = np.random.default_rng(0)
    x = random.standard_normal((spec.channels, spec.height, spec.width), dtype=np.float32)
    weight = random.standard_normal((spec.out_channels, spec.channels, *spec.kernel), dtype=np.float32)
    bias = random.standard_normal(spec.out_channels, dtype=np.float32)
    dst = np.zeros((spec.out_channels // BLOCK, spec.out_height, spec.out_width, BLOCK), np.float32)
    src = x if spec.planar else x.reshape(-1, BLOCK, spec.height, spec.width).transpose(0, 2, 3, 1)
    packed = conv.pack_weight(weight, spec, conv.choose(spec, target.isa))
    arrays = [aligned(array) for array in (src, packed, bias, dst)]
    args = (ctypes.c_void_p * 4)(*[array.ctypes.data for array in arrays])
    assert getattr(ctypes.CDLL(str(library)), kernel.symbol)(args, 0, kernel.units) == 0
    (top, left), step = spec.pad, spec.stride[0]
    padded = np.pad(x.astype(np.float64), ((0, 0), (top, top), (left, left)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, spec.kernel, (1, 2))[:, ::step, ::step]
    wanted = np.einsum("ihwrs,oirs->ohw", windows, weight.astype(np.float64)) + bias[:, None, None]
    got = arrays[-1].transpose(0, 3, 1, 2).reshape(wanted.shape)
    assert np.abs(got - wanted).max() <= bound("kernels") * np.abs(wanted).max()


@pytest.mark.parametrize("spec", SHAPES.values(), ids=SHAPES)
def test_a_tile_leaves_registers_for_its_operands(spec: Conv) -> None:
    schedule = conv.choose(spec, AVX2)
    tile = schedule.vectors * schedule.pixels
    assert schedule.pixels == 1 or tile + schedule.vectors + 1 <= AVX2.registers


def test_deep_weights_are_done_in_parts_that_stay_in_the_first_level_cache() -> None:
    """A group of 512 channels has 32 KB of them, which is all of it (docs/perf/cpu-avx2.md, step 3)."""
    names = ("pointwise", "pointwise, deep", "pointwise, deep, few tiles")
    assert [conv.choose(SHAPES[name], AVX2).k_block for name in names] == [0, 8, 16]


@pytest.mark.parametrize("name", ["pointwise", "pointwise, deep", "3x3", "3x3, stride 2", "1x7"])
def test_no_sum_is_spilled_in_the_innermost_loop(name: str) -> None:
    """A sum that goes through the stack once a step takes twice the time (docs/perf/cpu-avx2.md)."""
    spec = SHAPES[name]
    loops = [
        body
        for body in innermost(assembly(conv.emit(spec, conv.choose(spec, AVX2), "kernel")[0], TARGET))
        if "vfmadd" in body
    ]
    assert loops
    assert not [body for body in loops if re.search(r"vmov[au]ps\s+%ymm\d+, -?\d*\(%rsp\)", body)]
