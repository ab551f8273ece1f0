"""MobileNet v1: Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications"
(1704.04861), table 1.

Depthwise-separable convolutions (section 3.1), the width multiplier alpha (3.3) and the resolution multiplier rho
(3.4). ReLU6 as in the authors' code and in timm's `mobilenetv1_100`; padding is symmetric, as in timm.
"""

from __future__ import annotations

from .base import Staged
from .keys import KeyMap
from .layers import Chain, ConvNormAct, scaled

# (channels, stride) of the thirteen separable convolutions.
BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))
# How timm groups them in stages: the first block of each.
_STAGES = (0, 1, 3, 5, 11)


def build(
    name: str,
    *,
    num_classes: int,
    in_channels: int,
    width: float,
    input_size: tuple[int, int],
    alpha: float,
    rho: float,
    act: str,
    dropout: float,
) -> Staged:
    """(N, C, H, W) -> (N, classes); 224 -> 7 pixels. `rho` has chosen the input size before this is called."""
    width *= alpha
    channels = scaled(32, width)
    stem = ConvNormAct(in_channels, channels, 3, 2, 1, act=act)
    blocks = []
    for count, stride in BLOCKS:
        outputs = scaled(count, width)
        depthwise = ConvNormAct(channels, channels, 3, stride, 1, groups=channels, act=act)
        blocks.append(Chain([depthwise, ConvNormAct(channels, outputs, 1, act=act)], outputs))
        channels = outputs
    return Staged({"stem": stem, "blocks": Chain(blocks, channels)}, channels, num_classes, dropout=dropout)


def _timm_block(index: int) -> str:
    stage = max(number for number, first in enumerate(_STAGES) if first <= index)
    return f"blocks.{stage}.{index - _STAGES[stage]}."


KEYS = (
    KeyMap(
        "timm",
        (
            (r"^stem\.conv\.", "conv_stem."),
            (r"^stem\.bn\.", "bn1."),
            (r"^blocks\.(\d+)\.(?=\d+\.(?:conv|bn)\.)", lambda match: _timm_block(int(match[1]))),
            (r"^(blocks\.\d+\.\d+)\.0\.conv\.", r"\1.conv_dw."),
            (r"^(blocks\.\d+\.\d+)\.1\.conv\.", r"\1.conv_pw."),
            (r"^(blocks\.\d+\.\d+)\.0\.bn\.", r"\1.bn1."),
            (r"^(blocks\.\d+\.\d+)\.1\.bn\.", r"\1.bn2."),
        ),
    ),
)
