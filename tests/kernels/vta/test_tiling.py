"""Tilings fit, are the same each time, and are worth what the model says; the bound counts what must be done."""

from __future__ import annotations

import pytest

from inception_deploy.errors import DeployError
from inception_deploy.kernels import table
from inception_deploy.kernels.isa import ISAS
from inception_deploy.kernels.spec import Pooling, Reads, Reduce, Stage, Term, Vta
from inception_deploy.kernels.vta import tiling
from inception_deploy.kernels.vta.accelerator import Accelerator
from inception_deploy.kernels.vta.boards import BOARDS
from inception_deploy.kernels.vta.bound import bound
from inception_deploy.kernels.vta.config import Config

HLS = Accelerator("pynq", Config(), BOARDS["pynq"])
CHISEL = Accelerator("de10nano", Config(), BOARDS["de10nano"])


def convolution(
    blocks: int, outs: int, size: int, kernel: tuple[int, int] = (1, 1), more: tuple[Term, ...] = ()
) -> Vta:
    """A convolution with a bias, a shift and a clamp that keeps its size."""
    term = Term(blocks, size, size, kernel, pad=(kernel[0] // 2, kernel[1] // 2))
    stage = Stage((term, *more), bias="tiles", bias_tiles=1, shift=9, low=0, high=127)
    return Vta(1, outs, size, size, (stage,))


@pytest.mark.parametrize(("at", "epilogue"), [(HLS, 8), (CHISEL, 5)])
def test_the_leanest_epilogue_of_a_convolution(at: Accelerator, epilogue: int) -> None:
    found = bound(convolution(4, 4, 14), at)
    assert found.epilogue == epilogue * 4 * 14 * 14
    assert found.gemm == found.padded == 4 * 4 * 14 * 14
    assert found.cycles == found.gemm + found.epilogue > found.bus


def test_padding_is_no_work() -> None:
    found = bound(convolution(1, 1, 7, (3, 3)), HLS)
    assert found.padded == 9 * 49
    assert found.gemm == (7 + 6 + 6) ** 2
    assert found.nominal - found.cycles == found.padded - found.gemm


def test_a_dense_layer_is_bound_by_its_weights() -> None:
    spec = convolution(32, 63, 1)
    found = bound(spec, HLS)
    assert found.moved == 32 * 63 * 256 + 63 * 256 + (32 + 63) * 16 + 16
    assert found.cycles == found.bus == -(-found.moved // 8)


def test_windows_count_rows_and_then_columns() -> None:
    term = Term(2, 16, 16, reads=Reads.OWN, span=1, shared=True)
    spec = Vta(1, 2, 8, 8, (Stage((term,)),), Pooling(Reduce.MAX, 16, 16, (3, 3), (2, 2), (1, 1)))
    found = bound(spec, HLS)
    assert found.epilogue == 2 * (16 * 16 + 2 * (2 * 8 * 16 + 2 * 8 * 8))


@pytest.mark.parametrize("at", [HLS, CHISEL])
@pytest.mark.parametrize(
    "spec", [convolution(12, 12, 17, (1, 7)), convolution(32, 32, 7, (3, 3)), convolution(4, 4, 56, (3, 3))]
)
def test_the_model_comes_close_to_the_bound(at: Accelerator, spec: Vta) -> None:
    first, *rest = tiling.best(spec, at)
    assert first == tiling.choose(spec, at) == tiling.best(spec, at)[0]
    costs = [tiling.cost(spec, at, one) for one in (first, *rest)]
    assert costs == sorted(costs)
    assert 1 <= costs[0] / bound(spec, at).cycles < 1.08
    assert all(tiling.fits(spec, at, one) for one in (first, *rest))


def test_tiles_cover_the_output_once() -> None:
    spec = convolution(4, 10, 13)
    for one in tiling.candidates(spec, HLS):
        seen = [
            (y, x, block)
            for tile in tiling.tiles(spec, one)
            for y in range(tile.top, tile.top + tile.rows)
            for x in range(tile.left, tile.left + tile.columns)
            for block in range(tile.first, tile.first + tile.blocks)
        ]
        assert len(seen) == len(set(seen)) == 13 * 13 * 10


def test_what_does_not_fit_is_refused() -> None:
    tiny = Accelerator("tiny", Config(log_inp_buffer=6), BOARDS["pynq"])
    spec = convolution(1, 1, 9, (3, 3))
    assert "does not fit half of the SRAM of tiny" in str(tiling.refused(spec, tiny))
    with pytest.raises(DeployError, match="tiny cannot compute a 16-16 3x3"):
        tiling.choose(spec, tiny)


def test_the_table_has_the_family() -> None:
    spec = convolution(4, 4, 14)
    assert table.find(spec, HLS).family.name == "vta.step"
    with pytest.raises(DeployError, match="avx512 is no VTA"):
        table.find(spec, ISAS[0])
    other = Accelerator("wide", Config(log_block=5), BOARDS["pynq"])
    with pytest.raises(DeployError, match="its tiles are 1 x 16, wide multiplies 1 x 32"):
        table.find(spec, other)
