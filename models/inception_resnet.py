"""The residual Inception block that Inception-ResNet-v1 and -v2 share.

Szegedy et al., "Inception-v4, Inception-ResNet and the Impact of Residual Connections on Learning" (1602.07261),
section 3.2 and, for the scale, 3.3: ``y = relu(x + scale * up(concat(branches(x))))``, where `up` is a linear 1x1
convolution with a bias and no normalisation.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from .layers import Conv, Convs


class ResidualInception(nn.Module):
    """``relu(x + scale * up(concat(branches(x))))``: (N, C, H, W) -> the same shape.

    Args:
        c: the family's conventions.
        channels: C.
        scale: of the residual; 0.1 to 0.3 in the paper, without which training very wide networks dies.
        relu: whether the sum goes through a ReLU; the last block of the network has none.
        branches: name to words, as for `Convs.concat`.
    """

    def __init__(self, c: Convs, channels: int, scale: float, relu: bool = True, **branches: Sequence[Conv]) -> None:
        super().__init__()
        self.scale = scale
        self.branches = c.concat(channels, **branches)
        self.up = nn.Conv2d(self.branches.out_channels, channels, 1)
        self.act = nn.ReLU(inplace=True) if relu else None
        self.out_channels = channels

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.up(self.branches(x)) * self.scale
        return y if self.act is None else self.act(y)
