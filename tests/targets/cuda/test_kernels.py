"""The generated CUDA C, run by a simulated GPU, against numpy. Every case runs with the threads of a block in either order."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest

from inception_deploy.kernels.cards import card_of
from inception_deploy.kernels.elements import BLOCK, BRAIN, HALF, PAIRS, TF32, kept
from inception_deploy.kernels.gpu import conv, mma
from inception_deploy.kernels.gpu import simple as gpu_simple
from inception_deploy.kernels.gpu.conv import GemmSchedule
from inception_deploy.kernels.gpu.dense import DenseSchedule
from inception_deploy.kernels.spec import (
    ChannelNorm,
    Conv,
    GlobalAverage,
    Map,
    MatrixProduct,
    Normalise,
    Output,
    Pack,
    Softmax,
    Unpack,
    Window,
    WindowOp,
)
from inception_deploy.kernels.table import find
from inception_deploy.kernels.vector import simple as cpu_simple
from inception_deploy.targets.cuda_source import COMPOSED
from inception_deploy.verify import bound

from .conftest import GPU, family_of

INF = math.inf


def blocked(x):
    """NCHW to NCHW16c."""
    n, channels, height, width = x.shape
    return np.ascontiguousarray(x.reshape(n, channels // BLOCK, BLOCK, height, width).transpose(0, 1, 3, 4, 2))


def windows(x, spec, kernel_pad):
    """Every tap of every output, with what lies off the image as `kernel_pad`: (N, C, OH, OW, r, s)."""
    (rows, columns), (sy, sx), (gy, gx) = spec.kernel, spec.stride, spec.dilation
    top, left = spec.pad[:2]
    bottom = max(0, (spec.out_height - 1) * sy + (rows - 1) * gy + 1 - spec.height - top)
    right = max(0, (spec.out_width - 1) * sx + (columns - 1) * gx + 1 - spec.width - left)
    wide = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=kernel_pad)
    y = np.arange(spec.out_height)[:, None, None, None] * sy + np.arange(rows)[None, None, :, None] * gy
    z = np.arange(spec.out_width)[None, :, None, None] * sx + np.arange(columns)[None, None, None, :] * gx
    return wide[:, :, y, z]


def convolution(x, weight, bias, addend, spec):
    n, groups = spec.batch, spec.groups
    taps = windows(x.astype(np.float64), spec, 0.0)
    taps = taps.reshape(n, groups, spec.channels, *taps.shape[2:])
    split = weight.astype(np.float64).reshape(groups, spec.out_channels // groups, spec.channels, *spec.kernel)
    out = np.einsum("ngcyxrs,gocrs->ngoyx", taps, split, optimize=True).reshape(
        n, spec.out_channels, spec.out_height, spec.out_width
    )
    out = out + bias[None, :, None, None] + (addend if spec.add else 0)
    return np.clip(out, *spec.activation) if spec.activation else out


def numbers(array, element):
    """The inverse of `kept`."""
    if element == BRAIN:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.view(np.float16).astype(np.float32) if element == HALF else array


def rounded(array, element):
    """Numbers that an element keeps exactly."""
    return numbers(kept(array, element), element)


MULTIPLIED = {PAIRS: bound("pair"), TF32: bound("binary16")}
"""The bound of fp32, by how tensor cores multiply it."""

NEAR = {"float32": bound("window"), HALF: bound("binary16"), BRAIN: bound("bfloat16")}
"""The bound of what is kept in an element."""


def in_halves(spec, element=HALF):
    """The spec with all its maps in 16 bits; a network's own input stays what it is."""
    return replace(
        spec,
        in_element="float32" if spec.planar else element,
        add_element=element if spec.add else "float32",
        out_element=element,
    )


