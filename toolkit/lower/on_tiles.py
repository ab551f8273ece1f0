"""Convolutions for matrix tiles: what they read around their image is made to lie in memory, as zeros.

Given: a network whose blocked values are bfloat16, or pairs of it. Result: every convolution is one of tiles, without
padding. Among pairs, fully connected layers stay in fp32: with one pixel there is nothing to multiply tiles with, and
fp32 in blocks of 32 channels, one pixel each, lies as in blocks of 16.

Where only the convolution reads its input, and another convolution or a window makes it, that one writes the zeros
around its output itself; otherwise the input is copied. The network's own input, in fp32, is packed into pixels with
zeros around them. Among pairs, convolutions in groups of very few channels are windows of fp32 vectors.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np

from ..kernels.elements import BF16, PAIR, element_of
from ..kernels.spec import NONE, Conv, Frame, Frame4, Window, WindowOp, tile_pixels
from .layers import Layer, Network, Param, Storage

LANES = element_of(BF16).block
"""Channels in a block."""

_FEW = (2, 4)
"""Channels of a group that fp32 vectors are faster for than tiles (docs/perf/cpu-fp32-tiles-windows.md)."""


def rewrite(network: Network) -> None:
    """Replace every convolution and fully connected layer."""
    rewriter = _Rewriter(network)
    for layer in list(network.layers):
        rewriter.take(layer)
    network.layers[:] = rewriter.layers


class _Rewriter:
    """The walk over the layers, in their order."""

    def __init__(self, network: Network) -> None:
        self.layers: list[Layer] = []
        self.readers: dict[Storage, list[Layer]] = defaultdict(list)
        self.writers: dict[Storage, list[Layer]] = defaultdict(list)
        self.parents: set[Storage] = set()
        self.framed: dict[tuple[Storage, Frame4], Storage] = {}
        self.single = _single(network)
        for layer in network.layers:
            for storage in layer.reads:
                self.readers[storage].append(layer)
            for storage in layer.writes:
                self.writers[storage].append(layer)
            for part in (*layer.reads, *layer.writes):
                storage = part
                while storage.parent is not None:
                    storage = storage.parent
                    self.parents.add(storage)

    def take(self, layer: Layer) -> None:
        """One layer, and what has to stand before it."""
        spec = layer.spec
        if isinstance(spec, Conv) and layer not in self.single:
            frame = frame_of(spec)
            source, _ = _source(layer)
            if spec.planar:
                self._packed(layer, source, spec, frame)
            elif (group := _narrow(layer, spec)) is not None:
                _by_vectors(layer, spec, group)
            else:
                layer.spec = _tiles(spec, frame, layer.output.dtype)
                if frame != NONE:
                    self._surround(layer, source, spec, frame)
        self.layers.append(layer)

    def _packed(self, layer: Layer, source: Storage, spec: Conv, frame: Frame4) -> None:
        slots = next(count for count in (4, 8, 16) if count >= spec.channels)
        element = layer.output.dtype
        into = tile_pixels(spec, slots, frame, element)
        storage = Storage(f"{layer.value}:pixels", spec.batch, into.size, dtype=element)
        self.layers.append(Layer("pack", [], into, [(source, "")], storage, storage.name))
        # the last line is behind the image: the convolution does not know of it, unless images follow each other
        layer.spec = replace(_tiles(spec, frame, element), channels=slots)
        layer.operands[0] = (storage, "in_stride")

    def _surround(self, layer: Layer, source: Storage, spec: Conv, frame: Frame4) -> None:
        """Zeros around `source`: by its producer, or in a copy."""
        pixels = (spec.height + frame[0] + frame[2]) * (spec.width + frame[1] + frame[3])
        writers = self.writers[source]
        alone = source.parent is None and source.port is None and source not in self.parents
        if alone and len(writers) == len(self.readers[source]) == 1:
            made = writers[0].spec
            if isinstance(made, Window) or (isinstance(made, Conv) and made.tiled):
                source.pixels = pixels
                writers[0].spec = replace(made, frame=frame)
                return
        key = (source, frame)
        if key not in self.framed:
            name = f"{source.name}:framed"
            copy = Storage(name, source.batch, pixels, source.blocks, source.slots, dtype=source.dtype)
            around = Frame(source.batch, source.blocks, spec.height, spec.width, frame)
            self.layers.append(Layer("frame", [], around, [(source, "in_stride")], copy, name))
            self.framed[key] = copy
        layer.operands[0] = (self.framed[key], "in_stride")


def _single(network: Network) -> set[Layer]:
    """The layers that may stay in fp32: those of one pixel whose input and output no other convolution reads."""
    convolutions = [layer for layer in network.layers if isinstance(layer.spec, Conv)]
    found = {layer for layer in convolutions if _of_one_pixel(layer)}
    while True:
        tiled = {layer.reads[0].root for layer in convolutions if layer not in found}
        kept = {layer for layer in found if not tiled & {layer.reads[0].root, layer.output.root}}
        if kept == found:
            return found
        found = kept


def _of_one_pixel(layer: Layer) -> bool:
    spec = layer.spec
    if not isinstance(spec, Conv):
        return False
    size = (spec.height, spec.width, spec.out_height, spec.out_width)
    return layer.output.dtype == PAIR and spec.pointwise and size == (1, 1, 1, 1) and not spec.add and spec.groups == 1


def _narrow(layer: Layer, spec: Conv) -> int | None:
    """How few neighbouring channels a grouped convolution mixes, where that is too few for tiles: of its block-diagonal
    weight they would multiply mostly zeros, and three times.
    """
    weight = layer.operands[1]
    assert isinstance(weight, Param)
    if layer.output.dtype != PAIR or spec.add or spec.groups == 1 or weight.role != "weight":
        return None
    if spec.channels != LANES or not len(weight.array) == spec.out_channels == spec.groups * LANES:
        return None
    inputs, outputs = np.arange(LANES), np.arange(spec.out_channels)[:, None] % LANES
    for group in _FEW:
        if not weight.array[inputs // group != outputs // group].any():
            return group
    return None


def _by_vectors(layer: Layer, spec: Conv, group: int) -> None:
    """The layer as one that mixes neighbouring lanes of vectors of fp32."""
    weight = layer.operands[1]
    assert isinstance(weight, Param)
    (rows, columns), blocks = spec.kernel, spec.groups
    lane, member = np.arange(LANES), np.arange(group)[:, None]
    split = weight.array.reshape(blocks, LANES, LANES, rows, columns)
    mixed = split[:, lane, lane ^ member].transpose(0, 3, 4, 1, 2)
    layer.operands[1] = Param("raw", np.ascontiguousarray(mixed, np.float32))
    top, left, bottom, right = frame_of(spec)
    layer.spec = Window(
        WindowOp.DEPTHWISE,
        spec.batch,
        blocks,
        spec.height,
        spec.width,
        spec.out_height,
        spec.out_width,
        spec.kernel,
        spec.stride,
        (top, left, bottom, right),
        spec.dilation,
        activation=spec.activation,
        group=group,
    )


def _source(layer: Layer) -> tuple[Storage, str]:
    first = layer.operands[0]
    assert not isinstance(first, Param)
    return first


def frame_of(spec: Conv) -> Frame4:
    """What the convolution reads around its image: top, left, bottom, right."""
    extent = [
        (size - 1) * step + (taps - 1) * spread + 1
        for size, step, taps, spread in zip(
            (spec.out_height, spec.out_width), spec.stride, spec.kernel, spec.dilation, strict=True
        )
    ]
    (top, left), (height, width) = spec.pad, (spec.height, spec.width)
    return top, left, max(0, extent[0] - top - height), max(0, extent[1] - left - width)


def _tiles(spec: Conv, frame: Frame4, element: str) -> Conv:
    """The same convolution on its framed input."""
    top, left, bottom, right = frame
    height, width = top + spec.height + bottom, left + spec.width + right
    return replace(spec, height=height, width=width, pad=(0, 0), in_element=element, out_element=element)
