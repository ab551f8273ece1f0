"""What a step of a VTA becomes computes the same bytes in less time."""

from __future__ import annotations

import numpy as np
import pytest

from inception_deploy.kernels.spec import Pooling, Reads, Reduce, Stage, Term, Vta
from inception_deploy.kernels.vta import constants, meaning, tiling
from inception_deploy.kernels.vta.accelerator import Accelerator
from inception_deploy.kernels.vta.boards import BOARDS
from inception_deploy.kernels.vta.config import Config
from inception_deploy.lower.layers import Layer, Param, Storage
from inception_deploy.lower.vta_fusion import fuse

PYNQ = Accelerator("pynq", Config(), BOARDS["pynq"])


def step(kernel: tuple[int, int], size: tuple[int, int], out: tuple[int, int], pad: tuple[int, int], alike: bool = True,
         times: int = 1, step: int = 1) -> tuple[Layer, np.ndarray]:  # fmt: skip
    """A convolution of 8 blocks into 2 with a bias, its taps alike or not, and an input for it."""
    random = np.random.default_rng(3)
    weight = random.integers(-50, 50, (32, 128, *((1, 1) if alike else kernel)), dtype=np.int8)
    tiles = constants.tiles(np.ascontiguousarray(np.broadcast_to(weight, (32, 128, *kernel))), 16)
    bias = constants.bias_tiles(random.integers(-20000, 20000, 32, dtype=np.int32), 16)
    term = Term(8, *size, kernel, (step, step), pad, shift=int(times > 1))
    stage = Stage((term,) * times, bias="tiles", bias_tiles=1, shift=12, low=-128, high=127)
    spec = Vta(1, 2, *out, (stage,))
    source = Storage("x", 1, size[0] * size[1], 8, np.arange(128), dtype="int8")
    goal = Storage("y", 1, out[0] * out[1], 2, np.arange(32), dtype="int8", port=("output", 0))
    operands: list[tuple[Storage, str] | Param] = []
    for number in range(times):
        operands += [(source, f"in_stride{number}"), Param("raw", tiles)]
    operands += [Param("raw", constants.ones(16)), Param("raw", bias)]
    given = random.integers(-128, 128, (1, 8, *size, 16), dtype=np.int8)
    return Layer("conv", ["conv"], spec, operands, goal, "y", macs=spec.macs), given


def computed(layer: Layer, given: np.ndarray) -> np.ndarray:
    assert isinstance(layer.spec, Vta)
    return meaning.compute(layer.spec, [o.array if isinstance(o, Param) else given for o in layer.operands])


@pytest.mark.parametrize(
    ("size", "out", "pad", "times", "stride"),
    [
        ((17, 17), (17, 17), (1, 1), 1, 1),
        ((17, 17), (15, 15), (0, 0), 1, 1),
        ((17, 17), (1, 15), (-14, -1), 1, 1),  # the last row of a map, without its corners
        ((17, 17), (17, 17), (1, 1), 2, 1),
        ((17, 17), (8, 8), (0, 0), 1, 2),
    ],
)
def test_taps_that_are_alike_multiply_once(
    size: tuple[int, int], out: tuple[int, int], pad: tuple[int, int], times: int, stride: int
) -> None:
    layer, given = step((3, 3), size, out, pad, times=times, step=stride)
    before, wanted, macs = layer.spec, computed(layer, given), layer.macs
    assert isinstance(before, Vta)
    (after,) = fuse([layer], PYNQ)
    assert isinstance(after.spec, Vta)
    assert after.spec.pooling is not None
    assert after.spec.pooling.reduce is Reduce.SUM
    assert after.macs * 9 == macs
    assert np.array_equal(computed(after, given), wanted)
    costs = [tiling.cost(spec, PYNQ, tiling.choose(spec, PYNQ)) for spec in (after.spec, before)]
    assert costs[0] < costs[1]


def test_other_taps_stay() -> None:
    layer, _ = step((3, 3), (17, 17), (17, 17), (1, 1), alike=False)
    before = layer.spec
    assert fuse([layer], PYNQ)[0].spec == before


def test_an_average_of_each_channel_stays_a_product() -> None:
    """One product a pixel and then windows over the accumulators take longer than nine products."""
    term = Term(2, 17, 17, (3, 3), pad=(1, 1), reads=Reads.OWN, span=1, shared=True)
    spec = Vta(1, 2, 17, 17, (Stage((term,), shift=4, low=-128, high=127),))
    summed = Vta(1, 2, 17, 17, (Stage((Term(2, 17, 17, reads=Reads.OWN, span=1, shared=True),), shift=4, low=-128,
                 high=127),), Pooling(Reduce.SUM, 17, 17, (3, 3), pad=(1, 1)))  # fmt: skip
    assert tiling.cost(spec, PYNQ, tiling.choose(spec, PYNQ)) < tiling.cost(summed, PYNQ, tiling.choose(summed, PYNQ))