def check_conv(gpu, spec, schedule=None):
    random = np.random.default_rng(1)
    x = random.standard_normal((spec.batch, spec.channels * spec.groups, spec.height, spec.width)).astype(np.float32)
    depth = spec.channels * math.prod(spec.kernel)
    weight = (random.standard_normal((spec.out_channels, spec.channels, *spec.kernel)) / math.sqrt(depth)).astype(
        np.float32
    )
    bias = random.standard_normal(spec.out_channels).astype(np.float32)
    addend = random.standard_normal((spec.batch, spec.out_channels, spec.out_height, spec.out_width)).astype(np.float32)
    x, weight, addend = rounded(x, spec.in_element), rounded(weight, spec.in_element), rounded(addend, spec.add_element)
    if spec.batch > 1:
        # slices of larger tensors: a block of other channels lies between the images
        grown = {
            "in_stride": x[0].size + BLOCK * x[0, 0].size,
            "out_stride": addend[0].size + BLOCK * addend[0, 0].size,
        }
        spec = replace(
            spec,
            add_stride=grown["out_stride"] if spec.add else 0,
            **({"out_stride": grown["out_stride"]} if spec.planar else grown),
        )
        if spec.planar:
            spec = replace(spec, in_stride=x[0].size)
    family = family_of(spec, schedule)
    schedule = schedule or family.choose(spec, GPU)
    out = kept(np.full((spec.batch, spec.out_stride or addend[0].size), np.nan, np.float32), spec.out_element)

    def laid_out(array, stride, element):
        rows = array.reshape(spec.batch, -1)
        rows = np.pad(rows, ((0, 0), (0, max(0, stride - rows.shape[1]))), constant_values=np.nan)
        return kept(rows, element)

    given = [
        laid_out(x if spec.planar else blocked(x), spec.in_stride, spec.in_element),
        family.pack(weight, spec, schedule),
        bias,
    ]
    given += [laid_out(blocked(addend), spec.add_stride, spec.add_element)] if spec.add else []
    gpu.call(spec, [*given, out], schedule)
    out = numbers(out, spec.out_element)
    want = convolution(x, weight, bias, addend, spec).astype(np.float32)
    if spec.plain:  # one image behind the other, and then nothing
        out, want = out.reshape(1, -1), want[:, : spec.plain].reshape(1, -1)
    else:
        want = blocked(want).reshape(spec.batch, -1)
    by = getattr(schedule, "by", "")
    near = MULTIPLIED[by] if by else NEAR[spec.out_element]
    np.testing.assert_allclose(out[:, : want.shape[1]], want, atol=near * max(1.0, np.abs(want).max()))
    assert np.isnan(out[:, want.shape[1] :]).all(), "wrote into a neighbour"


CONVS = {
    "3x3": Conv(1, 32, 9, 11, 48, 9, 11, (3, 3), pad=(1, 1), activation=(0.0, INF)),
    "1x1 with addend": Conv(1, 48, 17, 17, 80, 17, 17, (1, 1), add=True, activation=(0.0, 6.0)),
    "1x7": Conv(1, 16, 6, 17, 16, 6, 17, (1, 7), pad=(0, 3)),
    "stride 2, uneven padding": Conv(1, 16, 10, 10, 32, 5, 5, (3, 3), stride=(2, 2), pad=(0, 0)),
    "dilation": Conv(1, 16, 12, 9, 16, 12, 9, (3, 3), pad=(2, 2), dilation=(2, 2)),
    "planar": Conv(1, 3, 21, 19, 32, 10, 9, (3, 3), stride=(2, 2), planar=True),
    "planar, padded": Conv(1, 1, 9, 9, 16, 9, 9, (5, 5), pad=(2, 2), planar=True),
    "groups": Conv(1, 32, 7, 7, 96, 7, 7, (3, 3), pad=(1, 1), groups=3),
    "batch of slices": Conv(3, 32, 5, 7, 48, 5, 7, (3, 3), pad=(1, 1), add=True),
    "planar batch": Conv(2, 3, 8, 8, 16, 4, 4, (3, 3), stride=(2, 2), pad=(1, 1), planar=True),
    "fully connected": Conv(1, 272, 1, 1, 48, 1, 1, (1, 1)),
    "fully connected, odd depth": Conv(1, 16, 1, 1, 16, 1, 1, (1, 1), activation=(0.0, INF)),
    "fully connected, batch": Conv(5, 144, 1, 1, 32, 1, 1, (1, 1), add=True),
    "fully connected, many images": Conv(9, 32, 1, 1, 32, 1, 1, (1, 1)),
}


@pytest.mark.parametrize("spec", CONVS.values(), ids=CONVS)
def test_convolution(gpu, spec):
    check_conv(gpu, spec)


PLAIN = {
    "of whole rows": Conv(3, 48, 1, 1, 48, 1, 1, (1, 1), add=True, plain=40),
    "of odd rows": Conv(3, 48, 1, 1, 48, 1, 1, (1, 1), activation=(0.0, INF), plain=37),
    "of all channels": Conv(1, 48, 1, 1, 32, 1, 1, (1, 1), plain=32),
    "of a window": Conv(2, 16, 3, 3, 16, 1, 1, (3, 3), plain=10),
}


@pytest.mark.parametrize("how", [DenseSchedule(), GemmSchedule(4, 4, 8, 8), mma.TILES[-1], mma.TILES[2]])
@pytest.mark.parametrize("spec", PLAIN.values(), ids=PLAIN)
def test_plain_outputs(gpu, spec, how):
    """The caller's float32, of whatever is multiplied."""
    if isinstance(how, DenseSchedule) and not spec.pointwise:
        pytest.skip("a fully connected layer has no window")
    halves = replace(in_halves(spec), out_element="float32")
    for each in (halves,) if isinstance(how, mma.MmaSchedule) else (spec, halves):
        check_conv(gpu, each, how)


