"""The kernels for matrix tiles, next to PyTorch's convolution: in fp32 of the same bfloat16 numbers, in fp64 of the
numbers that pairs of bfloat16 stand for.
"""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from inception_deploy import targets
from inception_deploy.errors import DeployError
from inception_deploy.kernels.elements import BF16, PAIR, WIDE, bfloat16, element_of
from inception_deploy.kernels.matrix import conv as matrix_conv
from inception_deploy.kernels.spec import Conv, Frame, tile_pixels
from inception_deploy.verify import bound

from ...cases.aligned import aligned

ROUNDING = {"bfloat16": 2.0**-8, PAIR: 2.0**-17, WIDE: 0.0}
"""What storing a value as an element changes at most, of the value itself."""


@pytest.fixture(scope="module")
def target() -> Any:
    """The target, where this machine lets the process use tiles."""
    try:
        found = targets.parse("cpu").at("bf16")
    except DeployError as error:
        pytest.skip(error.message)
    # as the runtime does when a model is opened: arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA)
    if ctypes.CDLL(None).syscall(158, 0x1023, 18) != 0:
        pytest.skip("Linux does not let this process use tile registers")
    return found


@pytest.fixture(scope="module")
def run(target: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., None]:
    """`run(spec, *arrays)`: compile and call it, the second half of its units first; the last array is written."""
    folder, number = tmp_path_factory.mktemp("tiles"), itertools.count()

    def call(spec: Any, *arrays: np.ndarray) -> None:
        from inception_deploy.lower.lower import kernel_of
        from inception_deploy.targets.link import link_shared
        from inception_deploy.targets.objects import compile_kernel

        name = f"k{next(number)}"
        kernel = replace(kernel_of(target, spec), symbol=name)
        units, path = kernel.units, Path(folder) / f"{name}.so"
        link_shared([compile_kernel(kernel, target.tvm_target())], [name], path, target.isa.triple)
        function = getattr(ctypes.CDLL(str(path)), name)
        pointers = (ctypes.c_void_p * len(arrays))(*(array.ctypes.data for array in arrays))
        for first, end in ((units // 2, units), (0, units // 2)):
            assert function(pointers, first, end) == 0

    return call


def rounded(array: np.ndarray) -> np.ndarray:
    """fp32 that bfloat16 can hold."""
    return real(bfloat16(array))


def real(halves: np.ndarray) -> np.ndarray:
    return (halves.astype(np.uint32) << 16).view(np.float32)


def pairs(array: np.ndarray) -> np.ndarray:
    """fp32 `[..., 32]` to its high and low halves, `[..., 2, 32]`."""
    high = bfloat16(array)
    return np.stack([high, bfloat16(array - real(high))], axis=-2)


def blocked(array: np.ndarray, element: str = "bfloat16") -> np.ndarray:
    """NCHW fp32 to `[N][C/32][H][W]` and the cell of an element."""
    n, c, h, w = array.shape
    rows = np.ascontiguousarray(array.reshape(n, c // 32, 32, h, w).transpose(0, 1, 3, 4, 2))
    return aligned({"bfloat16": matrix_conv.bfloat16, PAIR: pairs, WIDE: np.copy}[element](rows))


def nothing(shape: tuple[int, ...], element: str) -> np.ndarray:
    """Memory for `[N][blocks][H][W]` cells of an element, full of NaN."""
    cell = {"bfloat16": (32,), PAIR: (2, 32), WIDE: (32,)}[element]
    kind, fill = (np.float32, np.nan) if element == WIDE else (np.uint16, 0xFFFF)
    return aligned(np.full((*shape, *cell), fill, kind))


def plain(array: np.ndarray, element: str = "bfloat16") -> np.ndarray:
    """`[N][blocks][H][W]` and the cell of an element to NCHW fp32."""
    values = array if element == WIDE else real(array)
    values = values.sum(axis=-2) if element == PAIR else values
    n, b, h, w, lanes = values.shape
    return values.transpose(0, 1, 4, 2, 3).reshape(n, b * lanes, h, w)


def conv(
    batch: int,
    channels: int,
    out: int,
    size: tuple[int, int],
    kernel: tuple[int, int] = (1, 1),
    stride: tuple[int, int] = (1, 1),
    dilation: tuple[int, int] = (1, 1),
    frame: tuple[int, int, int, int] = (0, 0, 0, 0),
    **more: Any,
) -> Conv:
    height, width = ((s - (k - 1) * d - 1) // t + 1 for s, k, d, t in zip(size, kernel, dilation, stride, strict=True))
    groups = more.get("groups", 1)
    more = {"in_element": BF16, "add_element": BF16, "out_element": BF16} | more
    strides = {}
    if batch > 1:
        framed = (height + frame[0] + frame[2]) * (width + frame[1] + frame[3])
        sizes = {"in": channels * size[0] * size[1], "add": out * height * width, "out": out * framed}
        cells = {name: element_of(more[f"{name}_element"]).cell for name in sizes}
        strides = {f"{name}_stride": count // 32 * cells[name] for name, count in sizes.items()}
    return Conv(
        batch,
        channels // groups,
        *size,
        out,
        height,
        width,
        kernel,
        stride,
        dilation=dilation,
        frame=frame,
        **strides,
        **more,
    )


PAIRS = {"in_element": PAIR, "add_element": PAIR, "out_element": PAIR}

SPECS = {
    "1x1 of 17x17": conv(1, 64, 64, (17, 17)),
    "two whole tiles": conv(1, 32, 96, (4, 8)),
    "one pixel": conv(1, 64, 128, (1, 1)),
    "one pixel, an odd number of blocks, fp32 out": conv(3, 64, 96, (1, 1), out_element=WIDE),
    "1x1 with a stride": conv(1, 32, 32, (9, 11), stride=(2, 2)),
    "3x3": conv(1, 96, 64, (19, 19), (3, 3)),
    "1x7 for a 7x1": conv(1, 64, 96, (17, 23), (1, 7), frame=(3, 0, 3, 0)),
    "7x1, add, clamp, two images": conv(2, 64, 96, (23, 17), (7, 1), add=True, activation=(0.0, 6.0)),
    "3x3 with a stride": conv(1, 64, 64, (35, 35), (3, 3), (2, 2), activation=(0.0, float("inf"))),
    "groups": conv(1, 128, 128, (9, 9), (3, 3), groups=4),
    "dilation and an uneven frame": conv(1, 32, 32, (5, 40), (2, 2), dilation=(2, 3), frame=(0, 1, 2, 3)),
    "1x1 with a frame, two images": conv(2, 64, 64, (17, 17), frame=(1, 2, 0, 1)),
    "pairs, 1x1 of 17x17": conv(1, 64, 64, (17, 17), **PAIRS),
    "pairs, one pixel, two images": conv(2, 64, 128, (1, 1), **PAIRS),
    "pairs, one pixel, an odd number of blocks, fp32 out": conv(3, 64, 96, (1, 1), **PAIRS | {"out_element": WIDE}),
    "pairs, 3x3 with a stride": conv(1, 64, 64, (35, 35), (3, 3), (2, 2), **PAIRS),
    "pairs, 1x7 for a 7x1": conv(1, 64, 96, (17, 23), (1, 7), frame=(3, 0, 3, 0), **PAIRS),
    "pairs, add, clamp, two images": conv(2, 64, 96, (9, 7), add=True, activation=(0.0, 6.0), **PAIRS),
    "pairs, add of fp32": conv(2, 64, 96, (9, 7), add=True, **PAIRS | {"add_element": WIDE}),
    "pairs, groups and dilation": conv(1, 128, 128, (9, 9), (3, 3), dilation=(2, 1), groups=4, **PAIRS),
}


@pytest.mark.parametrize("name", SPECS)
def test_convolution(name: str, run: Callable[..., None], target: Any) -> None:
    spec = SPECS[name]
    random = np.random.default_rng(0)
    near = np.float32 if spec.in_element == PAIR else rounded
    x = near(random.standard_normal((spec.batch, spec.channels * spec.groups, spec.height, spec.width)))
    w = near(random.standard_normal((spec.out_channels, spec.channels, *spec.kernel)) / spec.channels**0.5)
    bias = random.standard_normal(spec.out_channels).astype(np.float32)
    expected = torch.nn.functional.conv2d(
        *map(torch.from_numpy, (x, w, bias)), spec.stride, 0, spec.dilation, spec.groups
    ).numpy()
    extra = []
    if spec.add:
        addend = near(random.standard_normal(expected.shape))
        expected, extra = expected + addend, [blocked(addend, spec.add_element)]
    if spec.activation is not None:
        expected = expected.clip(*spec.activation)
    top, left, bottom, right = spec.frame
    size = (spec.out_height + top + bottom, spec.out_width + left + right)
    out = nothing((spec.batch, spec.out_channels // 32, *size), spec.out_element)
    weight = aligned(target.pack_weight(w, spec, target.schedule(spec)))
    run(spec, blocked(x, spec.in_element), weight, aligned(bias), *extra, out)
    got = plain(out, spec.out_element)
    framed = np.pad(expected, ((0, 0), (0, 0), (top, bottom), (left, right)))
    slack = bound("kernels") * np.abs(framed).max() + ROUNDING[spec.out_element] * np.abs(framed)
    assert (np.abs(got - framed) <= slack).all()


@pytest.mark.parametrize("element", ["bfloat16", PAIR])
@pytest.mark.parametrize(
    ("channels", "taps", "stride", "width"),
    [(3, (3, 3), (2, 2), 19), (3, (7, 7), (2, 2), 32), (1, (5, 5), (1, 1), 7), (9, (3, 2), (1, 1), 45)],
)
def test_the_networks_input(
    channels: int,
    taps: tuple[int, int],
    stride: tuple[int, int],
    width: int,
    element: str,
    run: Callable[..., None],
    target: Any,
) -> None:
    random = np.random.default_rng(1)
    batch, height, pad = 2, 21, 2
    slots = next(count for count in (4, 8, 16) if count >= channels)
    given = Conv(batch, channels, height, width, 32, 1, 1, taps)
    pack = tile_pixels(given, slots, (pad, pad, pad, pad), element)
    near = np.float32 if element == PAIR else rounded
    x = near(random.standard_normal((batch, channels, height, width)))
    pixels = aligned(np.full((batch, pack.size // (pack.lines * pack.line), pack.lines, pack.line), 0xFFFF, np.uint16))
    run(pack, aligned(x), pixels)
    known = real(pixels).sum(axis=1)[:, :-1, : (width + 2 * pad) * slots]
    framed = np.pad(x, ((0, 0), (0, slots - channels), (pad, pad), (pad, pad))).transpose(0, 2, 3, 1)
    left = known.reshape(batch, height + 2 * pad, width + 2 * pad, slots) - framed
    assert (np.abs(left) <= (ROUNDING[PAIR] * np.abs(framed) if element == PAIR else 0)).all()
    w = near(random.standard_normal((32, channels, *taps)))
    expected = torch.nn.functional.conv2d(torch.from_numpy(x), torch.from_numpy(w), None, stride, pad).numpy()
    spec = Conv(
        batch, slots, height + 2 * pad, width + 2 * pad, 32, *expected.shape[2:], taps, stride, planar=True,
        in_element=element, out_element=WIDE, in_stride=pack.size, out_stride=32 * expected.shape[2] * expected.shape[3],
    )  # fmt: skip
    out = nothing((batch, 1, *expected.shape[2:]), WIDE)
    wide = np.zeros((32, slots, *taps), np.float32)
    wide[:, :channels] = w
    run(
        spec,
        pixels,
        aligned(target.pack_weight(wide, spec, target.schedule(spec))),
        aligned(np.zeros(32, np.float32)),
        out,
    )
    assert np.abs(plain(out, WIDE) - expected).max() <= bound("kernels") * np.abs(expected).max()


def test_a_frame_is_a_copy_and_zeros(run: Callable[..., None]) -> None:
    x = rounded(np.random.default_rng(2).standard_normal((2, 64, 5, 7)))
    frame = (1, 0, 2, 3)
    spec = Frame(2, 2, 5, 7, frame, in_stride=64 * 35, out_stride=64 * 80, in_element=BF16)
    out = nothing((2, 2, 8, 10), "bfloat16")
    run(spec, blocked(x), out)
    assert np.array_equal(plain(out), np.pad(x, ((0, 0), (0, 0), (1, 2), (0, 3))))


def test_rounding_is_pytorchs() -> None:
    values = np.concatenate(
        [np.random.default_rng(3).standard_normal(1000), [0, -0.0, np.inf, -np.inf, 1 + 2**-8, 1 + 3 * 2**-8]]
    )
    values = values.astype(np.float32)
    assert np.array_equal(rounded(values), torch.from_numpy(values).bfloat16().float().numpy())
    assert np.isnan(rounded(np.array([np.nan], np.float32))).all()


def test_tiles_of_a_line_are_even_and_end_with_it() -> None:
    for width in range(1, 70):
        rows = matrix_conv.rows_of(conv(1, 32, 32, (3, width), (3, 1)))
        assert rows.count == -(-width // 16)
        assert width <= rows.count * rows.rows < width + rows.count
