"""GoogLeNet (Inception v1): Szegedy et al., "Going Deeper with Convolutions" (1409.4842), table 1, in two forms.

`googlenet` is torchvision's: batch normalisation, a 3x3 in the branch that is called 5x5 (a known slip its weights
depend on), pools that round up. torchvision's published file is TensorFlow's behind a `transform_input` that only
undoes ImageNet's normalisation; fed with 0.5 / 0.5, as here, there is nothing to undo. `googlenet-textbook` is the
paper's: no normalisation, a true 5x5; as in the textbooks it leaves out the local response normalisation, takes
pictures from 28 x 28 (one channel or three), and pads its pools instead of rounding up.

Both have the paper's two auxiliary classifiers (section 5) as an option: at the outputs of 4a and 4d, for training
only.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .base import Staged
from .keys import KeyMap
from .layers import Chain, Concat, Conv, Convs, MaxPool

# Channels of 1x1; 3x3 reduce, 3x3; 5x5 reduce, 5x5; pool projection. Table 1 of the paper.
BLOCKS = {
    "inception3a": (64, 96, 128, 16, 32, 32),
    "inception3b": (128, 128, 192, 32, 96, 64),
    "inception4a": (192, 96, 208, 16, 48, 64),
    "inception4b": (160, 112, 224, 24, 64, 64),
    "inception4c": (128, 128, 256, 24, 64, 64),
    "inception4d": (112, 144, 288, 32, 64, 64),
    "inception4e": (256, 160, 320, 32, 128, 128),
    "inception5a": (256, 160, 320, 32, 128, 128),
    "inception5b": (384, 192, 384, 48, 128, 128),
}
AUXILIARY_AT = ("inception4a", "inception4d")


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
    """(N, C, H, W) -> (N, classes); 224 -> 56 -> 28 -> 14 -> 7 pixels."""
    textbook = name == "googlenet-textbook"
    c = Convs(width, eps=1e-3, norm=not textbook)
    pool = MaxPool(3, 2, padding=1) if textbook else MaxPool(3, 2, ceil=True)
    last_pool = pool if textbook else MaxPool(2, 2, ceil=True)
    stem = c.chain(in_channels, Conv(64, 7, 2), pool, Conv(64), Conv(192, 3), pool)
    stages: dict[str, nn.Module] = {"stem": stem}
    heads: dict[str, nn.Module] = {}
    inputs = stem.out_channels
    for stage, channels in BLOCKS.items():
        block = _inception(c, inputs, channels, kernel5=5 if textbook else 3)
        before = {"inception4a": pool, "inception5a": last_pool}.get(stage)
        stages[stage] = Chain([c.chain(inputs, before), block], block.out_channels) if before else block
        inputs = block.out_channels
        if aux and stage in AUXILIARY_AT:
            heads[stage] = AuxiliaryHead(c, inputs, num_classes)
    return Staged(stages, inputs, num_classes, dropout=dropout, aux=heads)


def _inception(c: Convs, inputs: int, channels: tuple[int, ...], kernel5: int) -> Concat:
    """Figure 2(b)."""
    one, reduce3, three, reduce5, five, project = channels
    return c.concat(
        inputs,
        branch1=[Conv(one)],
        branch2=[Conv(reduce3), Conv(three, 3)],
        branch3=[Conv(reduce5), Conv(five, kernel5)],
        branch4=[MaxPool(3, 1, padding=1), Conv(project)],
    )


class AuxiliaryHead(nn.Module):
    """Section 5's side classifier: (N, C, H, W) -> (N, classes). The map is pooled to 4 x 4, as 14 x 14 is in the
    paper.
    """

    def __init__(self, c: Convs, inputs: int, num_classes: int) -> None:
        super().__init__()
        self.conv = c.conv(inputs, Conv(128))
        self.fc1 = nn.Linear(self.conv.out_channels * 16, c.channels(1024))
        self.dropout = nn.Dropout(0.7)
        self.fc2 = nn.Linear(c.channels(1024), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.flatten(self.conv(functional.adaptive_avg_pool2d(x, 4)), 1)
        logits: Tensor = self.fc2(self.dropout(functional.relu(self.fc1(x))))
        return logits


KEYS = (
    KeyMap(
        "torchvision",
        (
            (r"^stem\.0\.", "conv1."),
            (r"^stem\.2\.", "conv2."),
            (r"^stem\.3\.", "conv3."),
            (r"^(inception[45]a)\.1\.", r"\1."),
            (r"\.branch1\.0\.", ".branch1."),
            (r"^aux\.inception4a\.", "aux1."),
            (r"^aux\.inception4d\.", "aux2."),
            (r"^classifier\.", "fc."),
        ),
        ignore=r"^aux[12]\.",
        networks=("googlenet",),
    ),
)
