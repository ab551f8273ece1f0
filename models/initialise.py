"""Seeded values for a network without weights that keep its activations finite and varied through hundreds of layers.

An untrained network is still exported, verified, timed and quantized, and none of that means anything when its
activations die out, overflow, or are the same for every picture. So every layer is made to have outputs of mean 0 and
variance 1 over a small seeded batch of picture-like data, in one forward pass: as the batch goes through,

- a BatchNorm2d takes its running mean and variance from what it is given (and is then used as in eval mode);
- a convolution or linear layer WITH a bias (nothing normalises after it) has its output standardised by rescaling its
  weights and setting its bias: the layer-sequential idea of Mishkin & Matas, "All you need is a good init"
  (1511.06422), with the mean as well as the variance.

Weights are drawn as in He et al. (1502.01852). Same seed and same machine: the same bits.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

# Pictures in the calibration batch: at least so many, and more of them where they are small, up to a limit. With 8,
# statistics are so rough that Inception-v4's activations grow from layer to layer on other pictures (logits of a
# deviation of 27); with 16 at full size it stays between 0.4 and 6 in all networks, and irv2 takes 6 s on two cores.
FEWEST, MOST, PIXELS = 16, 64, 16 * 224 * 224
# What a BatchNorm2d adds. With 0, half of every ReLU's inputs are cut off, and a difference between two inputs grows by
# a fifth from layer to layer (E[relu'^2] / Var[relu] = 1.47 in the variance): after Inception-v4's the rounding errors
# of fp32 are 6e-4 of the logits. With 1 it grows by a twentieth.
SHIFT = 1.0
# A channel's variance is estimated together with this many virtual values at the layer's mean variance:
# where a map is 1 x 1 or a layer linear, 16 values alone say too little.
PRIOR = 32
_TINY = 1e-12


def initialise(module: nn.Module, input_shape: tuple[int, int, int], seed: int) -> None:
    """Give every parameter and running statistic of a zoo network a seeded value, in place; leaves the module in eval
    mode.

    Args:
        module: float32, on the CPU; the zoo's (convolutions, linear layers, BatchNorm2d, parameterless layers).
        input_shape: (C, H, W) it will be used at.
        seed: same seed, same values.
    """
    generator = torch.Generator().manual_seed(seed)
    module.train(False)
    for layer in module.modules():
        _draw(layer, generator)
    with ExitStack() as stack, torch.no_grad():
        for layer in module.modules():
            if isinstance(layer, nn.BatchNorm2d):
                stack.callback(layer.register_forward_pre_hook(_set_statistics).remove)
            elif isinstance(layer, (nn.Conv2d, nn.Linear)) and layer.bias is not None:
                stack.callback(layer.register_forward_hook(_standardise).remove)
        _, height, width = input_shape
        count = min(MOST, max(FEWEST, PIXELS // (height * width)))
        module(pictures(count, input_shape, generator))


def pictures(count: int, shape: tuple[int, int, int], generator: torch.Generator) -> Tensor:
    """(count, C, H, W) float32 around 0: noise at several scales, coarse ones strongest, each with its own brightness
    and contrast.
    """
    channels, height, width = shape
    total = torch.zeros(count, channels, height, width)
    side = max(height, width)
    scale = 1
    while scale <= side:
        noise = torch.randn(count, channels, -(-height // scale), -(-width // scale), generator=generator)
        grown = functional.interpolate(noise, size=(height, width), mode="bilinear", align_corners=False)
        total += grown * (scale / side) ** 0.5  # amplitude grows with the scale: a falling spectrum
        scale *= 2
    flat = total.flatten(1)
    total = (total - flat.mean(1)[:, None, None, None]) / flat.std(1)[:, None, None, None]
    contrast = 0.25 + torch.rand(count, 1, 1, 1, generator=generator)
    brightness = torch.randn(count, 1, 1, 1, generator=generator) * 0.5
    return total * contrast + brightness


def _draw(layer: nn.Module, generator: torch.Generator) -> None:
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        with torch.no_grad():
            fan_in = layer.weight[0].numel()
            layer.weight.normal_(0.0, (2.0 / fan_in) ** 0.5, generator=generator)
            if layer.bias is not None:
                layer.bias.zero_()
    elif isinstance(layer, nn.BatchNorm2d):
        layer.reset_parameters()
        with torch.no_grad():
            layer.bias.fill_(SHIFT)


def _moments(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and (smoothed) variance of each channel of (N, C, ...), both (C,)."""
    dims = tuple(dim for dim in range(x.dim()) if dim != 1)
    mean = x.mean(dims)
    # Centred first: E[x^2] - E[x]^2 would cancel; Tensor.var itself is three times slower than this.
    variance = (x - mean.view(1, -1, *[1] * (x.dim() - 2))).square_().mean(dims)
    values = x.numel() // x.shape[1]
    return mean, (variance * values + variance.mean() * PRIOR) / (values + PRIOR)


def _set_statistics(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
    assert isinstance(layer, nn.BatchNorm2d)
    assert layer.running_mean is not None
    assert layer.running_var is not None
    mean, variance = _moments(inputs[0])
    layer.running_mean.copy_(mean)
    layer.running_var.copy_(variance)


def _standardise(layer: nn.Module, inputs: tuple[Any, ...], output: Tensor) -> Tensor:
    assert isinstance(layer, (nn.Conv2d, nn.Linear))
    assert layer.bias is not None
    mean, variance = _moments(output)
    scale = variance.clamp_min(_TINY).rsqrt()
    owners: Tensor | None = getattr(layer, "owners", None)
    # One row of weights for each output, unless the layer says which output each of its rows belongs to.
    rows = scale[owners] if owners is not None else scale
    layer.weight.mul_(rows.view(-1, *[1] * (layer.weight.dim() - 1)))
    layer.bias.copy_(-mean * scale)
    shape = (1, -1) + (1,) * (output.dim() - 2)
    return (output - mean.view(shape)) * scale.view(shape)