@pytest.mark.parametrize("tile", conv.TILES, ids=lambda t: f"{t.bm}x{t.bn}")
@pytest.mark.parametrize("split", [1, 3])
def test_every_tile(gpu, tile, split):
    """On a map and channels that no tile divides."""
    spec = Conv(1, 32, 9, 15, 80, 9, 15, (3, 3), pad=(1, 1), add=True, activation=(0.0, INF))
    check_conv(gpu, spec, replace(tile, split=split))


@pytest.mark.parametrize("spec", CONVS.values(), ids=CONVS)
def test_convolution_of_halves(gpu, spec):
    check_conv(gpu, in_halves(spec))


@pytest.mark.parametrize("name", ["1x1 with addend", "planar", "groups", "batch of slices", "fully connected, batch"])
def test_convolution_of_bfloat16(gpu, name):
    check_conv(gpu, in_halves(CONVS[name], BRAIN))


@pytest.mark.parametrize("tile", mma.TILES, ids=lambda t: f"{t.bm}x{t.bn}")
@pytest.mark.parametrize("split", [1, 3])
def test_every_tile_of_tensor_cores(gpu, tile, split):
    """On a map and channels that no tile divides, and a depth that is no whole number of steps."""
    spec = Conv(1, 48, 9, 15, 80, 9, 15, (3, 3), pad=(1, 1), add=True, activation=(0.0, INF))
    check_conv(gpu, in_halves(spec), replace(tile, split=split))


@pytest.mark.slow
@pytest.mark.parametrize("by", [PAIRS, TF32])
@pytest.mark.parametrize("tile", mma.TILES, ids=lambda t: f"{t.bm}x{t.bn}")
def test_every_tile_of_fp32_on_tensor_cores(gpu, tile, by):
    spec = Conv(1, 48, 9, 15, 80, 9, 15, (3, 3), pad=(1, 1), add=True, activation=(0.0, INF))
    check_conv(gpu, spec, replace(tile, by=by, split=3))


@pytest.mark.parametrize("by", [PAIRS, TF32])
@pytest.mark.parametrize("name", ["1x1 with addend", "groups", "batch of slices"])
def test_convolution_of_fp32_on_tensor_cores(gpu, name, by):
    spec = CONVS[name]
    check_conv(gpu, spec, mma.choose(spec, GPU.of_card, by=by))


def test_pairs_of_whole_numbers_are_exact(gpu):
    """Of 16 bits each, which two bfloat16 hold: every product but that of the low halves is exact, and so are sums below 2^24."""
    random = np.random.default_rng(7)
    spec = Conv(1, 16, 4, 4, 16, 4, 4, (1, 1))
    for fine, coarse in ((0, 1), (1, 0)):
        sides = [
            random.integers(-127, 128, (16, 16)) * 256 + random.integers(-127, 128, (16, 16)),
            random.integers(-127, 128, (16, 16)),
        ]
        x, weight = (sides[k].astype(np.float32) for k in (fine, coarse))
        x[[k for k in range(16) if k not in (1, 6, 11, 12)]] = 0
        out = np.zeros((16, 16), np.float32)
        schedule = replace(mma.TILES[-1], by=PAIRS)
        packed = mma.pack_weight(weight.reshape(16, 16, 1, 1), spec, schedule)
        gpu.call(spec, [np.ascontiguousarray(x.T), packed, np.zeros(16, np.float32), out], schedule)
        np.testing.assert_array_equal(out, (weight @ x).T)


@pytest.mark.parametrize("stages", [2, 4])
def test_stages_of_tensor_cores(gpu, stages):
    check_conv(gpu, in_halves(Conv(1, 64, 5, 9, 32, 5, 9, (1, 1))), replace(mma.TILES[-1], stages=stages))


