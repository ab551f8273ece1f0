"""Xception: Chollet, "Xception: Deep Learning with Depthwise Separable Convolutions" (1610.02357), figure 5.

Entry flow, middle flow of eight blocks, exit flow; no activation between the depthwise and the pointwise convolution
(section 4.7). The form of timm's `legacy_xception`, whose weights are the author's.
"""

from __future__ import annotations

import itertools
import re

from torch import Tensor, nn

from .base import Staged
from .keys import KeyMap, numbered
from .layers import Chain, ConvNormAct, scaled


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    width: float,
    input_size: tuple[int, int],
    blocks: int,
    dropout: float,
) -> Staged:
    """(N, C, H, W) -> (N, classes); 299 -> 147 -> 74 -> 37 -> 19 -> 10 pixels."""
    c32, c64, c128, c256, c728, c1024, c1536, c2048 = (
        scaled(count, width) for count in (32, 64, 128, 256, 728, 1024, 1536, 2048)
    )
    stem = Chain([ConvNormAct(in_channels, c32, 3, 2), ConvNormAct(c32, c64, 3)], c64)
    entry = [
        SeparableBlock((c64, c128, c128), stride=2, start_with_act=False),
        SeparableBlock((c128, c256, c256), stride=2),
        SeparableBlock((c256, c728, c728), stride=2),
    ]
    middle = [SeparableBlock((c728, c728, c728, c728)) for _ in range(blocks)]
    last = SeparableBlock((c728, c728, c1024), stride=2)
    separable = [Separable(c1024, c1536), nn.ReLU(inplace=True), Separable(c1536, c2048), nn.ReLU(inplace=True)]
    stages = {
        "stem": stem,
        "entry": Chain(entry, c728),
        "middle": Chain(middle, c728),
        "exit_block": last,
        "exit": Chain(separable, c2048),
    }
    return Staged(stages, c2048, num_classes, dropout=dropout)


class Separable(nn.Module):
    """3x3 depthwise, then 1x1, then batch normalisation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, 1, 1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.bn(self.pointwise(self.depthwise(x)))
        return y


class SeparableBlock(nn.Module):
    """``body(x) + shortcut(x)``, the body being ReLU and separable convolution in turn, and a 3x3/2 max pool where
    strided.
    """

    def __init__(self, channels: tuple[int, ...], *, stride: int = 1, start_with_act: bool = True) -> None:
        super().__init__()
        body: list[nn.Module] = []
        for index, (inputs, outputs) in enumerate(itertools.pairwise(channels)):
            if index or start_with_act:
                body.append(nn.ReLU(inplace=index > 0))  # the first must leave the shortcut's input alone
            body.append(Separable(inputs, outputs))
        if stride != 1:
            body.append(nn.MaxPool2d(3, stride, 1))
        self.body = Chain(body, channels[-1])
        project = stride != 1 or channels[0] != channels[-1]
        self.shortcut = ConvNormAct(channels[0], channels[-1], 1, stride, act=None) if project else None
        self.out_channels = channels[-1]

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        return y + (x if self.shortcut is None else self.shortcut(x))


def _rep(match: re.Match[str]) -> str:
    """Theirs counts ReLU, separable convolution and batch normalisation one by one; ours has the last two in one
    module.
    """
    position, part = int(match[2]), match[3]
    index = position % 2 + position // 2 * 3
    return (
        f"{match[1]}.rep."
        + {"depthwise": f"{index}.conv1", "pointwise": f"{index}.pointwise", "bn": f"{index + 1}"}[part]
        + "."
    )


KEYS = (
    KeyMap(
        "timm",
        (
            (r"^stem\.0\.(conv|bn)\.", r"\g<1>1."),
            (r"^stem\.1\.(conv|bn)\.", r"\g<1>2."),
            (r"^entry\.(\d+)\.", numbered("block", 1)),
            (r"^middle\.(\d+)\.", numbered("block", 4)),
            (r"^exit_block\.", "block12."),
            (r"^(block\d+)\.body\.(\d)\.(depthwise|pointwise|bn)\.", _rep),
            (r"^(block\d+)\.shortcut\.conv\.", r"\1.skip."),
            (r"^(block\d+)\.shortcut\.bn\.", r"\1.skipbn."),
            (r"^exit\.0\.bn\.", "bn3."),
            (r"^exit\.2\.bn\.", "bn4."),
            (r"^exit\.0\.", "conv3."),
            (r"^exit\.2\.", "conv4."),
            (r"^(conv[34])\.depthwise\.", r"\1.conv1."),
            (r"^classifier\.", "fc."),
        ),
    ),
)
