"""The memory that a layer's kernel is handed: what its pointers count, and how many of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..kernels.matrix.conv import depth
from ..kernels.spec import Conv, Convolution, Window, WindowOp, element_of
from ..kernels.spec_tiles import LANES, ConvTiles, Output, PackPixels, pointer_of


@dataclass(frozen=True)
class Buffer:
    """`size` elements of numpy's `dtype`, of all images together."""

    size: int
    dtype: str = "float32"

    @property
    def bytes(self) -> int:
        """What it takes in memory."""
        return self.size * np.dtype(self.dtype).itemsize


def buffers(spec: Any) -> dict[str, Buffer]:
    """The buffer behind every pointer of a layer's kernel, in the kernel's order."""
    if isinstance(spec, Window):
        return _window(spec)
    return _tiles(spec) if isinstance(spec, ConvTiles) else _conv(spec)


def _map(element: str, batch: int, blocks: int, pixels: int) -> Buffer:
    """Images in blocks of channels."""
    kept = element_of(element)
    return Buffer(batch * blocks * pixels * kept.cell, kept.stored)


def _pixels(spec: Convolution | Window) -> tuple[int, int]:
    """Of a block of the input, and of one of the output."""
    return spec.height * spec.width, spec.out_height * spec.out_width


def _window(spec: Window) -> dict[str, Buffer]:
    near, _ = _pixels(spec)
    channels = spec.blocks * element_of(spec.in_element).block
    found = {"src": _map(spec.in_element, spec.batch, spec.blocks, near)}
    if spec.op is WindowOp.DEPTHWISE:
        found |= {"weight": Buffer(channels * spec.group * math.prod(spec.kernel)), "bias": Buffer(channels)}
    top, left, bottom, right = spec.frame
    framed = (spec.out_height + top + bottom) * (spec.out_width + left + right)
    return found | {"dst": _map(spec.out_element, spec.batch, spec.blocks, framed)}


def _conv(spec: Conv) -> dict[str, Buffer]:
    near, there = _pixels(spec)
    out = Buffer(spec.batch * spec.out_channels * there)
    return {
        "src": Buffer(spec.batch * spec.channels * spec.groups * near),
        "weight": Buffer(spec.out_channels * spec.channels * math.prod(spec.kernel)),
        "bias": Buffer(spec.out_channels),
        **({"add": out} if spec.add else {}),
        "dst": out,
    }


def _tiles(spec: ConvTiles) -> dict[str, Buffer]:
    near, there = _pixels(spec)
    blocks = spec.out_channels // LANES
    if spec.planar:
        none = (0, 0, 0, 0)  # its height and width count the frame
        packed = PackPixels(spec.batch, spec.channels, spec.channels, spec.height, spec.width, none, spec.in_element)
        src = Buffer(spec.batch * packed.size, "uint16")
    else:
        src = _map(spec.in_element, spec.batch, spec.channels * spec.groups // LANES, near)
    return {
        "src": src,
        "weight": Buffer(spec.out_channels * math.prod(depth(spec)) * LANES * spec.halves, "uint16"),
        "bias": Buffer(spec.out_channels),
        **({"add": _map(spec.add_element, spec.batch, blocks, there)} if spec.add else {}),
        **{pointer_of(i): _output(spec, output) for i, output in enumerate(spec.outputs)},
    }


def _output(spec: ConvTiles, output: Output) -> Buffer:
    top, left, bottom, right = output.frame
    framed = (top + spec.out_height + bottom) * (left + spec.out_width + right)
    return _map(output.out_element, spec.batch, output.channels // LANES, framed)
