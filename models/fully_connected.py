"""The body of AlexNet and VGG: convolutions, a fixed grid of features, two hidden linear layers, a classifier."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .base import Network
from .layers import Chain, Pair, grid_pool, map_size


class FullyConnected(Network):
    """(N, C, H, W) -> (N, classes). Parameters: ``features...``, ``hidden1``, ``hidden2``, ``classifier``.

    From the published input size on, the last map is pooled to grid x grid as torchvision does it, so published weights
    fit. At smaller sizes torchvision would repeat pixels to fill the grid; here the first hidden layer is as small as
    the map it sees.
    """

    def __init__(
        self, features: Chain, input_size: Pair, grid: int, hidden: int, num_classes: int, dropout: float
    ) -> None:
        super().__init__()
        height, width = map_size(features, input_size)
        self.features = features
        self.grid = grid_pool((height, width), grid) if min(height, width) >= grid else None
        cells = grid * grid if min(height, width) >= grid else height * width
        self.hidden1 = nn.Linear(features.out_channels * cells, hidden)
        self.hidden2 = nn.Linear(hidden, hidden)
        self.act = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        if self.grid is not None:
            x = self.grid(x)
        x = self.dropout(self.act(self.hidden1(torch.flatten(x, 1))))
        x = self.dropout(self.act(self.hidden2(x)))
        logits: Tensor = self.classifier(x)
        return logits
