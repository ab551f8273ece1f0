"""Exact sizes of a module, counted on the meta device or any other: parameters, and MACs of its convolutions and linear
layers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Count:
    """Parameters, and multiply-accumulates for one input."""

    parameters: int
    macs: int


def count(module: nn.Module, input_shape: tuple[int, int, int]) -> Count:
    """Parameters of `module`, and multiply-accumulates of its forward pass on one (C, H, W) input in eval mode.

    Only convolutions and linear layers count, a bias does not: the convention of the field's tables.
    """
    macs = 0

    def add(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> None:
        nonlocal macs
        if isinstance(layer, nn.Conv2d):
            per_output = layer.in_channels // layer.groups * layer.kernel_size[0] * layer.kernel_size[1]
        else:
            assert isinstance(layer, nn.Linear)
            per_output = layer.in_features
        macs += output.numel() * per_output

    hooks = [
        layer.register_forward_hook(add) for layer in module.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))
    ]
    training = module.training
    module.eval()
    try:
        device = next(module.parameters()).device
        with torch.no_grad():
            module(torch.zeros(1, *input_shape, device=device))
    finally:
        module.train(training)
        for hook in hooks:
            hook.remove()
    return Count(sum(parameter.numel() for parameter in module.parameters()), macs)
