"""What the kernels compute, as frozen data: no TVM here, so that lowering, caching and every target can read it.

A spec says what is computed, and its `*_element` fields in which numbers (`elements`); not how, nor with which
instructions: that is the affair of a family of kernels. Activations are `[N][blocks][H][W][block]`; sizes count whole
blocks of channels. A tensor may be a slice of a larger one (a branch of a concat): then the distance between its
images, `*_stride`, is larger than its own size.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import NONE, Frame4, Operand, Spec, built
from .border import Flip, Patches, Planes
from .conv import Conv, Output, column_sets, pointer_of, tap_sets, tile_pixels
from .layout import Frame, Normalise, Pack, Pick, Pixels, Unpack
from .simple import PARTIAL, ChannelNorm, Extern, Map, MatrixProduct, Softmax
from .vta import SIGNED, Pooling, Reads, Reduce, Share, Stage, Term, Vta
from .window import GlobalAverage, Window, WindowOp
from .winograd import WinogradInput, WinogradOutput, applies, stages

__all__ = [
    "NONE", "PARTIAL", "SIGNED", "ChannelNorm", "Conv", "Extern", "Flip", "Frame", "Frame4", "GlobalAverage", "Map",
    "MatrixProduct", "Normalise", "Operand", "Output", "Pack", "Patches", "Pick", "Pixels", "Planes", "Pooling",
    "Reads", "Reduce", "Share", "Softmax", "Spec", "Stage", "Term", "Unpack", "Vta", "Window", "WindowOp",
    "WinogradInput", "WinogradOutput", "applies", "column_sets", "decode", "pointer_of", "stages", "tap_sets",
    "tile_pixels",
]  # fmt: skip

KINDS: dict[str, type[Spec]] = {
    kind.__name__.lower(): kind
    for kind in (Conv, Window, GlobalAverage, Map, Normalise, Pack, Unpack, Pixels, Pick, Frame, Softmax, Extern,
                 MatrixProduct, WinogradInput, WinogradOutput, Vta, Flip, Patches, Planes, ChannelNorm)
}  # fmt: skip


def decode(document: Mapping[str, Any]) -> Spec:
    """The spec that `Spec.encode` gave. KeyError, TypeError or ValueError for anything else."""
    values = dict(document)
    found: Spec = built(KINDS[str(values.pop("kind"))], values)
    return found
