"""Windows over the accumulators of a VTA's step, where the model says that they pay.

A convolution whose taps are all alike multiplies once, and adds up the products of each window: what an average pool in
front of a 1x1 convolution has become.

A max pool behind a step that it alone reads becomes a part of that step.

The largest accumulator has the largest byte: a shift and a clamp keep the order. So the window is taken over the
accumulators, before these, which are then done once a window; what windows at the edges of a tile share is computed
twice.
"""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import replace

import numpy as np

from ..kernels.spec import Pooling, Reduce, Vta
from ..kernels.vta import tiling
from ..kernels.vta.accelerator import Accelerator
from .layers import Layer, Param, Storage


def fuse(layers: list[Layer], accelerator: Accelerator) -> list[Layer]:
    """The layers, fewer."""
    readers: dict[Storage, list[Layer]] = defaultdict(list)
    writers: dict[Storage, list[Layer]] = defaultdict(list)
    for layer in layers:
        for storage in layer.reads:
            readers[storage.root].append(layer)
        writers[layer.output.root].append(layer)
    gone: set[Layer] = set()
    for layer in layers:
        _sum(layer, accelerator)
        storage = layer.output
        if storage.parent is not None or storage.port is not None or len(writers[storage]) > 1:
            continue
        if len(readers[storage]) != 1 or (fused := _fused(layer, readers[storage][0], accelerator)) is None:
            continue
        pool = readers[storage][0]
        pool.spec = fused
        pool.operands = layer.operands
        pool.nodes = [*layer.nodes, *pool.nodes]
        pool.op, pool.macs = layer.op, layer.macs
        gone.add(layer)
    return [layer for layer in layers if layer not in gone]


def _sum(layer: Layer, accelerator: Accelerator) -> None:
    """Let a convolution whose taps are alike add up its products, where that is faster."""
    spec = layer.spec
    if not isinstance(spec, Vta) or spec.pooling is not None or len(spec.stages) > 1:
        return
    terms = spec.terms
    first = terms[0]
    shape = (first.height, first.width)
    same = (*shape, first.kernel, first.stride, first.pad)
    if math.prod(first.kernel) == 1 or any(term.dilation != (1, 1) for term in terms):
        return
    if any((t.height, t.width, t.kernel, t.stride, t.pad) != same for t in terms):
        return
    weights = [operand for operand in layer.operands[1 : 2 * len(terms) : 2] if isinstance(operand, Param)]
    if not all(np.array_equal(w.array, np.broadcast_to(w.array[:, :, :1, :1], w.array.shape)) for w in weights):
        return
    starts = [max(0, -pad) for pad in first.pad]
    ends = [
        min(size, (count - 1) * step - pad + taps)
        for size, count, step, pad, taps in zip(
            shape, (spec.height, spec.width), first.stride, first.pad, first.kernel, strict=True
        )
    ]
    high, wide = (end - start for start, end in zip(starts, ends, strict=True))
    if min(high, wide) < 1:
        return
    pads = (max(0, first.pad[0]), max(0, first.pad[1]))
    pooling = Pooling(Reduce.SUM, high, wide, first.kernel, first.stride, pads)
    left_out = (-starts[0], -starts[1])
    plain = (replace(term, kernel=(1, 1), stride=(1, 1), pad=left_out) for term in terms)
    stage = replace(spec.stages[0], terms=tuple(plain))
    summed = replace(spec, stages=(stage,), pooling=pooling)
    if tiling.refused(summed, accelerator) is not None:
        return
    now, then = (tiling.cost(each, accelerator, tiling.choose(each, accelerator)) for each in (spec, summed))
    if then < now:
        layer.spec = summed
        layer.macs //= math.prod(first.kernel)
        for number, weight in enumerate(weights):
            tiles = np.ascontiguousarray(weight.array[:, :, :1, :1])
            layer.operands[2 * number + 1] = Param(weight.role, tiles)


def _fused(layer: Layer, pool: Layer, accelerator: Accelerator) -> Vta | None:
    """Both as one, where that is faster."""
    spec, window = layer.spec, pool.spec
    if not isinstance(spec, Vta) or not isinstance(window, Vta) or pool.op != "max_pool":
        return None
    if spec.pooling is not None or spec.planes > 1 or spec.whole is not None or window.pooling is None:
        return None
    if window.pooling.reduce is not Reduce.MAX or window.inner != (spec.height, spec.width):
        return None
    fused = replace(spec, height=window.height, width=window.width, pooling=window.pooling)
    if tiling.refused(fused, accelerator) is not None:
        return None
    costs = [tiling.cost(each, accelerator, tiling.choose(each, accelerator)) for each in (fused, spec, window)]
    return fused if costs[0] < costs[1] + costs[2] else None