def test_halves_are_rounded_as_numpy_does(gpu):
    """Ties, the smallest and the largest, infinity; a Relu keeps what it is given."""
    bits = np.random.default_rng(3).integers(0, 2**32, 4096, dtype=np.uint32)
    given = bits.view(np.float32)
    ties = (np.arange(1024, dtype=np.float32) + np.float32(0.5)) * np.float32(2**-24)
    edges = np.array([65504, 65519.996, 65520, 1e30, np.inf, 2**-14, 2**-24, 2**-25, 3 * 2**-25], np.float32)
    x = np.concatenate([given[np.isfinite(given)], ties, edges, -edges])
    x = np.pad(x, (0, -len(x) % (BLOCK * 4)))
    spec = Pack(1, BLOCK, 1, len(x) // BLOCK, out_element=HALF)
    out = np.zeros(len(x), np.uint16)
    gpu.call(spec, [x, np.arange(BLOCK, dtype=np.int32), out])
    with np.errstate(over="ignore"):
        want = blocked(x.reshape(1, BLOCK, -1, 1)).reshape(-1).astype(np.float16).view(np.uint16)
    np.testing.assert_array_equal(out, want)


HALVES_OF_THE_DEPTH = """
#define ID_HELPERS static inline
#define uint unsigned int
#define id_mma_half id_old_half
#define id_mma_bytes id_old_bytes
/* PTX: of A register i is row g + 8 i, of B the one register's k = 2 t + e (bytes: 4 t + e), n = g. */
static inline void id_mma_half_8(float &d0, float &d1, float &d2, float &d3, uint a0, uint a1, uint b) {
  const uint mine[6] = {a0, a1, b};
  uint(*warp)[6] = id_exchange(mine, 3);
  const uint g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  float *d[4] = {&d0, &d1, &d2, &d3};
  for (uint i = 0; i < 4; ++i)
    for (uint k = 0; k < 8; ++k)
      *d[i] += id_half::of(warp[g * 4 + k / 2][i >> 1], k % 2) * id_half::of(warp[(2 * t + (i & 1)) * 4 + k / 2][2], k % 2);
}
static inline void id_mma_bytes_8(int &d0, int &d1, uint a, uint b) {
  const uint mine[6] = {a, b};
  uint(*warp)[6] = id_exchange(mine, 2);
  const uint g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  int *d[2] = {&d0, &d1};
  for (uint i = 0; i < 2; ++i)
    for (uint k = 0; k < 16; ++k)
      *d[i] += id_unsigned::of(warp[g * 4 + k / 4][0], k % 4) * id_signed::of(warp[(2 * t + i) * 4 + k / 4][1], k % 4);
}
COMPOSED
#undef id_mma_half
#undef id_mma_bytes
extern "C" __global__ void both_SUFFIX(TYPE* __restrict__ one, TYPE* __restrict__ other, uint* __restrict__ words);
extern "C" __global__ void both_SUFFIX(TYPE* __restrict__ one, TYPE* __restrict__ other, uint* __restrict__ words) {
  __syncthreads();
  uint *w = words + 6 * threadIdx.x;
  TYPE *a = one + 4 * threadIdx.x, *b = other + 4 * threadIdx.x;
  id_mma_SUFFIX(a[0], a[1], a[2], a[3], w[0], w[1], w[2], w[3], w[4], w[5]);
  id_old_SUFFIX(b[0], b[1], b[2], b[3], w[0], w[1], w[2], w[3], w[4], w[5]);
}
"""


@pytest.mark.parametrize(("name", "kind", "dtype"), [("half", "float", np.float32), ("bytes", "int", np.int32)])
def test_what_sm_75_multiplies_in_halves_of_the_depth(gpu, name, kind, dtype):
    """By PTX's layouts of its two instructions, next to those of the one that later GPUs have; of small whole numbers."""
    text = HALVES_OF_THE_DEPTH.replace("COMPOSED", COMPOSED).replace("SUFFIX", name).replace("TYPE", kind)
    gpu.install(gpu.compile([text]))
    random = np.random.default_rng(5)
    numbers = random.integers(-8, 9, (32, 12)).astype(np.float16).view(np.uint32)
    words = numbers if name == "half" else random.integers(0, 2**32, (32, 6), dtype=np.uint32)
    sums = random.integers(-100, 100, (32, 4)).astype(dtype)
    one, other = sums.copy(), sums.copy()
    gpu.launch(f"both_{name}", 32, [one, other, np.ascontiguousarray(words)])
    np.testing.assert_array_equal(one, other)
    assert not np.array_equal(one, sums)


@pytest.mark.parametrize("schedule", [replace(mma.TILES[-1], split=2), GemmSchedule(4, 4, 8, 8, split=2)])
def test_blocks_in_the_other_order(gpu, schedule):
    """Of groups, and of parts whose sums meet."""
    spec = Conv(2, 64, 5, 9, 96, 5, 9, (3, 3), pad=(1, 1), groups=2)
    spec = in_halves(spec) if isinstance(schedule, mma.MmaSchedule) else spec
    check_conv(gpu, spec, replace(schedule, across=True))
    assert conv.extents(spec, replace(schedule, across=True))[:2] == conv.extents(spec, schedule)[1::-1]


def test_split_batch(gpu):
    """The parts' sums of several images, each a slice."""
    check_conv(gpu, Conv(2, 64, 3, 5, 32, 3, 5, (3, 3), pad=(1, 1), add=True), GemmSchedule(4, 4, 8, 8, split=4))


def test_same_bits_in_either_order(simulated):
    """A split convolution and a fully connected layer add up in one order, whatever the threads do."""
    random = np.random.default_rng(2)
    for spec, schedule in (
        (Conv(1, 64, 4, 4, 32, 4, 4, (3, 3), pad=(1, 1)), GemmSchedule(4, 4, 8, 8, split=4)),
        (Conv(1, 512, 1, 1, 16, 1, 1, (1, 1)), DenseSchedule()),
    ):
        x = random.standard_normal(spec.channels * spec.height * spec.width).astype(np.float32)
        weight = random.standard_normal((spec.out_channels, spec.channels, *spec.kernel)).astype(np.float32)
        results = []
        for backwards in (0, 1):
            simulated.library.fake_backwards(backwards)
            out = np.zeros(spec.out_channels * spec.out_height * spec.out_width, np.float32)
            simulated.call(
                spec,
                [
                    x,
                    family_of(spec, schedule).pack(weight, spec, schedule),
                    np.zeros(spec.out_channels, np.float32),
                    out,
                ],
                schedule,
            )
            results.append(out)
        simulated.library.fake_backwards(0)
        np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("element", ["float32", HALF, BRAIN])
def test_siblings(gpu, element):
    """One product, three outputs: with bounds of their own, in slices of their own, of two images."""
    plane, bounds = 35, ((0.0, INF), None, (-0.5, 0.5))
    sizes = (48, 16, 80)
    split = tuple(
        Output(size, clamp, (0, 0, 0, 0), (size + 16) * plane, element)
        for size, clamp in zip(sizes, bounds, strict=True)
    )
    spec = Conv(2, 32, 5, 7, 144, 5, 7, (1, 1), in_stride=32 * plane, in_element=element, split=split)
    random = np.random.default_rng(4)
    x = rounded(random.standard_normal((2, 32, 5, 7)).astype(np.float32), element)
    weight = rounded((random.standard_normal((144, 32, 1, 1)) / 6).astype(np.float32), element)
    bias = random.standard_normal(144).astype(np.float32)
    family = family_of(spec)
    outs = [kept(np.full((2, o.out_stride), np.nan, np.float32), element) for o in split]
    packed = family.pack(weight, spec, family.choose(spec, GPU))
    gpu.call(spec, [kept(blocked(x), element), packed, bias, *outs])
    want, first = convolution(x, weight, bias, 0, spec), 0
    for out, output in zip(outs, split, strict=True):
        part = np.clip(want[:, first : first + output.channels], *(output.activation or (-INF, INF)))
        first += output.channels
        found = numbers(out, element)
        used = output.channels * plane
        np.testing.assert_allclose(found[:, :used], blocked(part).reshape(2, -1), atol=NEAR[element] * 4)
        assert np.isnan(found[:, used:]).all(), "wrote into a neighbour"


# -- the choice of schedules ---------------------------------------------------------------------------------------------
def test_tiles_divide_their_work():
    for tile in conv.TILES:
        assert tile.ty % 8 == 0
        assert tile.tx % 4 == 0
        assert tile.tn % 4 == 0
        assert tile.bm * 4 % tile.threads == 0
        assert tile.bn * 4 % tile.threads == 0
        assert 2 * 4 * (tile.bm * 20 + tile.bn * 16) <= 48 * 1024, "more shared memory than a block may have"


def test_small_maps_are_split_and_large_ones_are_not():
    small, large = Conv(1, 2080, 8, 8, 192, 8, 8, (1, 1)), Conv(1, 64, 147, 147, 64, 147, 147, (3, 3), pad=(1, 1))
    assert conv.choose(small, GPU.of_card).split > 1
    assert conv.choose(large, GPU.of_card).split == 1
    assert conv.choose(large, GPU.of_card).bm * conv.choose(large, GPU.of_card).bn >= 64 * 64


def test_the_card_decides_the_first_choice():
    """An H100 has more multiprocessors than an A100 to give work to, and a T4 fewer."""
    spec = in_halves(Conv(1, 1088, 17, 17, 192, 17, 17, (1, 1)))
    blocks = [math.prod(conv.extents(spec, mma.choose(spec, card_of(arch)))) for arch in ("sm_75", "sm_80", "sm_90")]
    assert blocks == sorted(blocks)
    assert blocks[0] < blocks[-1]
    deep = Conv(1, 2080, 8, 8, 192, 8, 8, (1, 1))
    assert conv.choose(deep, card_of("sm_75")) != conv.choose(deep, card_of("sm_120"))


def test_every_choice_of_the_space_fits():
    """What is searched keeps to a block's shared memory, and its grid to what a launch takes."""
    for spec in (
        *map(in_halves, CONVS.values()),
        *CONVS.values(),
        in_halves(Conv(64, 16, 299, 299, 32, 299, 299, (1, 1))),
    ):
        for isa in (GPU, replace(GPU, floats=PAIRS)):
            family = find(spec, isa).family
            for base, values in family.space(spec, isa):
                for settings in itertools.product(*values.values()):
                    schedule = replace(base, **dict(zip(values, settings, strict=True)))
                    assert schedule.shared_bytes <= 48 << 10
                    assert conv.extents(spec, schedule)[1] <= 65535
                    assert len(family.features(spec, schedule, 132)) <= 17


# -- windows -------------------------------------------------------------------------------------------------------------
WINDOWS = {
    "max": Window(WindowOp.MAX, 1, 2, 9, 7, 4, 3, (3, 3), (2, 2), (0, 0, 0, 0)),
    "max, padded, of slices": Window(
        WindowOp.MAX, 2, 1, 6, 6, 6, 6, (3, 3), (1, 1), (1, 1, 1, 1), in_stride=36 * 48, out_stride=36 * 32
    ),
    "max, dilated": Window(WindowOp.MAX, 1, 1, 9, 9, 5, 5, (3, 3), (1, 1), (0, 0, 0, 0), (2, 2)),
    "average": Window(WindowOp.AVERAGE, 1, 1, 8, 8, 8, 8, (3, 3), (1, 1), (1, 1, 1, 1)),
    "average, with padding": Window(WindowOp.AVERAGE, 1, 1, 8, 8, 8, 8, (3, 3), (1, 1), (1, 1, 1, 1), include_pad=True),
    "average, past the padding": Window(
        WindowOp.AVERAGE, 1, 1, 7, 7, 4, 4, (3, 3), (2, 2), (1, 1, 1, 1), include_pad=True
    ),
    "depthwise": Window(WindowOp.DEPTHWISE, 1, 3, 9, 9, 5, 5, (3, 3), (2, 2), (1, 1, 1, 1), activation=(0.0, 6.0)),
    "one pixel": Window(WindowOp.MAX, 1, 1, 1, 1, 1, 1, (3, 3), (1, 1), (1, 1, 1, 1)),
}


def window_reference(x, weight, bias, spec):
    taps = windows(x, spec, np.nan)
    if spec.op is WindowOp.MAX:
        return np.nanmax(taps, axis=(4, 5))
    if spec.op is WindowOp.DEPTHWISE:
        out = np.einsum("ncyxrs,crs->ncyx", np.nan_to_num(taps), weight) + bias[None, :, None, None]
        return np.clip(out, *spec.activation) if spec.activation else out
    if not spec.include_pad:
        return np.nanmean(taps, axis=(4, 5))
    top, left, bottom, right = spec.pad
    inside = np.full((1, 1, spec.height + top + bottom, spec.width + left + right), 1.0)
    high, wide = (
        ((spec.out_height - 1) * spec.stride[0] + spec.kernel[0]),
        ((spec.out_width - 1) * spec.stride[1] + spec.kernel[1]),
    )
    grown = np.zeros((1, 1, max(high, inside.shape[2]), max(wide, inside.shape[3])))
    grown[:, :, : inside.shape[2], : inside.shape[3]] = inside
    count = windows(grown, replace(spec, pad=(0, 0, 0, 0), height=grown.shape[2], width=grown.shape[3]), 0.0).sum(
        axis=(4, 5)
    )
    return np.nansum(taps, axis=(4, 5)) / count


@pytest.mark.parametrize("spec", WINDOWS.values(), ids=WINDOWS)
def test_window(gpu, spec):
    random = np.random.default_rng(3)
    channels = spec.blocks * BLOCK
    x = random.standard_normal((spec.batch, channels, spec.height, spec.width)).astype(np.float32)
    weight = random.standard_normal((channels, *spec.kernel)).astype(np.float32)
    bias = random.standard_normal(channels).astype(np.float32)
    plane = channels * spec.out_height * spec.out_width
    out = np.full((spec.batch, spec.out_stride or plane), np.nan, np.float32)
    rows = blocked(x).reshape(spec.batch, -1)
    source = np.pad(rows, ((0, 0), (0, max(0, spec.in_stride - rows.shape[1]))))
    packed = np.ascontiguousarray(weight.reshape(spec.blocks, BLOCK, *spec.kernel).transpose(0, 2, 3, 1))
    gpu.call(spec, [source, *([packed, bias] if spec.op is WindowOp.DEPTHWISE else []), out])
    want = blocked(window_reference(x, weight, bias, spec).astype(np.float32)).reshape(spec.batch, -1)
    np.testing.assert_allclose(out[:, :plane], want, atol=bound("kernel"))
    assert np.isnan(out[:, plane:]).all()


# -- the rest ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("of", "told"), [("mean", np.mean), ("sum", np.sum), ("l2", np.linalg.norm)])
def test_global_average(gpu, of, told):
    for spec in (
        GlobalAverage(1, 3, 64, of=of),
        GlobalAverage(2, 1, 5, in_stride=7 * BLOCK, out_stride=2 * BLOCK, of=of),
    ):
        x = (
            np.random.default_rng(4)
            .standard_normal((spec.batch, spec.in_stride or spec.blocks * spec.pixels * BLOCK))
            .astype(np.float32)
        )
        out = np.full((spec.batch, spec.out_stride or spec.blocks * BLOCK), np.nan, np.float32)
        gpu.call(spec, [x, out])
        maps = x[:, : spec.blocks * spec.pixels * BLOCK].reshape(spec.batch, spec.blocks, spec.pixels, BLOCK)
        want, near = told(maps, axis=2), bound("rounding") * (1 if of == "mean" else spec.pixels)
        np.testing.assert_allclose(out[:, : spec.blocks * BLOCK], want.reshape(spec.batch, -1), atol=near)


def _softplus(x):
    return np.log1p(np.exp(x))


_erf = np.vectorize(math.erf)

UNARY = {
    "identity": ((), lambda x: x),
    "clip": ((-0.5, 0.75), lambda x: np.clip(x, -0.5, 0.75)),
    "leaky_relu": ((0.1,), lambda x: np.where(x > 0, x, 0.1 * x)),
    "affine": ((2.0, -1.0), lambda x: 2 * x - 1),
    "abs": ((), np.abs),
    "square": ((), np.square),
    "exp": ((), np.exp),
    "erf": ((), _erf),
    "gelu": ((), lambda x: 0.5 * x * (1 + _erf(x / math.sqrt(2)))),
    "gelu_tanh": ((), lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))),
    "elu": ((0.5,), lambda x: np.where(x > 0, x, 0.5 * np.expm1(x))),
    "selu": ((1.67326, 1.0507), lambda x: 1.0507 * np.where(x > 0, x, 1.67326 * np.expm1(x))),
    "mish": ((), lambda x: x * np.tanh(_softplus(x))),
    "silu": ((), lambda x: x / (1 + np.exp(-x))),
    "sigmoid": ((), lambda x: 1 / (1 + np.exp(-x))),
    "softplus": ((), _softplus),
    "softsign": ((), lambda x: x / (1 + np.abs(x))),
    "tanh": ((), np.tanh),
    "hard_sigmoid": ((0.2, 0.5), lambda x: np.clip(0.2 * x + 0.5, 0, 1)),
    "hard_swish": ((), lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    "sqrt": ((), lambda x: np.sqrt(x)),
    "reciprocal": ((), lambda x: 1 / x),
    "log": ((), np.log),
    "requantized": ((0.25, -3.0, 4.0), lambda x: np.clip(np.rint(x / 0.25), -3, 4) * 0.25),
}
BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "prelu": lambda x, slope: np.where(x > 0, x, slope * x),
}


