"""What each value is kept in, once it is known who reads it.

Given: a network whose blocked values are all of one element. Result: what a layer in fp32 reads or writes is fp32; so
is what leaves the network, and what no matrix tile reads, where that costs no memory (beside pairs of bfloat16); and
every spec knows its operands' elements.
"""

from __future__ import annotations

from collections.abc import Set

from ..kernels.elements import HALVES, PAIR, TILED, WIDE
from ..kernels.spec import Conv, Frame, Spec, Unpack
from .layers import Layer, Network, Param, Storage


def settle(network: Network, in_fp32: Set[str] = frozenset()) -> None:
    """Choose for every storage with its slices, and fill in the specs' `*_element` fields.

    Args:
        in_fp32: nodes whose layers are computed in fp32, where values are of 16 bits.
    """
    _widen(network, in_fp32)
    kept = _rounded(network)
    for layer in network.layers:
        for storage in (*layer.reads, *layer.writes):
            if storage.blocked and storage.dtype in (*TILED, *HALVES) and storage.root not in kept:
                plain = WIDE if storage.dtype in TILED else "float32"
                for part in _chain(storage):
                    part.dtype = plain
    for layer in network.layers:
        layer.spec = _told(layer)


def _widen(network: Network, in_fp32: Set[str]) -> None:
    """What the layers of these nodes read and write, whole."""
    named = [layer for layer in network.layers if not in_fp32.isdisjoint(layer.nodes)]
    roots = {storage.root for layer in named for storage in (*layer.reads, *layer.writes)}
    for layer in network.layers:
        for storage in (*layer.reads, *layer.writes):
            if storage.root in roots and storage.dtype in HALVES:
                for part in _chain(storage):
                    part.dtype = "float32"


def _rounded(network: Network) -> set[Storage]:
    """The roots that stay what they are."""
    found: set[Storage] = set()
    for layer in reversed(network.layers):
        for storage, name in (o for o in layer.operands if not isinstance(o, Param)):
            if storage.dtype == PAIR:
                multiplied = isinstance(layer.spec, Frame) or (_tiled(layer.spec) and name == "in_stride")
                # so that the sum may be written over its addend
                added = name == "add_stride" and layer.output.root in found
                needed = multiplied or added
            else:
                needed = not isinstance(layer.spec, Unpack)
            if needed:
                found.add(storage.root)
    return found


def _chain(storage: Storage) -> list[Storage]:
    """The storage and what it is a slice of, up to its root."""
    return [storage] if storage.parent is None else [storage, *_chain(storage.parent)]


def _tiled(spec: Spec) -> bool:
    return isinstance(spec, Conv) and spec.tiled


def _told(layer: Layer) -> Spec:
    """The layer's spec with its operands' elements."""
    named = {name: storage for storage, name in (o for o in layer.operands if not isinstance(o, Param))}
    named["out_stride"] = layer.output
    return layer.spec.told(**{name.replace("stride", "element"): storage.dtype for name, storage in named.items()})
