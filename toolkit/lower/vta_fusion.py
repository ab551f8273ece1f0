"""A max pool behind a step of a VTA that it alone reads becomes a part of that step, where the model says that it pays.

The largest accumulator has the largest byte: a shift and a clamp keep the order. So the window is taken over the
accumulators, before these, which are then done once a window; what windows at the edges of a tile share is computed
twice.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from ..kernels.spec import Reduce, Vta
from ..kernels.vta import tiling
from ..kernels.vta.accelerator import Accelerator
from .layers import Layer, Storage


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
