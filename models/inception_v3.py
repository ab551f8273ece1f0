"""Inception-v3: Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (1512.00567), table 1.

Factorised convolutions of section 3 (figures 5 to 7), grid reduction of section 5 (figure 10), the batch-normalised
auxiliary head of section 4. The form of torchvision and timm (their branch names too): average pools count the padding,
which TensorFlow's do not. torchvision's published file is TensorFlow's: its `transform_input` only undoes ImageNet's
normalisation, so here it is fed 0.5 / 0.5.
"""

from __future__ import annotations

import re

from torch import Tensor, nn
from torch.nn import functional

from .base import Staged
from .keys import KeyMap
from .layers import AvgPool, Concat, Conv, Convs, Fork, MaxPool


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    width: float,
    input_size: tuple[int, int],
    aux: bool,
    dropout: float,
) -> Staged:
    """(N, C, H, W) -> (N, classes); 299 -> 35 -> 17 -> 8 pixels, 288 -> 768 -> 2048 channels."""
    c = Convs(width, eps=1e-3)
    stages: dict[str, nn.Module] = {}
    inputs = in_channels

    def add(stage: str, module: Concat) -> None:
        nonlocal inputs
        stages[stage], inputs = module, module.out_channels

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
    stages["stem"], inputs = stem, stem.out_channels
    for stage, pool in (("mixed5b", 32), ("mixed5c", 64), ("mixed5d", 64)):
        add(stage, _block35(c, inputs, pool))
    add(
        "mixed6a",
        c.concat(
            inputs,
            branch3x3=[Conv(384, 3, 2, valid=True)],
            branch3x3dbl=[Conv(64), Conv(96, 3), Conv(96, 3, 2, valid=True)],
            branch_pool=[MaxPool()],
        ),
    )
    for stage, inner in (("mixed6b", 128), ("mixed6c", 160), ("mixed6d", 160), ("mixed6e", 192)):
        add(stage, _block17(c, inputs, inner))
    heads: dict[str, nn.Module] = {"mixed6e": AuxiliaryHead(c, inputs, num_classes)} if aux else {}
    add(
        "mixed7a",
        c.concat(
            inputs,
            branch3x3=[Conv(192), Conv(320, 3, 2, valid=True)],
            branch7x7x3=[Conv(192), Conv(192, (1, 7)), Conv(192, (7, 1)), Conv(192, 3, 2, valid=True)],
            branch_pool=[MaxPool()],
        ),
    )
    for stage in ("mixed7b", "mixed7c"):
        add(stage, _block8(c, inputs))
    return Staged(stages, inputs, num_classes, dropout=dropout, aux=heads)


def _block35(c: Convs, inputs: int, pool: int) -> Concat:
    """Figure 5: 5x5 as two 3x3, beside one true 5x5."""
    return c.concat(
        inputs,
        branch1x1=[Conv(64)],
        branch5x5=[Conv(48), Conv(64, 5)],
        branch3x3dbl=[Conv(64), Conv(96, 3), Conv(96, 3)],
        branch_pool=[AvgPool(count_padding=True), Conv(pool)],
    )


def _block17(c: Convs, inputs: int, inner: int) -> Concat:
    """Figure 6: n x n as 1 x n and n x 1, n = 7."""
    return c.concat(
        inputs,
        branch1x1=[Conv(192)],
        branch7x7=[Conv(inner), Conv(inner, (1, 7)), Conv(192, (7, 1))],
        branch7x7dbl=[Conv(inner), Conv(inner, (7, 1)), Conv(inner, (1, 7)), Conv(inner, (7, 1)), Conv(192, (1, 7))],
        branch_pool=[AvgPool(count_padding=True), Conv(192)],
    )


def _block8(c: Convs, inputs: int) -> Concat:
    """Figure 7: filter banks widened for the coarsest grid."""
    return c.concat(
        inputs,
        branch1x1=[Conv(320)],
        branch3x3=[Conv(384), Fork(a=[Conv(384, (1, 3))], b=[Conv(384, (3, 1))])],
        branch3x3dbl=[Conv(448), Conv(384, 3), Fork(a=[Conv(384, (1, 3))], b=[Conv(384, (3, 1))])],
        branch_pool=[AvgPool(count_padding=True), Conv(192)],
    )


class AuxiliaryHead(nn.Module):
    """Section 4's side classifier: (N, 768, 17, 17) -> (N, classes). Maps smaller than 17 are pooled to the 5 x 5 it
    needs.
    """

    def __init__(self, c: Convs, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.conv0 = c.conv(inputs, Conv(128))
        self.conv1 = c.conv(self.conv0.out_channels, Conv(768, 5, valid=True))
        self.fc = nn.Linear(self.conv1.out_channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        pooled = functional.avg_pool2d(x, 5, 3) if min(x.shape[2:]) >= 17 else functional.adaptive_avg_pool2d(x, 5)
        logits: Tensor = self.fc(self.conv1(self.conv0(pooled)).mean((2, 3)))
        return logits


def _one_more(match: re.Match[str]) -> str:
    return f"{match[1]}_{int(match[2]) + 1}{match[3] or ''}."


_RULES = (
    (r"^stem\.0\.", "Conv2d_1a_3x3."),
    (r"^stem\.1\.", "Conv2d_2a_3x3."),
    (r"^stem\.2\.", "Conv2d_2b_3x3."),
    (r"^stem\.4\.", "Conv2d_3b_1x1."),
    (r"^stem\.5\.", "Conv2d_4a_3x3."),
    (r"^aux\.mixed6e\.", "AuxLogits."),
    (r"^mixed(\w+)\.", r"Mixed_\1."),
    (r"\.branch1x1\.0\.", ".branch1x1."),
    (r"\.branch_pool\.1\.", ".branch_pool."),
    (r"^Mixed_6a\.branch3x3\.0\.", "Mixed_6a.branch3x3."),
    (r"\.(branch(?:3x3|5x5|7x7|3x3dbl|7x7dbl|7x7x3))\.(\d)\.(?:([ab])\.0\.)?", lambda match: "." + _one_more(match)),
    (r"^classifier\.", "fc."),
)
KEYS = (KeyMap("torchvision", _RULES, ignore=r"^AuxLogits\."),)  # timm's names are the same