def test_the_tables_have_what_a_cpu_has():
    assert set(gpu_simple.UNARY) == set(cpu_simple.UNARY) == set(UNARY)
    assert set(gpu_simple.BINARY) == set(cpu_simple.BINARY) == set(BINARY)


@pytest.mark.parametrize("op", UNARY)
def test_unary(gpu, op):
    constants, function = UNARY[op]
    x = np.random.default_rng(5).standard_normal((2, 3, 5, BLOCK)).astype(np.float32) * 3
    if op in ("sqrt", "log", "reciprocal"):
        x = np.abs(x) + np.float32(0.1)
    out = np.full_like(x, np.nan)
    gpu.call(Map(op, 2, 3, 5, constants=constants, in_stride=240, out_stride=240), [x, out])
    want = function(x.astype(np.float64))
    np.testing.assert_allclose(out, want, rtol=bound("kernel"), atol=bound("rounding"))


@pytest.mark.parametrize("op", BINARY)
@pytest.mark.parametrize("second", ["tensor", "channel"])
def test_binary(gpu, op, second):
    random = np.random.default_rng(6)
    x = random.standard_normal((2, 3, 5, BLOCK)).astype(np.float32)
    y = random.standard_normal((2, 3, 5 if second == "tensor" else 1, BLOCK)).astype(np.float32)
    out = np.full_like(x, np.nan)
    strides = {"in_stride": 240, "second_stride": 240 if second == "tensor" else 48, "out_stride": 240}
    gpu.call(Map(op, 2, 3, 5, second, (-0.5, 0.5), **strides), [x, y, out])
    np.testing.assert_allclose(out, np.clip(BINARY[op](x, y), -0.5, 0.5), rtol=bound("kernel"), atol=bound("rounding"))


