"""Constants of a `spec.Vta` from plain numbers: tiles of weights, of shortcuts and of biases.

A tile is int8 ``[B outputs, B inputs]``. A bias is the product of one constant vector, ``[127, ..., 127, 1]``, and a
tile of its own: ``127 * (sum of 15 weights) + remainder``.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Int8 = NDArray[np.int8]

LARGEST = 127


def tiles(weight: NDArray[np.int8], block: int) -> Int8:
    """A weight as dense tiles.

    Args:
        weight: int8 ``[O, I, r, s]``, both in whole blocks.

    Returns:
        ``[O / B, I / B, r, s, B, B]``.
    """
    outputs, inputs, rows, columns = weight.shape
    split = weight.reshape(outputs // block, block, inputs // block, block, rows, columns)
    return np.ascontiguousarray(split.transpose(0, 2, 4, 5, 1, 3))


def diagonal(values: NDArray[np.int8], block: int) -> Int8:
    """Tiles that multiply each channel by a number of its own.

    Args:
        values: int8 ``[O, r, s]``, whole blocks.

    Returns:
        ``[O / B, 1, r, s, B, B]``.
    """
    outputs, rows, columns = values.shape
    found = np.zeros((outputs // block, 1, rows, columns, block, block), np.int8)
    lane = np.arange(block)
    found[:, 0, :, :, lane, lane] = values.reshape(outputs // block, block, rows, columns).transpose(1, 0, 2, 3)
    return found


def ones(block: int, rows: int = 1) -> Int8:
    """The constant vector that bias tiles multiply, int8 ``[rows, block]``."""
    return np.tile(np.array([LARGEST] * (block - 1) + [1], np.int8), (rows, 1))


def bias_tiles(bias: NDArray[np.int32], block: int) -> Int8:
    """Tiles whose products with `ones` add up to a bias, as few as that takes.

    Args:
        bias: int32 ``[O]``, whole blocks.

    Returns:
        ``[O / B, n, B, B]``, n at least 1.
    """
    reach = (block - 1) * LARGEST * LARGEST
    count = max(1, -(-int(np.abs(bias.astype(np.int64)).max(initial=0)) // reach))
    found = np.zeros((len(bias) // block, count, block, block), np.int8)
    for channel, number in enumerate(bias.tolist()):
        left = int(number)
        for tile in range(count):
            part = max(-reach, min(reach, left))
            left -= part
            row = found[channel // block, tile, channel % block]
            whole = int(np.rint(part / LARGEST))
            row[-1] = part - whole * LARGEST
            share, over = divmod(abs(whole), block - 1)
            row[:-1] = share
            row[:over] += 1
            row[:-1] *= 1 if whole >= 0 else -1
    return found
