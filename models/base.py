"""What every network of the zoo is: an nn.Module that knows its spec and its input, in one of two shapes of body."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from inception_deploy.runtime.preprocessing import Preprocessing

    from .spec import ModelSpec


class Outputs(NamedTuple):
    """What a network with auxiliary heads returns while training: (N, classes) logits, and the same of each head, first
    head first.
    """

    logits: Tensor
    aux: tuple[Tensor, ...]


class Network(nn.Module):
    """A network of the zoo: (N, C, H, W) float32 -> (N, classes) float32 logits.

    Attributes:
        trained: whether its values came from a weights file.
        notes: what loading that file chose, renamed and converted; lines for the user.
        input_shape: (C, H, W) it was built for.
        preprocessing: from a picture to its input, at that size; None where no picture has so many channels.
        spec: its line of the table.
    """

    trained: bool = False
    notes: tuple[str, ...] = ()
    input_shape: tuple[int, int, int]
    preprocessing: Preprocessing | None
    spec: ModelSpec


class Staged(Network):
    """Named stages, then global average pool, dropout and one linear layer.

    `aux` maps a stage's name to a head that reads its output; heads run while training only, and then the result is
    `Outputs`. Parameters are named ``<stage>...``, ``aux.<stage>...`` and ``classifier.weight / bias``.
    """

    def __init__(
        self,
        stages: dict[str, nn.Module],
        features: int,
        num_classes: int,
        *,
        dropout: float = 0.0,
        aux: dict[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        self.stages = tuple(stages)
        for name, stage in stages.items():
            self.add_module(name, stage)
        self.aux = nn.ModuleDict(aux or {})
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(features, num_classes)

    def forward(self, x: Tensor) -> Tensor | Outputs:
        heads = []
        for name in self.stages:
            x = self.get_submodule(name)(x)
            if self.training and name in self.aux:
                heads.append(self.aux[name](x))
        logits: Tensor = self.classifier(self.dropout(torch.flatten(self.pool(x), 1)))
        return Outputs(logits, tuple(heads)) if self.training and len(self.aux) else logits