def test_pack_and_unpack(gpu):
    x = np.random.default_rng(7).standard_normal((2, 20, 7)).astype(np.float32)
    slots = np.array([*range(3, 20), 30, 31, 21])
    table = np.full(32, -1, np.int32)
    table[slots] = np.arange(20)
    packed = np.full((2, 2, 7, BLOCK), np.nan, np.float32)
    gpu.call(Pack(2, 20, 2, 7, out_stride=224), [x, table, packed])
    want = np.zeros((2, 32, 7), np.float32)
    want[:, slots] = x
    np.testing.assert_array_equal(packed, want.reshape(2, 2, BLOCK, 7).transpose(0, 1, 3, 2))
    back = np.full_like(x, np.nan)
    gpu.call(Unpack(2, 20, 2, 7, in_stride=224), [packed, slots.astype(np.int32), back])
    np.testing.assert_array_equal(back, x)


def test_pack_and_unpack_with_channels_last(gpu):
    x = np.random.default_rng(7).standard_normal((2, 7, 20)).astype(np.float32)
    packed = np.full((2, 2, 7, BLOCK), np.nan, np.float32)
    gpu.call(Pack(2, 20, 2, 7, out_stride=224, last=True), [x, packed])
    want = np.zeros((2, 32, 7), np.float32)
    want[:, :20] = x.transpose(0, 2, 1)
    np.testing.assert_array_equal(packed, want.reshape(2, 2, BLOCK, 7).transpose(0, 1, 3, 2))
    back = np.full_like(x, np.nan)
    gpu.call(Unpack(2, 20, 2, 7, in_stride=224, last=True), [packed, back])
    np.testing.assert_array_equal(back, x)


