"""A layer that ends at one pixel writes its result as the next one, or the caller, takes it: plain, and not in blocks.

Given: a network whose layers know their elements, for kernels that can (`Conv.plain`). Result: no change of layout
behind a convolution, or a fully connected layer, whose map is one pixel and which nothing else reads.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from ..kernels.spec import Conv, Unpack
from .layers import Layer, Network, Param, Storage
from .pack import placed


def rewrite(network: Network) -> None:
    """Join each such layer and the `Unpack` behind it."""
    makers = {layer.output: layer for layer in network.layers if not layer.also}
    reads = Counter(storage.root for layer in network.layers for storage in layer.reads)
    joined: set[Layer] = set()
    for layer in network.layers:
        if not isinstance(layer.spec, Unpack):
            continue
        (source,) = layer.reads
        maker = makers.get(source)
        if maker is not None and _able(maker) and _alone(source, reads):
            _join(maker, layer)
            joined.add(layer)
    network.layers[:] = [layer for layer in network.layers if layer not in joined]


def _alone(storage: Storage, reads: Counter[Storage]) -> bool:
    """One layer reads it, and it is no part of another."""
    return storage.parent is None and storage.port is None and reads[storage] == 1


def _able(maker: Layer) -> bool:
    """Channels lie in order, and are real numbers."""
    spec, slots = maker.spec, maker.output.slots
    if not isinstance(spec, Conv) or (spec.out_height, spec.out_width) != (1, 1) or spec.rounding is not None:
        return False
    return slots is not None and np.array_equal(slots, np.arange(len(slots)))


def _join(maker: Layer, unpack: Layer) -> None:
    """The maker writes what the other would have."""
    assert isinstance(unpack.spec, Unpack)
    maker.operands = [placed(o, maker) if isinstance(o, Param) else o for o in maker.operands]
    maker.spec = maker.spec.told(plain=unpack.spec.channels, out_element="float32")
    maker.output, maker.value = unpack.output, unpack.value
