"""A convolution of the network's own few channels, as one that a VTA's blocks of channels suit.

Patches: all pixels of a window become channels, and the convolution is one of 1x1. The host writes each pixel as often
as windows cover it.
Space to depth: the pixels that a stride steps over become channels, and the convolution has stride 1 and fewer taps.
The host writes each pixel once, but blocks are less full: 12 of 16 channels for 3 and a stride of 2.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..kernels.elements import BLOCK, Rounding
from ..kernels.spec import SIGNED, Conv, Patches, Pixels


@dataclass(frozen=True)
class Way:
    """One of both.

    Attributes:
        name: that its buffer is called by.
        framed: the picture in bytes, with its padding. patches: what the host makes of it.
        spec: the convolution of that. weight: ``[O, channels, r, s]``.
    """

    name: str
    framed: Pixels
    patches: Patches
    spec: Conv
    weight: NDArray[np.generic]


def ways(spec: Conv, pixels: Pixels, weight: NDArray[np.generic], signed: Rounding) -> list[Way]:
    """How a convolution of pixels can be computed.

    Args:
        pixels: what makes bytes of the input. signed: how, for a VTA. weight: ``[O, channels, r, s]``.
    """
    flat = weight.transpose(0, 2, 3, 1).reshape(len(weight), -1)[:, :, None, None]
    whole = (spec.out_height, spec.out_width)
    found = [_way("patches", spec, pixels, signed, spec.kernel, spec.stride, spec.dilation, whole, flat)]
    if spec.stride != (1, 1) and spec.dilation == (1, 1):
        high, wide = spec.stride
        taps = [-(-count // step) for count, step in zip(spec.kernel, spec.stride, strict=True)]
        more = [(0, count * step - had) for count, step, had in zip(taps, spec.stride, spec.kernel, strict=True)]
        padded = np.pad(weight, ((0, 0), (0, 0), *more))
        split = padded.reshape(*weight.shape[:2], taps[0], high, taps[1], wide).transpose(0, 3, 5, 1, 2, 4)
        deep = split.reshape(len(weight), -1, *taps)
        size = (spec.out_height + taps[0] - 1, spec.out_width + taps[1] - 1)
        found.append(_way("space-to-depth", spec, pixels, signed, spec.stride, spec.stride, (1, 1), size, deep))
    return found


def _way(
    name: str,
    spec: Conv,
    pixels: Pixels,
    signed: Rounding,
    window: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
    size: tuple[int, int],
    weight: NDArray[np.generic],
) -> Way:
    """Windows of the picture as `size` pixels of many channels, and the convolution of these."""
    reach = [
        (count - 1) * step + (taps - 1) * spread + 1
        for count, step, taps, spread in zip(size, stride, window, dilation, strict=True)
    ]
    top, left = spec.pad
    frame = (top, left, max(0, reach[0] - top - spec.height), max(0, reach[1] - left - spec.width))
    framed = replace(pixels, slots=pixels.channels, frame=frame, rounding=signed, out_element=SIGNED)
    line = framed.line // framed.slots
    patches = Patches(spec.batch, pixels.channels, framed.lines, line, *size, window, stride, dilation)
    made = replace(
        spec, channels=patches.blocks * BLOCK, height=size[0], width=size[1], stride=(1, 1), pad=(0, 0),
        kernel=(weight.shape[2], weight.shape[3]), dilation=(1, 1), planar=False,
    )  # fmt: skip
    return Way(name, framed, patches, made, weight)
