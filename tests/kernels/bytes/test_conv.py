"""Convolutions of bytes on AVX2: every sum, however pixels are widened, with the largest numbers that there are."""

from __future__ import annotations

import ctypes
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inception_deploy import targets
from inception_deploy.kernels.bytes import conv
from inception_deploy.kernels.dots import VPMADDUBSW
from inception_deploy.kernels.elements import BLOCK
from inception_deploy.kernels.spec import Conv
from inception_deploy.lower.lower import kernel_of
from inception_deploy.targets.link import link_shared
from inception_deploy.targets.objects import assembly, compile_kernel, innermost

from ...cases.aligned import aligned

TARGET = targets.parse("cpu:avx2").at("int8")


def of(channels: int, outputs: int, size: tuple[int, int], kernel: int = 1, stride: int = 1, batch: int = 1) -> Conv:
    """A padded convolution whose sums leave as float32."""
    pad = kernel // 2
    high, wide = ((n + 2 * pad - kernel) // stride + 1 for n in size)
    strides = {"in_stride": channels * size[0] * size[1], "out_stride": outputs * high * wide} if batch > 1 else {}
    return Conv(
        batch, channels, *size, outputs, high, wide, (kernel, kernel), (stride, stride), (pad, pad),
        in_element="uint8", **strides,
    )  # fmt: skip


SHAPES = {
    "one unit": of(16, 16, (3, 3)),
    "several tiles, two images": of(16, 32, (13, 11), batch=2),
    "a narrow last tile": of(48, 64, (5, 5)),
    "so deep that one tile fills a unit": of(2064, 32, (3, 5)),
    "3x3": of(32, 32, (13, 11), 3, batch=2),
    "3x3, stride 2": of(16, 32, (15, 14), 3, 2),
}


@pytest.mark.parametrize("pairs", [False, True], ids=["any weights", "weights that fit 16 bits by twos"])
@pytest.mark.parametrize("spec", SHAPES.values(), ids=SHAPES)
def test_every_sum(spec: Conv, pairs: bool, tmp_path: Path) -> None:
    """As `choose` has it, and with other parts of the outputs a unit, of which 0 widens tile by tile."""
    if reason := TARGET.missing():
        pytest.skip(reason)
    random = np.random.default_rng(0)
    x = random.integers(0, 256, (spec.batch, spec.channels, spec.height, spec.width), np.uint8)
    weight = random.integers(-128, 128, (spec.out_channels, spec.channels, *spec.kernel), np.int8)
    x[:, ::3], weight[::2] = 255, 127  # pairs that vpmaddubsw would saturate
    if pairs:
        weight[::2, 1::2], weight[1::2] = 1, weight[1::2] // 2
        weight[1] = -64
        spec = replace(spec, pairs_fit=VPMADDUBSW.pairs_fit(weight))
        assert spec.pairs_fit
    pads = [(0, 0), (0, 0), *[(pad, pad) for pad in spec.pad]]
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x.astype(np.int64), pads), spec.kernel, (2, 3))
    windows = windows[:, :, :: spec.stride[0], :: spec.stride[1]]
    wanted = np.einsum("nihwrs,oirs->nohw", windows, weight.astype(np.int64), optimize=True)
    src = x.reshape(spec.batch, -1, BLOCK, spec.height, spec.width).transpose(0, 1, 3, 4, 2)
    chosen = conv.choose(spec, TARGET.isa)
    assert chosen.dot == ("vpmaddubsw" if pairs else "vpmaddwd")
    for number, schedule in enumerate({chosen, replace(chosen, parts=0), replace(chosen, parts=1)}):
        kernel = kernel_of(TARGET, spec, schedule)
        library = tmp_path / f"{number}.so"
        made = compile_kernel(kernel, TARGET.tvm_target())
        link_shared([made], [kernel.symbol], library, TARGET.isa.triple)
        bias, factor = np.zeros(spec.out_channels, np.int32), np.ones(spec.out_channels, np.float32)
        dst = np.zeros((spec.batch, spec.out_channels // BLOCK, spec.out_height, spec.out_width, BLOCK), np.float32)
        packed = conv.pack_weight(weight, spec, schedule)
        arrays = [aligned(array) for array in (src, packed, bias, factor, dst)]
        args = (ctypes.c_void_p * len(arrays))(*[array.ctypes.data for array in arrays])
        assert getattr(ctypes.CDLL(str(library)), kernel.symbol)(args, 0, kernel.units) == 0
        got = arrays[-1].transpose(0, 1, 4, 2, 3).reshape(wanted.shape)
        np.testing.assert_array_equal(got, wanted.astype(np.float32))


@pytest.mark.parametrize("pairs", [False, True], ids=["any weights", "weights that fit 16 bits by twos"])
@pytest.mark.parametrize("name", ["several tiles, two images", "3x3"])
def test_the_inner_loop_has_products_and_their_words_alone(name: str, pairs: bool) -> None:
    """No sum goes through the stack, and no index is made longer for a word (docs/perf/cpu-int8.md)."""
    spec = replace(SHAPES[name], pairs_fit=pairs)
    code = assembly(conv.emit(spec, conv.choose(spec, TARGET.isa), "kernel")[0], TARGET.tvm_target())
    loops = [body for body in innermost(code) if "vpmaddwd" in body]
    assert loops
    assert not [body for body in loops if re.search(r"vmov\w+\s+%ymm\d+, -?\d*\(%rsp\)|movslq", body)]
