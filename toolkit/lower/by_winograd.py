"""Convolutions that the target does faster by Winograd become three layers: transform, products, transform back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..kernels.cut import split
from ..kernels.elements import BLOCK
from ..kernels.spec import Conv, stages
from ..kernels.toom_cook import transform_integers, transform_weight
from .layers import Layer, Network, Param, Storage

BAND_BYTES = 2_000_000
"""What the data and the products of a band may always take; fewer bytes are more bands, and each is three barriers."""


def rewrite(network: Network, kernels: Any) -> None:
    """Replace each convolution for which `kernels.winograd(spec)` gives a tile.

    Given: `out = act(bias + add + conv(in))`, in NCHW16c.
    Result: the products of all points are one 1x1 convolution in as many groups, whose pixels are the tiles; the
    epilogue moves into the transform back. An image whose transforms would be the arena's peak is done in bands of tile
    rows, one after the other, in the same memory.
    """
    room = max((_held(layer) for layer in network.layers), default=0)
    layers: list[Layer] = []
    for layer in network.layers:
        outputs = kernels.winograd(layer.spec) if isinstance(layer.spec, Conv) and layer.op == "conv" else None
        layers.extend([layer] if outputs is None else _split(layer, outputs, room - _held(layer)))
    network.layers[:] = layers


def _held(layer: Layer) -> int:
    """Bytes that a layer's inputs and outputs take while it runs: the arena has at least as many."""
    return sum(storage.root.bytes for storage in {*layer.reads, *layer.writes} if storage.root.port is None)


def bands(spec: Conv, outputs: tuple[int, int], room: int) -> list[int]:
    """The tile rows of each band: as few bands as keep the data and the products of one within `room` bytes."""
    into, inner, _ = stages(spec, outputs)
    channels = ((spec.channels, into.data_element), (spec.out_channels, into.sum_element))
    cell = sum(count * np.dtype(element).itemsize for count, element in channels)
    size = cell * into.points * inner.width * spec.batch
    return split(into.tile_rows, -(-into.tile_rows // -(-size // max(room, BAND_BYTES))))


def _split(layer: Layer, outputs: tuple[int, int], room: int) -> list[Layer]:
    """The layers that do the work of one: three for each band, whose memory fits into `room` bytes."""
    spec = layer.spec
    assert isinstance(spec, Conv)
    _, weight, *rest = layer.operands
    source = layer.reads[0]
    assert isinstance(weight, Param)
    assert source.slots is not None
    assert layer.output.slots is not None
    points = stages(spec, outputs)[0].points
    if spec.quantized:
        filters = transform_integers(weight.array, outputs, spec.stride)
    else:
        filters = transform_weight(weight.array, outputs)
    wide = np.zeros((points, spec.out_channels, spec.channels), filters.dtype)
    wide[np.ix_(np.arange(points), layer.output.slots, source.slots)] = filters
    packed = Param("physical", wide.reshape(points * spec.out_channels, spec.channels, 1, 1))
    nothing = [] if spec.quantized else [Param("raw", np.zeros(points * spec.out_channels, np.float32))]
    rows, made, first = bands(spec, outputs, room), list[Layer](), 0
    for number, count in enumerate(rows):
        into, inner, back = stages(spec, outputs, count if len(rows) > 1 else 0)
        row = [Param("raw", np.array([first], np.int32))] if len(rows) > 1 else []
        name = f"{layer.value}:{number}" if len(rows) > 1 else layer.value
        data = _points(f"{name}:data", spec.batch, points * into.blocks, inner.width, into.data_element)
        products = _points(f"{name}:products", spec.batch, points * back.blocks, inner.width, into.sum_element)
        macs = layer.macs * (first + count) // sum(rows) - layer.macs * first // sum(rows)
        made += [
            Layer(
                "winograd_in",
                [],
                into,
                [(source, "in_stride"), *row],
                data,
                data.name,
                after=made[-1] if made else None,
            ),
            Layer(
                "conv", list(layer.nodes), inner, [(data, "in_stride"), packed, *nothing], products, products.name, macs
            ),
            replace(layer, op="winograd_out", nodes=[], spec=back, operands=[(products, ""), *row, *rest], macs=0),
        ]
        first += count
    return made


def _points(name: str, batch: int, blocks: int, tiles: int, dtype: str) -> Storage:
    """Memory for one vector of 16 channels a point, block and tile."""
    return Storage(name, batch, tiles, blocks, np.arange(blocks * BLOCK), dtype=dtype)
