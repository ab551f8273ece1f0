"""The meaning of a VTA's step agrees with the meaning of the quantised operators that it computes."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inception_deploy.kernels.spec import Pooling, Reads, Reduce, Stage, Term, Vta
from inception_deploy.kernels.vta import constants, meaning
from inception_deploy.quantize import arith


def blocked(x: np.ndarray, block: int = 16) -> np.ndarray:
    """int8 NCHW in blocks of channels."""
    n, c, h, w = x.shape
    return np.ascontiguousarray(x.reshape(n, c // block, block, h, w).transpose(0, 1, 3, 4, 2))


def planar(x: np.ndarray) -> np.ndarray:
    """The inverse of `blocked`."""
    n, blocks, h, w, block = x.shape
    return x.transpose(0, 1, 4, 2, 3).reshape(n, blocks * block, h, w)


@given(
    st.integers(0, 2**31), st.sampled_from([8, 16]), st.sampled_from([(1, 1), (3, 3), (1, 7), (2, 3)]), st.booleans()
)
def test_convolution_with_bias_and_shift(seed: int, block: int, kernel: tuple[int, int], strided: bool) -> None:
    random = np.random.default_rng(seed)
    stride = (2, 1) if strided else (1, 1)
    pad = (kernel[0] // 2, kernel[1] // 2)
    x = random.integers(-128, 128, (1, 2 * block, 9, 8), dtype=np.int8)
    weight = random.integers(-128, 128, (2 * block, 2 * block, *kernel), dtype=np.int8)
    bias = random.integers(-400_000, 400_000, 2 * block, dtype=np.int32)
    wanted = arith.convolve(x, weight, bias, strides=stride, pads=(*pad, *pad))
    wanted = arith.requantize_shift(wanted, 9)
    height, width = wanted.shape[2:]
    bias = bias + (1 << 8)
    given_tiles = constants.bias_tiles(bias, block)
    term = Term(2, 9, 8, kernel, stride, pad)
    stage = Stage((term,), bias="tiles", bias_tiles=given_tiles.shape[1], shift=9, low=-128, high=127)
    spec = Vta(1, 2, height, width, (stage,), block=block)
    operands = [blocked(x, block), constants.tiles(weight, block), constants.ones(block), given_tiles]
    assert np.array_equal(planar(meaning.compute(spec, operands)), wanted)


def test_shortcut_pooling_and_channel_shifts() -> None:
    random = np.random.default_rng(5)
    x = random.integers(-128, 128, (1, 32, 6, 6), dtype=np.int8)
    y = random.integers(-128, 128, (1, 32, 6, 6), dtype=np.int8)
    shifts = random.integers(0, 4, 32).astype(np.int32)
    identity = constants.diagonal(np.full((16, 1, 1), 2, np.int8), 16)
    own = Term(2, 6, 6, reads=Reads.OWN, span=1, shared=True)
    first = Stage((own,), shift=1, low=0, high=100)
    second = Stage((own,), lead=3, shifts=True, low=-128, high=127)
    window = Pooling(Reduce.MAX, 6, 6, (3, 3), (2, 2), (1, 1))
    spec = Vta(1, 2, 3, 3, (first, second), window)
    found = planar(meaning.compute(spec, [blocked(x), identity, blocked(y), identity, shifts]))
    acc = (np.clip(x.astype(int), 0, 100) << 3) + 2 * y.astype(int)
    padded = np.pad(acc, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-(10**6))
    rows = [[padded[:, :, r : r + 3, c : c + 3].max((2, 3)) for c in (0, 2, 4)] for r in (0, 2, 4)]
    wanted = np.clip(np.array(rows).transpose(2, 3, 0, 1) >> shifts.reshape(-1, 1, 1), -128, 127)
    assert np.array_equal(found, wanted)


@given(st.lists(st.integers(-(2**25), 2**25), min_size=16, max_size=16), st.sampled_from([8, 16]))
def test_a_bias_is_a_sum_of_products(numbers: list[int], block: int) -> None:
    bias = np.array(numbers, np.int32)
    found = constants.bias_tiles(bias, block).astype(np.int64).sum(1) @ constants.ones(block)[0].astype(np.int64)
    assert np.array_equal(found.reshape(-1), bias)


def test_groups_a_rectangle_and_accumulators_as_planes() -> None:
    random = np.random.default_rng(6)
    x = random.integers(-128, 128, (1, 64, 7, 6), dtype=np.int8)
    weight = random.integers(-128, 128, (64, 32, 3, 3), dtype=np.int8)  # two groups of two blocks
    wanted = arith.convolve(x, weight, None, pads=(1, 1, 1, 1), group=2)[:, :, 2:6, 1:4]
    term = Term(4, 7, 6, (3, 3), pad=(1 - 2, 1 - 1), reads=Reads.OWN, span=2, group=2)
    spec = Vta(1, 4, 4, 3, (Stage((term,)),), planes=4, whole=(7, 6), corner=(2, 1))
    bytes_ = meaning.compute(spec, [blocked(x), constants.tiles(weight, 16)])
    assert bytes_.shape == (1, 4, 4, 4, 3, 16)
    words = np.ascontiguousarray(np.moveaxis(bytes_, 1, -1)).view("<i4")[..., 0]
    assert np.array_equal(planar(words), wanted)
