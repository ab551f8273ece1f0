"""Where the values of a moved map come from: found by moving the numbers of their places.

An operator that moves values (Slice, Split, Resize, Pad, Transpose, ...) is run on a map whose values are the channels
of their places, on one of the rows, and so on. What comes out says where each value is from, whatever the operator's
own rules are. Where channels, rows and columns go their own ways, three short lists say all of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from ...quantize.integer_network import run_alone

Indices = NDArray[np.int32]

_FAR = 1 << 20
"""More than any axis is long: what is not so much more on numbers so much larger was not moved."""


@dataclass(frozen=True)
class Places:
    """Where each channel, row and column of a map is from; -1: from nowhere, so that a constant stands there."""

    channels: Indices
    rows: Indices
    columns: Indices

    @property
    def filled(self) -> bool:
        """A constant stands somewhere."""
        return any(int(part.min(initial=0)) < 0 for part in (self.channels, self.rows, self.columns))

    def keeps_pixels(self, height: int, width: int) -> bool:
        """Rows and columns stay where they are."""
        return all(np.array_equal(part, np.arange(size)) for part, size in ((self.rows, height), (self.columns, width)))


def image(shape: Sequence[int]) -> tuple[int, int, int, int] | None:
    """(N, C, H, W) of a map, or of a vector, which is a map of one pixel. Axes between the first and the last two are
    the channels'; None for three axes, or fewer than two.
    """
    if len(shape) == 2:
        return shape[0], shape[1], 1, 1
    if len(shape) < 4:
        return None
    return shape[0], int(np.prod(shape[1:-2], dtype=np.int64)), shape[-2], shape[-1]


def trace(node: ir.Node, given: Sequence[int]) -> list[Places | None]:
    """The places of each output of a node that moves values of the shape `given`; None where three lists cannot say.

    Images must stay in order.
    """
    sizes = image(given)
    if sizes is None:
        return [None] * len(node.outputs)
    runs = []
    for axis, size in enumerate(sizes):
        places = np.arange(size, dtype=np.float32).reshape([-1 if axis == other else 1 for other in range(4)])
        runs.append(run_alone(node, [np.broadcast_to(places, sizes).reshape(given)]))
    moved = run_alone(node, [np.full(given, 0, np.float32)]), run_alone(node, [np.full(given, _FAR, np.float32)])
    return [
        _lists([run[output] for run in runs], moved[1][output] - moved[0][output] != _FAR, sizes[0])
        for output in range(len(node.outputs))
    ]


def _lists(made: list[NDArray[np.float32]], filled: NDArray[np.bool_], batch: int) -> Places | None:
    """Three lists that give the places of each value, if there are such."""
    sizes = image(filled.shape)
    if sizes is None or sizes[0] != batch:
        return None
    nowhere = filled.reshape(sizes)
    found, rebuilt = [], np.zeros(sizes, np.bool_)
    for axis, places in enumerate(made):
        numbers = np.where(nowhere, -1, places.reshape(sizes))
        if (numbers != np.rint(numbers)).any():
            return None
        line = numbers.max(axis=tuple(other for other in range(4) if other != axis), initial=-1).astype(np.int32)
        spread = line.reshape([-1 if axis == other else 1 for other in range(4)])
        if ((numbers != spread) & ~nowhere).any():
            return None
        found.append(line)
        rebuilt |= spread < 0
    if not np.array_equal(rebuilt, nowhere) or not np.array_equal(found[0], np.arange(batch)):
        return None
    return Places(*found[1:])
