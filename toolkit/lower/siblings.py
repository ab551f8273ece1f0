"""Sibling 1x1 convolutions that read the same tensor become one kernel that writes to several buffers.

Given: a network whose layers know their elements. Result: one layer for all convolutions of tiles, or of a GPU, that
read the same pixels and add nothing, with their weights one after the other. Their outputs stay where they were: in the
slices of a concat, within zeros for the next convolution.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import Any

import numpy as np

from ..kernels.spec import NONE, Conv, Output
from .kernel_set import KernelSet
from .layers import Layer, Network, Param, Storage
from .pack import placed
from .plan import GPU


def join(network: Network, kernels: KernelSet) -> None:
    """Replace sibling layers; the first one's place is that of all."""
    families: dict[tuple[Storage, tuple[Any, ...]], list[Layer]] = defaultdict(list)
    for layer in network.layers:
        spec = layer.spec
        if isinstance(spec, Conv) and _alone(spec) and (spec.tiled or (kernels.device == GPU and _of_gpu(spec))):
            families[layer.reads[0], _alike(spec)].append(layer)
    absorbed: set[Layer] = set()
    for family in families.values():
        first, *others = family
        if others:
            _absorb(first, others)
            absorbed.update(others)
    network.layers[:] = [layer for layer in network.layers if layer not in absorbed]


def _alone(spec: Conv) -> bool:
    return spec.pointwise and spec.groups == 1 and not spec.add and spec.scaling is None


def _of_gpu(spec: Conv) -> bool:
    """There are pixels to share, and a GPU's matrix products multiply it."""
    return spec.height * spec.width > 1 and not spec.weighed and spec.weight_element == "int8"


def _alike(spec: Conv) -> tuple[Any, ...]:
    """What siblings have in common."""
    how = spec.rounding
    return spec.height, spec.width, spec.channels, spec.row_sets * spec.column_sets, how and how.shift


def _absorb(first: Layer, others: list[Layer]) -> None:
    """Make one layer of several."""
    family = [first, *others]
    split: list[Output] = []
    constants: list[list[np.ndarray]] = [[] for _ in first.operands[1:]]
    for layer in family:
        assert isinstance(layer.spec, Conv)
        split.extend(layer.spec.outputs)
        for found, param in zip(constants, layer.operands[1:], strict=True):
            assert isinstance(param, Param)
            found.append(placed(param, layer).array)
    assert isinstance(first.spec, Conv)
    channels = sum(output.channels for output in split)
    first.spec = replace(first.spec, out_channels=channels, split=tuple(split), activation=None, frame=NONE)
    weights, *rest = constants
    first.operands = [
        first.operands[0],
        Param("physical", np.concatenate(weights)),
        *(Param("raw", np.concatenate(arrays, axis=-1)) for arrays in rest),
    ]
    first.nodes = [node for layer in family for node in layer.nodes]
    first.macs = sum(layer.macs for layer in family)
    first.also = [layer.output for layer in others]
