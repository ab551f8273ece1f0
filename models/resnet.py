"""ResNet, its plain twins, and ResNeXt.

ResNet: He et al., "Deep Residual Learning for Image Recognition" (1512.03385), table 1; the plain networks of section
3.3 are the same without shortcuts. In the bottleneck block the 3x3 has the stride, not the first 1x1 (torchvision's and
NVIDIA's "v1.5"). ResNeXt: Xie et al., "Aggregated Residual Transformations for Deep Neural Networks" (1611.05431),
figure 3(c): the 3x3 is grouped.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd

from torch import Tensor, nn

from .base import Staged
from .keys import KeyMap
from .layers import Chain, ConvNormAct, scaled


@dataclass(frozen=True)
class Variant:
    """One network of the family: blocks a stage; whether blocks are bottlenecks; groups and channels a group of the
    3x3; shortcuts.
    """

    blocks: tuple[int, int, int, int]
    bottleneck: bool = True
    cardinality: int = 1
    group_width: int = 64
    shortcut: bool = True


VARIANTS = {
    "resnet18": Variant((2, 2, 2, 2), bottleneck=False),
    "resnet34": Variant((3, 4, 6, 3), bottleneck=False),
    "resnet50": Variant((3, 4, 6, 3)),
    "resnet101": Variant((3, 4, 23, 3)),
    "resnet152": Variant((3, 8, 36, 3)),
    "plain18": Variant((2, 2, 2, 2), bottleneck=False, shortcut=False),
    "plain34": Variant((3, 4, 6, 3), bottleneck=False, shortcut=False),
    "resnext50_32x4d": Variant((3, 4, 6, 3), cardinality=32, group_width=4),
    "resnext101_32x4d": Variant((3, 4, 23, 3), cardinality=32, group_width=4),
    "resnext101_32x8d": Variant((3, 4, 23, 3), cardinality=32, group_width=8),
}


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    width: float,
    input_size: tuple[int, int],
    blocks: tuple[int, ...],
    dropout: float,
) -> Staged:
    """(N, C, H, W) -> (N, classes); 224 -> 56 -> 28 -> 14 -> 7 pixels."""
    variant = VARIANTS[name]
    channels = scaled(64, width)
    stem = Chain([ConvNormAct(in_channels, channels, 7, 2, 3), nn.MaxPool2d(3, 2, 1)], channels)
    stages: dict[str, nn.Module] = {"stem": stem}
    for stage, count in enumerate(blocks or variant.blocks):
        layer: list[nn.Module] = []
        for index in range(count):
            block = _block(variant, channels, 64 << stage, width, stride=2 if stage and not index else 1)
            layer.append(block)
            channels = block.out_channels
        stages[f"layer{stage + 1}"] = Chain(layer, channels)
    return Staged(stages, channels, num_classes, dropout=dropout)


def _block(variant: Variant, inputs: int, planes: int, width: float, stride: int) -> Residual:
    if not variant.bottleneck:
        outputs = scaled(planes, width)
        body = [ConvNormAct(inputs, outputs, 3, stride, 1), ConvNormAct(outputs, outputs, 3, 1, 1, act=None)]
    else:
        inner = scaled(planes * variant.cardinality * variant.group_width // 64, width)
        outputs = scaled(planes * 4, width)
        # A narrowed ResNeXt keeps as many of its groups as its channels divide into.
        groups = gcd(variant.cardinality, inner)
        body = [
            ConvNormAct(inputs, inner),
            ConvNormAct(inner, inner, 3, stride, 1, groups=groups),
            ConvNormAct(inner, outputs, act=None),
        ]
    return Residual(body, inputs, outputs, stride, variant.shortcut)


class Residual(nn.Module):
    """``relu(body(x) + shortcut(x))``, or ``relu(body(x))`` for the plain twin: (N, C, H, W) -> (N, K, H / stride, W /
    stride).

    The shortcut is the identity, or a strided 1x1 projection where the shape changes (the paper's option B).
    """

    def __init__(self, body: list[ConvNormAct], inputs: int, outputs: int, stride: int, shortcut: bool) -> None:
        super().__init__()
        self.body = Chain(body, outputs)
        project = shortcut and (stride != 1 or inputs != outputs)
        self.identity = shortcut and not project
        self.shortcut = ConvNormAct(inputs, outputs, 1, stride, act=None) if project else None
        self.act = nn.ReLU(inplace=True)
        self.out_channels = outputs

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        if self.shortcut is not None:
            y = y + self.shortcut(x)
        elif self.identity:
            y = y + x
        result: Tensor = self.act(y)
        return result


def _position(kind: str) -> tuple[str, str]:
    """``layer1.0.body.2.conv.weight`` is their ``layer1.0.conv3.weight``: one rule for each position in the body."""
    return rf"^(layer\d\.\d+)\.body\.{kind}\.(conv|bn)\.", rf"\1.\g<2>{int(kind) + 1}."


KEYS = (
    KeyMap(
        "torchvision",  # timm's names are the same
        (
            (r"^stem\.0\.(conv|bn)\.", r"\g<1>1."),
            *(_position(kind) for kind in "012"),
            (r"\.shortcut\.conv\.", ".downsample.0."),
            (r"\.shortcut\.bn\.", ".downsample.1."),
            (r"^classifier\.", "fc."),
        ),
        networks=tuple(name for name, variant in VARIANTS.items() if variant.shortcut),
    ),
)
