"""Sibling 1x1 convolutions that read the same tensor become one kernel that writes to several buffers.

Given: a network whose convolutions of tiles know their elements. Result: one layer for all of those that
read the same pixels and add nothing, with their weights one after the other. Their outputs stay where they were: in the
slices of a concat, within zeros for the next convolution.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np

from ..kernels.spec import NONE, Conv, Output
from .layers import Layer, Network, Param, Storage
from .pack import channelwise, physical_weight

_Key = tuple[Storage, int, int, int]


def join(network: Network) -> None:
    """Replace sibling layers; the first one's place is that of all."""
    families: dict[_Key, list[Layer]] = defaultdict(list)
    for layer in network.layers:
        spec = layer.spec
        if isinstance(spec, Conv) and spec.tiled and spec.pointwise and spec.groups == 1 and not spec.add:
            families[layer.reads[0], spec.height, spec.width, spec.channels].append(layer)
    absorbed: set[Layer] = set()
    for family in families.values():
        first, *others = family
        if others:
            _absorb(first, others)
            absorbed.update(others)
    network.layers[:] = [layer for layer in network.layers if layer not in absorbed]


def _absorb(first: Layer, others: list[Layer]) -> None:
    """Make one layer of several."""
    family = [first, *others]
    weights, biases = [], []
    split: list[Output] = []
    for layer in family:
        _, weight, bias = layer.operands
        assert isinstance(weight, Param)
        assert isinstance(bias, Param)
        assert isinstance(layer.spec, Conv)
        weights.append(physical_weight(weight.array, layer.spec, layer.reads[0], layer.output))
        biases.append(channelwise(bias.array, layer.output))
        split.extend(layer.spec.outputs)
    assert isinstance(first.spec, Conv)
    channels = sum(output.channels for output in split)
    first.spec = replace(first.spec, out_channels=channels, split=tuple(split), activation=None, frame=NONE)
    first.operands = [
        first.operands[0],
        Param("physical", np.concatenate(weights)),
        Param("raw", np.concatenate(biases)),
    ]
    first.nodes = [node for layer in family for node in layer.nodes]
    first.macs = sum(layer.macs for layer in family)
    first.also = [layer.output for layer in others]
