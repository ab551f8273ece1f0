"""Inception v2 (BN-Inception): Ioffe & Szegedy, "Batch Normalization: Accelerating Deep Network Training" (1502.03167),
figure 5.

The form of TF-slim, whose weights are the published ones: the first 7x7 is a depthwise convolution of multiplier 8 and
a 1x1, and the last block alone pools by maximum. `stem="plain"` is the paper's ordinary 7x7. TensorFlow pads strided
layers more at the bottom right; here padding is symmetric.
"""

from __future__ import annotations

from torch import nn

from .base import Staged
from .keys import KeyMap
from .layers import AvgPool, Chain, Concat, Conv, ConvNormAct, Convs, MaxPool

# Channels of 1x1; 3x3 reduce, 3x3; double 3x3 reduce, double 3x3; pool projection.
BLOCKS = {
    "mixed3b": (64, 64, 64, 64, 96, 32),
    "mixed3c": (64, 64, 96, 64, 96, 64),
    "mixed4b": (224, 64, 96, 96, 128, 128),
    "mixed4c": (192, 96, 128, 96, 128, 128),
    "mixed4d": (160, 128, 160, 128, 160, 96),
    "mixed4e": (96, 128, 192, 160, 192, 96),
    "mixed5b": (352, 192, 320, 160, 224, 128),
    "mixed5c": (352, 192, 320, 192, 224, 128),
}
# Channels of 3x3 reduce, 3x3/2; double 3x3 reduce, double 3x3/2; each stands before the block named.
REDUCTIONS = {"mixed4b": ("mixed4a", (128, 160, 64, 96)), "mixed5b": ("mixed5a", (128, 192, 192, 256))}


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    width: float,
    input_size: tuple[int, int],
    stem: str,
    dropout: float,
) -> Staged:
    """(N, C, H, W) -> (N, classes); 224 -> 56 -> 28 -> 14 -> 7 pixels."""
    c = Convs(width, eps=1e-3)
    first = _separable(c, in_channels) if stem == "separable" else c.chain(in_channels, Conv(64, 7, 2))
    rest = c.chain(first.out_channels, MaxPool(padding=1), Conv(64), Conv(192, 3), MaxPool(padding=1))
    stages: dict[str, nn.Module] = {"stem": Chain([first, rest], rest.out_channels)}
    inputs = rest.out_channels
    for stage, channels in BLOCKS.items():
        if stage in REDUCTIONS:
            reduction, counts = REDUCTIONS[stage]
            stages[reduction] = block = _reduction(c, inputs, counts)
            inputs = block.out_channels
        pool = MaxPool(3, 1, padding=1) if stage == "mixed5c" else AvgPool()
        stages[stage] = block = _inception(c, inputs, channels, pool)
        inputs = block.out_channels
    return Staged(stages, inputs, num_classes, dropout=dropout)


def _separable(c: Convs, in_channels: int) -> Chain:
    """7x7 depthwise with eight outputs for each input channel, no activation between, then 1x1."""
    depth = in_channels * 8
    depthwise = nn.Conv2d(in_channels, depth, 7, 2, 3, groups=in_channels, bias=False)
    pointwise = ConvNormAct(depth, c.channels(64), eps=c.eps)
    return Chain([depthwise, pointwise], pointwise.out_channels)


def _inception(c: Convs, inputs: int, channels: tuple[int, ...], pool: AvgPool | MaxPool) -> Concat:
    one, reduce3, three, reduce33, three3, project = channels
    return c.concat(
        inputs,
        branch0=[Conv(one)],
        branch1=[Conv(reduce3), Conv(three, 3)],
        branch2=[Conv(reduce33), Conv(three3, 3), Conv(three3, 3)],
        branch3=[pool, Conv(project)],
    )


def _reduction(c: Convs, inputs: int, channels: tuple[int, ...]) -> Concat:
    reduce3, three, reduce33, three3 = channels
    return c.concat(
        inputs,
        branch0=[Conv(reduce3), Conv(three, 3, 2)],
        branch1=[Conv(reduce33), Conv(three3, 3), Conv(three3, 3, 2)],
        branch2=[MaxPool(padding=1)],
    )


KEYS: tuple[KeyMap, ...] = ()
