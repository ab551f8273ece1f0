"""Inception-ResNet-v2: Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on
Learning" (1602.07261).

The form of TF-slim, which all published weights have and which differs from figure 15 of the paper: the stem is
Inception-v3's followed by one more Inception block (`mixed5b`), the stages have 10, 20 and 10 blocks, and the last
block8 is neither scaled nor rectified. Reduction-A is figure 7 with (k, l, m, n) = (256, 256, 384, 384).
"""

from __future__ import annotations

from .base import Staged
from .inception_resnet import ResidualInception
from .keys import KeyMap
from .layers import AvgPool, Chain, Conv, Convs, MaxPool


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    width: float,
    input_size: tuple[int, int],
    blocks: tuple[int, int, int],
    scales: tuple[float, float, float],
    dropout: float,
) -> Staged:
    """(N, C, H, W) -> (N, classes); 299 -> 35 -> 17 -> 8 pixels, 320 -> 1088 -> 2080 -> 1536 channels."""
    c = Convs(width, eps=1e-3)
    stem = c.chain(
        in_channels,
        Conv(32, 3, 2, valid=True),
        Conv(32, 3, valid=True),
        Conv(64, 3),
        MaxPool(),
        Conv(80),
        Conv(192, 3, valid=True),
        MaxPool(),
    )
    mixed5b = c.concat(
        stem.out_channels,
        branch0=[Conv(96)],
        branch1=[Conv(48), Conv(64, 5)],
        branch2=[Conv(64), Conv(96, 3), Conv(96, 3)],
        branch3=[AvgPool(), Conv(64)],
    )
    trunk = mixed5b.out_channels
    block35 = [
        ResidualInception(
            c,
            trunk,
            scales[0],
            branch0=[Conv(32)],
            branch1=[Conv(32), Conv(32, 3)],
            branch2=[Conv(32), Conv(48, 3), Conv(64, 3)],
        )
        for _ in range(blocks[0])
    ]
    mixed6a = c.concat(
        trunk,
        branch0=[Conv(384, 3, 2, valid=True)],
        branch1=[Conv(256), Conv(256, 3), Conv(384, 3, 2, valid=True)],
        branch2=[MaxPool()],
    )
    trunk = mixed6a.out_channels
    block17 = [
        ResidualInception(
            c, trunk, scales[1], branch0=[Conv(192)], branch1=[Conv(128), Conv(160, (1, 7)), Conv(192, (7, 1))]
        )
        for _ in range(blocks[1])
    ]
    mixed7a = c.concat(
        trunk,
        branch0=[Conv(256), Conv(384, 3, 2, valid=True)],
        branch1=[Conv(256), Conv(288, 3, 2, valid=True)],
        branch2=[Conv(256), Conv(288, 3), Conv(320, 3, 2, valid=True)],
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
            branch1=[Conv(192), Conv(224, (1, 3)), Conv(256, (3, 1))],
        )
        for last in [False] * (blocks[2] - 1) + [True]
    ]
    head = c.chain(trunk, Conv(1536))
    stages = {
        "stem": stem,
        "mixed5b": mixed5b,
        "block35": Chain(block35, mixed5b.out_channels),
        "mixed6a": mixed6a,
        "block17": Chain(block17, mixed6a.out_channels),
        "mixed7a": mixed7a,
        "block8": Chain(block8, mixed7a.out_channels),
        "head": head,
    }
    return Staged(stages, head.out_channels, num_classes, dropout=dropout)


KEYS = (
    KeyMap(
        "timm",
        (
            (r"^stem\.0\.", "conv2d_1a."),
            (r"^stem\.1\.", "conv2d_2a."),
            (r"^stem\.2\.", "conv2d_2b."),
            (r"^stem\.4\.", "conv2d_3b."),
            (r"^stem\.5\.", "conv2d_4a."),
            (r"^mixed(5b|6a)\.branch0\.0\.", r"mixed_\1.branch0."),
            (r"^mixed(5b|6a|7a)\.", r"mixed_\1."),
            (r"\.branches\.", "."),
            (r"^(block\d+\.\d+)\.branch0\.0\.", r"\1.branch0."),
            (r"^(block\d+\.\d+)\.up\.", r"\1.conv2d."),
            (r"^block35\.", "repeat."),
            (r"^block17\.", "repeat_1."),
            (r"^block8\.9\.", "block8."),
            (r"^block8\.(?=\d)", "repeat_2."),
            (r"^head\.0\.", "conv2d_7b."),
            (r"^classifier\.", "classif."),
        ),
    ),
)
