"""What a `spec.Vta` computes, in numpy: what the streams made of it are held to, byte by byte."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from ..spec.vta import Pooling, Reduce, Stage, Term, Vta

Int8 = NDArray[np.int8]
Wide = NDArray[np.int64]


def compute(spec: Vta, operands: Sequence[NDArray[np.generic]]) -> Int8:
    """The output of a step.

    Args:
        operands: as the spec's `operands` name them, without the output: inputs int8
            ``[N / rows, blocks, H, W, rows, B]``.

    Returns:
        int8 ``[N / rows, out_blocks, H, W, rows, B]`` without an axis of one row, the spec's rectangle alone; several
        outputs one after the other; of several planes ``[N / rows, planes, out_blocks, H, W, rows, B]``.

    Raises:
        OverflowError: an accumulator leaves int32, or a result that is not clamped leaves int8.
    """
    rest = iter(operands)
    acc = np.zeros((spec.batch, spec.out_blocks, *spec.inner, spec.block), np.int64)
    for number, stage in enumerate(spec.stages):
        acc = _stage(spec, stage, acc, rest, last=number + 1 == len(spec.stages))
    if spec.rows > 1:
        acc = acc.reshape(-1, spec.rows, *acc.shape[1:]).transpose(0, 2, 3, 4, 1, 5)
    if spec.planes > 1:
        return np.stack([acc >> 8 * plane for plane in range(spec.planes)], 1).astype(np.int8)
    if acc.size and (acc.min() < -128 or acc.max() > 127):
        raise OverflowError(f"{acc.min()} to {acc.max()} does not fit int8")
    return np.ascontiguousarray(acc.astype(np.int8))


def _words(spec: Vta, given: NDArray[np.generic]) -> Wide:
    """Of each channel, the same in all rows."""
    words = given.astype(np.int64).reshape(spec.out_blocks, spec.rows, 1, spec.block).transpose(1, 0, 2, 3)
    return np.tile(words[:, :, None], (spec.batch // spec.rows, 1, 1, 1, 1))


def _stage(spec: Vta, stage: Stage, acc: Wide, rest: Iterator[NDArray[np.generic]], last: bool) -> Wide:
    acc = _fits(acc << stage.lead)
    for term in stage.terms:
        given, tiles = next(rest), next(rest)
        acc = _fits(_fits(acc + _sums(spec, term, given, tiles)) << term.shift)
    if last and spec.pooling is not None:
        acc = _fits(_pooled(spec.pooling, acc, spec.height, spec.width))
    channels = (1, spec.out_blocks, 1, 1, spec.block)
    if stage.bias == "tiles":
        ones, tiles = next(rest).reshape(-1).astype(np.int64), next(rest)
        square = tiles.reshape(spec.out_blocks, stage.bias_tiles, spec.block, spec.block).astype(np.int64)
        acc = _fits(acc + (square.sum(1) @ ones[-spec.block :]).reshape(channels))
    elif stage.bias == "words":
        acc = _fits(acc + _words(spec, next(rest)))
    acc = acc >> stage.shift
    if stage.shifts:
        acc = acc >> _words(spec, next(rest))
    return acc if stage.low is None and stage.high is None else np.clip(acc, stage.low, stage.high)


def _sums(spec: Vta, term: Term, given: NDArray[np.generic], tiles: NDArray[np.generic]) -> Wide:
    rows, columns = spec.inner
    given = given.reshape(-1, term.blocks, term.height, term.width, spec.rows, spec.block).astype(np.float64)
    given = given.transpose(0, 4, 1, 2, 3, 5).reshape(spec.batch, term.blocks, term.height, term.width, spec.block)
    shape = (1 if term.shared else spec.out_blocks, term.depth, *term.kernel, spec.block, spec.block)
    square = tiles.reshape(shape).astype(np.float64)  # sums of int8 products are exact in float64
    reach = [(k - 1) * d + 1 for k, d in zip(term.kernel, term.dilation, strict=True)]
    need = [(n - 1) * s + r for n, s, r in zip((rows, columns), term.stride, reach, strict=True)]
    behind = [max(0, n - size - p) for n, size, p in zip(need, (term.height, term.width), term.pad, strict=True)]
    top, left = (max(0, p) for p in term.pad)
    given = given[:, :, max(0, -term.pad[0]) :, max(0, -term.pad[1]) :]
    padded = np.pad(given, ((0, 0), (0, 0), (top, behind[0]), (left, behind[1]), (0, 0)))
    acc = np.zeros((spec.batch, spec.out_blocks, rows, columns, spec.block))
    for block in range(spec.out_blocks):
        weights = square[0 if term.shared else block]
        first = term.first(block)
        for r in range(term.kernel[0]):
            for s in range(term.kernel[1]):
                y, x = r * term.dilation[0], s * term.dilation[1]
                seen = padded[:, first : first + term.depth, y :: term.stride[0], x :: term.stride[1]]
                seen = seen[:, :, :rows, :columns]
                acc[:, block] += np.einsum("nihwb,iob->nhwo", seen, weights[:, r, s], optimize=True)
    return acc.astype(np.int64)


def _pooled(window: Pooling, acc: Wide, height: int, width: int) -> Wide:
    top, left = window.pad
    low = np.iinfo(np.int64).min if window.reduce is Reduce.MAX else 0
    bottom = max(0, (height - 1) * window.stride[0] + window.kernel[0] - window.height - top)
    right = max(0, (width - 1) * window.stride[1] + window.kernel[1] - window.width - left)
    padded = np.pad(acc, ((0, 0), (0, 0), (top, bottom), (left, right), (0, 0)), constant_values=low)
    views = np.lib.stride_tricks.sliding_window_view(padded, window.kernel, axis=(2, 3))
    views = views[:, :, :: window.stride[0], :: window.stride[1]][:, :, :height, :width]
    return np.asarray(views.max(axis=(-2, -1)) if window.reduce is Reduce.MAX else views.sum(axis=(-2, -1)))


def _fits(acc: Wide) -> Wide:
    if acc.size and (acc.max() > 2**31 - 1 or acc.min() < -(2**31)):
        raise OverflowError(f"{acc.min()} to {acc.max()} does not fit int32")
    return acc
