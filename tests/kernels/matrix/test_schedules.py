"""How convolutions on tiles are cut and ordered; that any way computes the same is tests/lower/test_tuned.py's."""

from __future__ import annotations

import pytest

from inception_deploy import targets
from inception_deploy.kernels.elements import PAIR
from inception_deploy.kernels.matrix import conv as matrix_conv
from inception_deploy.kernels.spec import Conv


def conv(channels: int, out: int, kernel: tuple[int, int], size: int, stride: int = 1) -> Conv:
    """A square output of pairs; the input has what the kernel reads around it."""
    height, width = ((size - 1) * stride + taps for taps in kernel)
    return Conv(1, channels, height, width, out, size, size, kernel, (stride, stride), in_element=PAIR)


@pytest.mark.parametrize(
    ("kernel", "size", "stride", "tiles", "across"),
    [
        ((1, 1), 17, 1, 19, False),
        ((7, 1), 17, 1, 19, True),  # 34 if every row of 17 pixels began a tile
        ((1, 7), 17, 1, 25, True),
        ((3, 3), 35, 1, 81, True),
        ((3, 1), 8, 1, 4, True),
        ((3, 3), 17, 2, 34, False),  # every other pixel would be dropped
    ],
)
def test_tiles_go_on_in_the_next_row_where_that_saves_some(
    kernel: tuple[int, int], size: int, stride: int, tiles: int, across: bool
) -> None:
    spec = conv(32, 32, kernel, size, stride)
    rows = matrix_conv.rows_of(spec)
    assert rows.tiles == tiles
    assert rows.rows <= 16
    assert bool(rows.pitch) == across


@pytest.mark.parametrize("kernel", [(7, 1), (1, 7), (3, 3), (5, 5), (1, 3)])
@pytest.mark.parametrize("size", [5, 8, 17, 35])
def test_no_tile_reads_beyond_the_input(kernel: tuple[int, int], size: int) -> None:
    """The last pixel of the last tile, at the last tap, is the input's last; and every output pixel has a tile."""
    spec = conv(32, 32, kernel, size)
    rows = matrix_conv.rows_of(spec)
    if rows.pitch:
        last = (kernel[0] - 1) * spec.width + kernel[1] - 1
        assert rows.pitch == spec.width
        assert rows.width - 1 + last == spec.height * spec.width - 1
        assert rows.width <= rows.count * rows.rows < rows.width + rows.count


@pytest.mark.parametrize(
    ("spec", "outer"),
    [
        (conv(512, 128, (1, 1), 28), True),
        (conv(1088, 192, (1, 1), 17), True),
        (conv(64, 64, (3, 3), 35), True),
        (conv(1024, 256, (1, 1), 14), False),  # more weights than pixels
        (conv(384, 1088, (1, 1), 17), False),  # more than stay in the cache
        (conv(96, 192, (3, 3), 71), False),
        (conv(320, 32, (1, 1), 35), False),  # one group: there is no other order
    ],
)
def test_outputs_come_first_where_their_weights_stay(spec: Conv, outer: bool) -> None:
    schedule = targets.parse("cpu:avx512-amx").schedule(spec)
    assert schedule.rows_outer == outer
    assert schedule.fetch == (matrix_conv.AHEAD_KIB if outer else matrix_conv.NEXT_GROUP)
