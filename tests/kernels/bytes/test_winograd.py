"""Winograd's algorithm on bytes: every sum is the direct convolution's, with the largest numbers that there are."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inception_deploy import targets
from inception_deploy.kernels.bytes.winograd import options, pays
from inception_deploy.kernels.elements import BLOCK
from inception_deploy.kernels.isa import ISAS
from inception_deploy.kernels.spec import Conv, Spec, stages
from inception_deploy.kernels.toom_cook import transform_integers
from inception_deploy.lower.bytes.linear import sum_bits
from inception_deploy.lower.lower import kernel_of
from inception_deploy.targets.link import link_shared
from inception_deploy.targets.objects import compile_kernel

from ...cases.aligned import aligned

TARGET = targets.parse("cpu:avx2").at("int8")


def of(channels: int, outputs: int, size: tuple[int, int], kernel: tuple[int, int] = (3, 3), **more: object) -> Conv:
    """A convolution padded to the same size, whose sums leave as float32."""
    pad = (kernel[0] // 2, kernel[1] // 2)
    return replace(Conv(1, channels, *size, outputs, *size, kernel, pad=pad, in_element="uint8"), **more)


def halved(channels: int, outputs: int, size: tuple[int, int], **more: object) -> Conv:
    """A padded 3x3 convolution with stride 2."""
    small = {"out_height": (size[0] + 1) // 2, "out_width": (size[1] + 1) // 2, "stride": (2, 2)}
    return of(channels, outputs, size, **small, **more)


def on_this_machine(spec: Spec, arrays: list[np.ndarray], folder: Path, number: int) -> np.ndarray:
    """What a kernel makes of its operands; the last one is its result."""
    kernel = kernel_of(TARGET, spec, None)
    library = folder / f"{number}.so"
    link_shared([compile_kernel(kernel, TARGET.tvm_target())], [kernel.symbol], library, TARGET.isa.triple)
    given = [aligned(array) for array in arrays]
    args = (ctypes.c_void_p * len(given))(*[array.ctypes.data for array in given])
    assert getattr(ctypes.CDLL(str(library)), kernel.symbol)(args, 0, kernel.units) == 0
    return given[-1]


CASES = [
    (of(channels, 16, size, kernel), outputs)
    for channels, size, kernel in [
        (32, (9, 7), (3, 3)),
        (16, (5, 13), (1, 3)),
        (48, (8, 4), (3, 1)),
        (16, (2, 2), (3, 3)),
    ]
    for outputs in options(replace(of(channels, 16, size, kernel), sum_bits=26), TARGET.isa)
]
CASES += [(spec, m) for spec in (halved(32, 16, (9, 12)), halved(16, 16, (4, 4))) for m in options(spec, TARGET.isa)]


@pytest.mark.parametrize("largest", [False, True])
@pytest.mark.parametrize(("spec", "outputs"), CASES, ids=[f"{spec.describe()} {outputs}" for spec, outputs in CASES])
def test_every_sum(spec: Conv, outputs: tuple[int, int], largest: bool, tmp_path: Path) -> None:
    if reason := TARGET.missing():
        pytest.skip(reason)
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (spec.channels, spec.height, spec.width)).astype(np.uint8)
    weight = random.integers(-128, 128, (spec.out_channels, spec.channels, *spec.kernel)).astype(np.int8)
    if largest:  # one output's sums are as large as they can be, another's as small, and one's transformed data
        x[:], weight[0], weight[1], x[:, ::2, ::2] = 255, 127, -128, 0
        x[: spec.channels // 2] = 255
    padded = np.pad(x.astype(np.int64), ((0, 0), *((pad, pad) for pad in spec.pad)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, spec.kernel, (1, 2))
    windows = windows[:, :: spec.stride[0], :: spec.stride[1]]
    wanted = np.einsum("ihwrs,oirs->ohw", windows, weight.astype(np.int64), optimize=True)
    into, inner, back = stages(spec, outputs)
    blocks = x.reshape(-1, BLOCK, spec.height, spec.width).transpose(0, 2, 3, 1)
    data = on_this_machine(into, [blocks, np.zeros(into.operands[-1].size, np.int16)], tmp_path, 0)
    filters = transform_integers(weight, outputs, spec.stride).reshape(-1, spec.channels, 1, 1)
    packed = TARGET.pack_weight(filters, inner, TARGET.schedule(inner))
    sums = on_this_machine(inner, [data, packed, np.zeros(inner.operands[-1].size, np.int32)], tmp_path, 1)
    bias, factor = np.arange(spec.out_channels, dtype=np.int32), np.ones(spec.out_channels, np.float32)
    got = on_this_machine(back, [sums, bias, factor, np.zeros(back.operands[-1].size, np.float32)], tmp_path, 2)
    got = got.reshape(-1, *wanted.shape[1:], BLOCK).transpose(0, 3, 1, 2).reshape(wanted.shape)
    np.testing.assert_array_equal(got, (wanted + bias[:, None, None]).astype(np.float32))


def test_which_tiles_there_are() -> None:
    """Tiles of four want the proof that sums are short; instructions for bytes want none of it."""
    deep = of(512, 64, (14, 14))
    assert options(deep, TARGET.isa) == [(2, 2), (2, 3), (3, 2), (3, 3)]
    assert (4, 4) in options(replace(deep, sum_bits=26), TARGET.isa)
    assert (4, 4) in options(of(64, 64, (14, 14)), TARGET.isa)
    assert not options(of(64, 64, (14, 14), (1, 7)), TARGET.isa)
    assert len(options(halved(64, 64, (14, 14)), TARGET.isa)) == 9
    assert not options(replace(deep, stride=(2, 1)), TARGET.isa)
    assert not options(replace(deep, stride=(3, 3)), TARGET.isa)
    assert not options(halved(16, 16, (9, 9), kernel=(1, 3), pad=(0, 1)), TARGET.isa)
    assert not options(replace(deep, weight_element="int16"), TARGET.isa)
    assert [isa.name for isa in ISAS if options(deep, isa)] == ["avx2"]


def test_where_it_pays() -> None:
    assert pays(of(64, 64, (56, 56)), TARGET.isa) == (4, 4)
    assert pays(of(16, 16, (3, 3)), TARGET.isa) is None


def test_sums_that_are_proved_short() -> None:
    weight = np.zeros((2, 8, 3, 3), np.int8)
    weight[1, :7] = -127
    assert sum_bits(weight) == 26
    assert sum_bits(np.full((1, 128, 3, 3), 127, np.int8)) == 32
    assert sum_bits(np.full((1, 128, 3, 3), -128, np.int8)) == 32
