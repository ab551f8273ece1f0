"""The words that the network files are written in: a convolution, a pool, a fork, as frozen data; `Convs` turns them
into modules.

    c = Convs(eps=1e-3, width=0.5)
    block = c.concat(inputs, branch0=[Conv(96)], branch1=[Conv(64), Conv(96, 3)], branch2=[AvgPool(3), Conv(96)])

Channel counts in the words are the paper's; `Convs` multiplies them by its width. All tensors are (N, C, H, W) float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn

Pair = tuple[int, int]


def scaled(channels: int, width: float) -> int:
    """`channels` times `width`, rounded to the nearest multiple of 8 and at least 8; unchanged at width 1."""
    return channels if width == 1.0 else max(8, int(channels * width / 8 + 0.5) * 8)


def pair(size: int | Pair) -> Pair:
    """(height, width) of a size that may be one number for both."""
    return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True)
class Conv:
    """Convolution, normalisation, activation. `valid`: no padding; `pad`: so much; otherwise (kernel - 1) / 2 on each
    side.
    """

    channels: int
    kernel: int | Pair = 1
    stride: int = 1
    valid: bool = False
    pad: int | None = None

    @property
    def padding(self) -> Pair:
        if self.pad is not None:
            return pair(self.pad)
        height, width = pair(self.kernel)
        return (0, 0) if self.valid else (height // 2, width // 2)


@dataclass(frozen=True)
class MaxPool:
    """Maximum pool; `ceil` rounds the output size up."""

    kernel: int = 3
    stride: int = 2
    padding: int = 0
    ceil: bool = False


@dataclass(frozen=True)
class AvgPool:
    """Same-size average pool. TF averages over the pixels inside the picture only (`count_padding` false);
    torchvision's v3 does not.
    """

    kernel: int = 3
    count_padding: bool = False


class Fork:
    """A chain that splits: every branch sees the same input, their outputs are concatenated."""

    def __init__(self, **branches: Sequence[Step]) -> None:
        self.branches = branches


Step = Conv | MaxPool | AvgPool | Fork


class ConvNormAct(nn.Module):
    """Convolution, then batch normalisation (the convolution has a bias where there is none), then activation (where
    there is one).
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int | Pair = 1,
        stride: int = 1,
        padding: int | Pair = 0,
        *,
        groups: int = 1,
        eps: float = 1e-5,
        norm: bool = True,
        act: str | None = "relu",
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, pair(kernel), stride, pair(padding), groups=groups, bias=not norm)
        self.bn = nn.BatchNorm2d(outputs, eps=eps) if norm else None
        self.act = activation(act)
        self.out_channels = outputs

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        if self.bn is not None:
            x = self.bn(x)
        return x if self.act is None else self.act(x)


def activation(name: str | None) -> nn.Module | None:
    """relu, relu6 or nothing. In place: the tensor before an activation is never read again in these networks."""
    if name is None:
        return None
    return {"relu": nn.ReLU, "relu6": nn.ReLU6}[name](inplace=True)


class Chain(nn.Sequential):
    """Modules one after the other, with the channel count of the last."""

    def __init__(self, modules: Iterable[nn.Module], out_channels: int) -> None:
        super().__init__(*modules)
        self.out_channels = out_channels


class Concat(nn.Module):
    """Named branches over one input, concatenated along the channels in the order given: (N, C, H, W) -> (N, sum of
    branches, H', W').
    """

    def __init__(self, branches: dict[str, Chain]) -> None:
        super().__init__()
        for name, branch in branches.items():
            self.add_module(name, branch)
        self.out_channels = sum(branch.out_channels for branch in branches.values())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], dim=1)


