"""Inception-v4: Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning"
(1602.07261), figure 9.

Stem figure 3, Inception-A, -B, -C figures 4 to 6, Reduction-A figure 7 with (k, l, m, n) = (192, 224, 256, 384),
Reduction-B figure 8. The order of 1x7 and 7x1 in Inception-B's long branch and of 3x1 and 1x3 in Inception-C's is
TF-slim's, as in all published weights.
"""

from __future__ import annotations

from .base import Staged
from .keys import KeyMap, numbered
from .layers import AvgPool, Concat, Conv, Convs, Fork, MaxPool, repeat


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    width: float,
    input_size: tuple[int, int],
    blocks: tuple[int, int, int],
    dropout: float,
) -> Staged:
    """(N, C, H, W) -> (N, classes); 299 -> 35 -> 17 -> 8 pixels."""
    c = Convs(width, eps=1e-3)
    stem = c.chain(
        in_channels,
        Conv(32, 3, 2, valid=True),
        Conv(32, 3, valid=True),
        Conv(64, 3),
        Fork(pool=[MaxPool()], conv=[Conv(96, 3, 2, valid=True)]),
        Fork(
            branch0=[Conv(64), Conv(96, 3, valid=True)],
            branch1=[Conv(64), Conv(64, (1, 7)), Conv(64, (7, 1)), Conv(96, 3, valid=True)],
        ),
        Fork(conv=[Conv(192, 3, 2, valid=True)], pool=[MaxPool()]),
    )
    a = repeat(blocks[0], stem.out_channels, lambda inputs: _inception_a(c, inputs))
    reduction_a = c.concat(
        a.out_channels,
        branch0=[Conv(384, 3, 2, valid=True)],
        branch1=[Conv(192), Conv(224, 3), Conv(256, 3, 2, valid=True)],
        branch2=[MaxPool()],
    )
    b = repeat(blocks[1], reduction_a.out_channels, lambda inputs: _inception_b(c, inputs))
    reduction_b = c.concat(
        b.out_channels,
        branch0=[Conv(192), Conv(192, 3, 2, valid=True)],
        branch1=[Conv(256), Conv(256, (1, 7)), Conv(320, (7, 1)), Conv(320, 3, 2, valid=True)],
        branch2=[MaxPool()],
    )
    last = repeat(blocks[2], reduction_b.out_channels, lambda inputs: _inception_c(c, inputs))
    stages = {
        "stem": stem,
        "inception_a": a,
        "reduction_a": reduction_a,
        "inception_b": b,
        "reduction_b": reduction_b,
        "inception_c": last,
    }
    return Staged(stages, last.out_channels, num_classes, dropout=dropout)


def _inception_a(c: Convs, inputs: int) -> Concat:
    """384 channels at 35 x 35."""
    return c.concat(
        inputs,
        branch0=[Conv(96)],
        branch1=[Conv(64), Conv(96, 3)],
        branch2=[Conv(64), Conv(96, 3), Conv(96, 3)],
        branch3=[AvgPool(), Conv(96)],
    )


def _inception_b(c: Convs, inputs: int) -> Concat:
    """1024 channels at 17 x 17."""
    return c.concat(
        inputs,
        branch0=[Conv(384)],
        branch1=[Conv(192), Conv(224, (1, 7)), Conv(256, (7, 1))],
        branch2=[Conv(192), Conv(192, (7, 1)), Conv(224, (1, 7)), Conv(224, (7, 1)), Conv(256, (1, 7))],
        branch3=[AvgPool(), Conv(128)],
    )


def _inception_c(c: Convs, inputs: int) -> Concat:
    """1536 channels at 8 x 8; two branches end in a fork of 1x3 and 3x1."""
    return c.concat(
        inputs,
        branch0=[Conv(256)],
        branch1=[Conv(384), Fork(a=[Conv(256, (1, 3))], b=[Conv(256, (3, 1))])],
        branch2=[Conv(384), Conv(448, (3, 1)), Conv(512, (1, 3)), Fork(a=[Conv(256, (1, 3))], b=[Conv(256, (3, 1))])],
        branch3=[AvgPool(), Conv(256)],
    )


KEYS = (
    KeyMap(
        "timm",
        (
            (r"^(inception_[abc]\.\d+|reduction_a)\.branch0\.0\.", r"\1.branch0."),
            (r"^(inception_c\.\d+)\.(branch[12])\.(\d)\.([ab])\.0\.", r"\1.\2_\3\4."),
            (r"^(inception_c\.\d+)\.(branch[12])\.(\d)\.", r"\1.\2_\3."),
            (r"^stem\.([35])\.conv\.0\.", r"features.\1.conv."),
            (r"^stem\.", "features."),
            (r"^inception_a\.(\d+)\.", numbered("features.", 6)),
            (r"^reduction_a\.", "features.10."),
            (r"^inception_b\.(\d+)\.", numbered("features.", 11)),
            (r"^reduction_b\.", "features.18."),
            (r"^inception_c\.(\d+)\.", numbered("features.", 19)),
            (r"^classifier\.", "last_linear."),
        ),
    ),
)
