"""Convolutions of bfloat16 on ARM, run under an emulator: next to sums of the same numbers in double precision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inception_deploy import targets
from inception_deploy.kernels.elements import BLOCK, BRAIN, bfloat16
from inception_deploy.kernels.spec import Conv
from inception_deploy.kernels.vector import squares
from inception_deploy.lower.lower import kernel_of
from inception_deploy.targets.objects import compile_tir
from inception_deploy.verify import bound

from ...cases.emulator import emulator, run_kernel

TARGET = targets.parse("arm:neoverse-v1").at("bf16")


def of(channels: int, outputs: int, size: tuple[int, int], kernel: tuple[int, int], stride: int = 1, **more) -> Conv:
    """A padded convolution in a group or several."""
    spread = more.get("dilation", (1, 1))
    pad = tuple((k - 1) * d // 2 for k, d in zip(kernel, spread, strict=True))
    shape = zip(size, pad, kernel, spread, strict=True)
    high, wide = ((n + 2 * p - (k - 1) * d - 1) // stride + 1 for n, p, k, d in shape)
    kept = dict.fromkeys(("in_element", "add_element", "out_element"), BRAIN)
    return Conv(1, channels, *size, outputs, high, wide, kernel, (stride, stride), pad, **{**kept, **more})


SHAPES = {
    "pointwise, odd": of(32, 48, (7, 7), (1, 1), activation=(0.0, 6.0)),
    "pointwise, an add, fp32 out": of(64, 32, (5, 6), (1, 1), add=True, out_element="float32"),
    "pointwise, stride 2": of(32, 16, (9, 8), (1, 1), 2),
    "3x3, an add": of(32, 32, (9, 13), (3, 3), add=True, activation=(0.0, float("inf"))),
    "3x3, stride 2": of(16, 32, (14, 13), (3, 3), 2),
    "3x3, dilated": of(16, 16, (11, 9), (3, 3), dilation=(2, 2)),
    "1x7": of(16, 32, (4, 17), (1, 7)),
    "7x1": of(16, 32, (17, 4), (7, 1)),
    "3x3 of a column": of(16, 16, (5, 1), (3, 3)),
    "5x5 in groups": of(16, 64, (6, 6), (5, 5), groups=2),
    "two images": replace(of(32, 16, (6, 7), (3, 3)), batch=2),
    "dense": of(256, 96, (1, 1), (1, 1), out_element="float32"),
    "dense, few outputs": of(64, 16, (1, 1), (1, 1)),
}
QUICK = ("pointwise, odd", "3x3, an add", "3x3, stride 2", "5x5 in groups", "dense")


def real(halves: np.ndarray) -> np.ndarray:
    """What bfloat16 stands for."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


def blocked(values: np.ndarray) -> np.ndarray:
    """`[N, C, H, W]` in blocks of channels."""
    n, c, h, w = values.shape
    return np.ascontiguousarray(values.reshape(n, c // BLOCK, BLOCK, h, w).transpose(0, 1, 3, 4, 2))


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in SHAPES]
)
def test_the_sums_are_those_of_the_rounded_numbers(name: str, tmp_path: Path) -> None:
    spec = SHAPES[name].dense()
    emulator(TARGET.isa)
    kernel = kernel_of(TARGET, spec)
    assert kernel.family == "vector.squares"
    random = np.random.default_rng(0)
    deep = spec.channels * spec.groups
    x = random.standard_normal((spec.batch, deep, spec.height, spec.width), dtype=np.float32)
    weight = random.standard_normal((spec.out_channels, spec.channels, *spec.kernel), dtype=np.float32)
    bias = random.standard_normal(spec.out_channels, dtype=np.float32)
    added = random.standard_normal((spec.batch, spec.out_channels, spec.out_height, spec.out_width), dtype=np.float32)
    packed = squares.pack_weight(weight, spec, kernel.schedule)
    out = np.zeros(blocked(added).shape, np.uint16 if spec.out_element == BRAIN else np.float32)
    given = [bfloat16(blocked(x)), packed, bias, *([bfloat16(blocked(added))] if spec.add else []), out]
    compiled = compile_tir(squares.emit(spec, kernel.schedule, "k")[0], TARGET.tvm_target())
    found = run_kernel(compiled, TARGET.isa, tmp_path, [array[None] for array in given], 1, kernel.units)[0]
    got = real(found) if spec.out_element == BRAIN else found
    got = got.transpose(0, 1, 4, 2, 3).reshape(added.shape)

    (top, left), reach = spec.pad, [(k - 1) * d + 1 for k, d in zip(spec.kernel, spec.dilation, strict=True)]
    padded = np.pad(real(bfloat16(x)).astype(np.float64), ((0, 0), (0, 0), (top, top), (left, left)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, (2, 3))
    windows = windows[:, :, :: spec.stride[0], :: spec.stride[1], :: spec.dilation[0], :: spec.dilation[1]]
    weights = real(bfloat16(weight)).astype(np.float64)
    parts = zip(np.split(windows, spec.groups, 1), np.split(weights, spec.groups), strict=True)
    wanted = np.concatenate([np.einsum("nihwrs,oirs->nohw", *part) for part in parts], 1) + bias[:, None, None]
    if spec.add:
        wanted += real(bfloat16(added))
    if spec.activation:
        wanted = wanted.clip(*spec.activation)
    near = bound("bfloat16" if spec.out_element == BRAIN else "kernels")
    assert np.abs(got - wanted).max() <= near * np.abs(wanted).max()


def test_it_needs_the_instruction_and_the_element() -> None:
    from inception_deploy.kernels.isa import ISAS

    spec, isas = SHAPES["dense"], {isa.name: isa for isa in ISAS}
    assert squares.CONV.serves(spec, isas["neoverse-n2"]) is None
    assert squares.CONV.serves(spec, isas["cortex-a76"]) == "cortex-a76 has no bfmmla"
    wide = replace(spec, in_element="float32")
    assert squares.CONV.serves(wide, isas["neoverse-n2"]) == "it multiplies float32, not bfloat16 in blocks of 16"