@dataclass(frozen=True)
class Convs:
    """Builds modules out of the words with one family's conventions."""

    width: float = 1.0
    eps: float = 1e-5
    norm: bool = True
    act: str = "relu"

    def channels(self, count: int) -> int:
        return scaled(count, self.width)

    def conv(self, inputs: int, word: Conv) -> ConvNormAct:
        return ConvNormAct(
            inputs,
            self.channels(word.channels),
            word.kernel,
            word.stride,
            word.padding,
            eps=self.eps,
            norm=self.norm,
            act=self.act,
        )

    def chain(self, inputs: int, *words: Step) -> Chain:
        """The words one after the other, on `inputs` channels (as they are: not scaled again)."""
        modules: list[nn.Module] = []
        for word in words:
            module, inputs = self._module(inputs, word)
            modules.append(module)
        return Chain(modules, inputs)

    def concat(self, inputs: int, **branches: Sequence[Step]) -> Concat:
        return Concat({name: self.chain(inputs, *words) for name, words in branches.items()})

    def _module(self, inputs: int, word: Step) -> tuple[nn.Module, int]:
        if isinstance(word, Conv):
            conv = self.conv(inputs, word)
            return conv, conv.out_channels
        if isinstance(word, MaxPool):
            return nn.MaxPool2d(word.kernel, word.stride, word.padding, ceil_mode=word.ceil), inputs
        if isinstance(word, AvgPool):
            pool = nn.AvgPool2d(word.kernel, 1, word.kernel // 2, count_include_pad=word.count_padding)
            return pool, inputs
        fork = self.concat(inputs, **word.branches)
        return fork, fork.out_channels


def repeat(count: int, inputs: int, make: Callable[[int], Concat | Chain]) -> Chain:
    """`count` blocks one after the other; `make` gets the channels that come in."""
    blocks = []
    for _ in range(count):
        blocks.append(make(inputs))
        inputs = blocks[-1].out_channels
    return Chain(blocks, inputs)


def map_size(chain: nn.Module, size: Pair) -> Pair:
    """Height and width after a plain chain of convolutions and max pools (floor mode)."""
    height, width = size
    for layer in chain.modules():
        if isinstance(layer, (nn.Conv2d, nn.MaxPool2d)):
            kernel, stride, padding = (_sizes(layer, name) for name in ("kernel_size", "stride", "padding"))
            height = (height + 2 * padding[0] - kernel[0]) // stride[0] + 1
            width = (width + 2 * padding[1] - kernel[1]) // stride[1] + 1
    return height, width


def _sizes(layer: nn.Module, name: str) -> Pair:
    """A layer's kernel_size, stride or padding, which torch keeps as one number or as two."""
    value: int | Pair = getattr(layer, name)
    return pair(value)


def grid_pool(size: Pair, grid: int) -> nn.Module | None:
    """Average pool from a map of `size` to grid x grid as torch's adaptive pool does it; None where nothing changes.

    Where all its windows are equal it is an ordinary AvgPool2d, otherwise two matrix products: exporters know both,
    while an adaptive pool becomes dozens of index operations.
    """
    if size == (grid, grid):
        return None
    windows = [_windows(length, grid) for length in size]
    kernels = [{end - start for start, end in side} for side in windows]
    strides = [{after[0] - before[0] for before, after in pairwise(side)} for side in windows]
    if all(len(found) == 1 for found in (*kernels, *strides)):
        return nn.AvgPool2d((*kernels[0], *kernels[1]), (*strides[0], *strides[1]))  # type: ignore[arg-type]
    return GridPool(size, grid)


def _windows(length: int, grid: int) -> list[Pair]:
    """Start and end of each of torch's adaptive windows: those that touch the cell."""
    return [(index * length // grid, -(-(index + 1) * length // grid)) for index in range(grid)]


class GridPool(nn.Module):
    """Adaptive average pool as ``rows @ x @ columns``: (N, C, H, W) -> (N, C, grid, grid)."""

    rows: Tensor
    columns: Tensor

    def __init__(self, size: Pair, grid: int) -> None:
        super().__init__()
        for name, length in zip(("rows", "columns"), size, strict=True):
            means = torch.zeros(grid, length)
            for index, (start, end) in enumerate(_windows(length, grid)):
                means[index, start:end] = 1 / (end - start)
            self.register_buffer(name, means if name == "rows" else means.T.contiguous(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.rows @ x @ self.columns