@pytest.mark.parametrize("together", [True, False])
def test_normalise(gpu, together):
    random = np.random.default_rng(8)
    x = random.integers(0, 256, (2, 3, 77)).astype(np.uint8)
    factor, summand = (random.standard_normal(3).astype(np.float32) for _ in range(2))
    out = np.full((2, 3, 77), np.nan, np.float32)
    gpu.call(
        Normalise(2, 3, 77, together),
        [np.ascontiguousarray(x.transpose(0, 2, 1)) if together else x, factor, summand, out],
    )
    np.testing.assert_allclose(out, x * factor[:, None] + summand[:, None], rtol=bound("kernel"), atol=bound("kernel"))


@pytest.mark.parametrize("element", ["float32", HALF])
@pytest.mark.parametrize("channels", [48, 35])
def test_layer_normalization(gpu, element, channels):
    """Channels that do not fill their blocks have a mask."""
    random = np.random.default_rng(4)
    x = rounded((3 + random.standard_normal((2, 48, 5, 7))).astype(np.float32), element)
    scale, bias = (random.standard_normal(48).astype(np.float32) for _ in range(2))
    mask = (np.arange(48) < channels).astype(np.float32)
    partial = channels if channels < 48 else 0
    spec = ChannelNorm(2, 3, 35, 1e-5, x[0].size, x[0].size, element, element, partial)
    out = kept(np.full(x.shape, np.nan, np.float32), element)
    gpu.call(spec, [kept(blocked(x), element), scale, bias, *([mask] if partial else []), out])
    mean = x[:, :channels].mean(1, keepdims=True)
    deviation = np.sqrt(x[:, :channels].var(1, keepdims=True) + 1e-5)
    want = (x - mean) / deviation * scale.reshape(-1, 1, 1) + bias.reshape(-1, 1, 1)
    near = NEAR[element]
    found = numbers(out, element).reshape(blocked(x).shape)
    np.testing.assert_allclose(found, blocked(want), atol=near * np.abs(want).max())


@pytest.mark.parametrize("turned", [False, True])
def test_product_of_two_matrices(gpu, turned):
    random = np.random.default_rng(3)
    x, y = (random.standard_normal(shape).astype(np.float32) for shape in ((3, 13, 7), (3, 7, 10)))
    out = np.full((3, 13, 10), np.nan, np.float32)
    left = np.ascontiguousarray(x.transpose(0, 2, 1)) if turned else x
    gpu.call(MatrixProduct(3, 13, 7, 10, turned), [left, y, out])
    np.testing.assert_allclose(out, x @ y, atol=bound("window"))


@pytest.mark.parametrize("length", [1, 10, 1000])
def test_softmax(gpu, length):
    x = np.random.default_rng(8).standard_normal((3, length)).astype(np.float32) * 10
    out = np.full_like(x, np.nan)
    gpu.call(Softmax(3, length), [x, out])
    exponentials = np.exp(x.astype(np.float64) - x.max(axis=1, keepdims=True))
    np.testing.assert_allclose(out, exponentials / exponentials.sum(axis=1, keepdims=True), atol=bound("rounding"))
