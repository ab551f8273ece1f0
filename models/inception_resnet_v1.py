"""Inception-ResNet-v1: Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on
Learning" (1602.07261).

Stem of figure 14, blocks of figures 10 to 13, Reduction-A of figure 7 with (k, l, m, n) = (192, 192, 256, 384). The
paper's 5, 10 and 5 blocks with TF-slim's residual scales; `final_block8` adds the unscaled block without ReLU that the
facenet form ends in.
"""

from __future__ import annotations

from .base import Staged
from .inception_resnet import ResidualInception
from .keys import KeyMap
from .layers import Chain, Conv, Convs, MaxPool


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    width: float,
    input_size: tuple[int, int],
    blocks: tuple[int, int, int],
    scales: tuple[float, float, float],
    final_block8: bool,
    dropout: float,
) -> Staged:
    """(N, C, H, W) -> (N, classes); 299 -> 35 -> 17 -> 8 pixels, 256 -> 896 -> 1792 channels."""
    c = Convs(width, eps=1e-3)
    stem = c.chain(
        in_channels,
        Conv(32, 3, 2, valid=True),
        Conv(32, 3, valid=True),
        Conv(64, 3),
        MaxPool(),
        Conv(80),
        Conv(192, 3, valid=True),
        Conv(256, 3, 2, valid=True),
    )
    trunk = stem.out_channels
    block35 = [
        ResidualInception(
            c,
            trunk,
            scales[0],
            branch0=[Conv(32)],
            branch1=[Conv(32), Conv(32, 3)],
            branch2=[Conv(32), Conv(32, 3), Conv(32, 3)],
        )
        for _ in range(blocks[0])
    ]
    mixed6a = c.concat(
        trunk,
        branch0=[Conv(384, 3, 2, valid=True)],
        branch1=[Conv(192), Conv(192, 3), Conv(256, 3, 2, valid=True)],
        branch2=[MaxPool()],
    )
    trunk = mixed6a.out_channels
    block17 = [
        ResidualInception(
            c, trunk, scales[1], branch0=[Conv(128)], branch1=[Conv(128), Conv(128, (1, 7)), Conv(128, (7, 1))]
        )
        for _ in range(blocks[1])
    ]
    mixed7a = c.concat(
        trunk,
        branch0=[Conv(256), Conv(384, 3, 2, valid=True)],
        branch1=[Conv(256), Conv(256, 3, 2, valid=True)],
        branch2=[Conv(256), Conv(256, 3), Conv(256, 3, 2, valid=True)],
        branch3=[MaxPool()],
    )
    trunk = mixed7a.out_channels
    block8 = [
        ResidualInception(
            c,
            trunk,
            1.0 if last else scales[2],
            not last,
            branch0=[Conv(192)],
            branch1=[Conv(192), Conv(192, (1, 3)), Conv(192, (3, 1))],
        )
        for last in [False] * blocks[2] + [True] * final_block8
    ]
    stages = {
        "stem": stem,
        "block35": Chain(block35, stem.out_channels),
        "mixed6a": mixed6a,
        "block17": Chain(block17, mixed6a.out_channels),
        "mixed7a": mixed7a,
        "block8": Chain(block8, trunk),
    }
    return Staged(stages, trunk, num_classes, dropout=dropout)


KEYS: tuple[KeyMap, ...] = ()
