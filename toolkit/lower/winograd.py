"""Convolutions that the target does faster by Winograd become three layers: transform, products, transform back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..kernels.spec import BLOCK, Conv, WinogradInput, WinogradOutput
from ..kernels.winograd import transform_weight
from .network import Layer, Network, Param, Storage


def rewrite(network: Network, kernels: Any) -> None:
    """Replace each convolution for which `kernels.winograd(spec)` gives a tile.

    Given: `out = act(bias + add + conv(in))`, in NCHW16c.
    Result: the products of all points are one 1x1 convolution in as many groups, whose pixels are the tiles; the
    epilogue moves into the transform back.
    """
    layers: list[Layer] = []
    for layer in network.layers:
        outputs = kernels.winograd(layer.spec) if isinstance(layer.spec, Conv) and layer.op == "conv" else None
        layers.extend([layer] if outputs is None else _split(layer, outputs))
    network.layers[:] = layers


def stages(spec: Conv, outputs: tuple[int, int]) -> tuple[WinogradInput, Conv, WinogradOutput]:
    """What the three layers compute that do the work of one convolution; their strides are those of one image."""
    into = WinogradInput(
        spec.batch,
        spec.channels // BLOCK,
        spec.height,
        spec.width,
        spec.out_height,
        spec.out_width,
        outputs,
        spec.kernel,
        spec.pad,
    )
    back = WinogradOutput(
        spec.batch,
        spec.out_channels // BLOCK,
        spec.out_height,
        spec.out_width,
        outputs,
        spec.kernel,
        spec.add,
        spec.activation,
    )
    points, tiles = into.points, into.tiles[0] * into.tiles[1]
    inner = Conv(spec.batch, spec.channels, 1, tiles, points * spec.out_channels, 1, tiles, (1, 1), groups=points)
    return into, inner, back


def _split(layer: Layer, outputs: tuple[int, int]) -> list[Layer]:
    """The three layers that do the work of one."""
    spec: Conv = layer.spec
    _, weight, bias, *addend = layer.operands
    source = layer.reads[0]
    assert isinstance(weight, Param)
    into, inner, back = stages(spec, outputs)
    points, tiles = into.points, inner.width
    data = _points(f"{layer.value}:data", spec.batch, points * into.blocks, tiles)
    products = _points(f"{layer.value}:products", spec.batch, points * back.blocks, tiles)
    assert source.slots is not None
    assert layer.output.slots is not None
    wide = np.zeros((points, spec.out_channels, spec.channels), np.float32)
    wide[np.ix_(np.arange(points), layer.output.slots, source.slots)] = transform_weight(weight.array, outputs)
    packed = Param("physical", wide.reshape(points * spec.out_channels, spec.channels, 1, 1))
    nothing = Param("raw", np.zeros(points * spec.out_channels, np.float32))
    return [
        Layer("winograd_in", [], into, [(source, "in_stride")], data, data.name),
        Layer(
            "conv",
            list(layer.nodes),
            inner,
            [(data, "in_stride"), packed, nothing],
            products,
            products.name,
            layer.macs,
        ),
        replace(layer, op="winograd_out", nodes=[], spec=back, operands=[(products, ""), bias, *addend], macs=0),
    ]


def _points(name: str, batch: int, blocks: int, tiles: int) -> Storage:
    """Memory for one vector of 16 channels a point, block and tile."""
    return Storage(name, batch, tiles, blocks, np.arange(blocks * BLOCK))
