"""LeNet-5: LeCun, Bottou, Bengio & Haffner, "Gradient-Based Learning Applied to Document Recognition" (1998), section
II.B.

`form="full"` is what is called LeNet-5 today: every C3 map sees all six S2 maps, average pools, a linear output; 61,706
parameters. `form="1998"` is the paper: C3 connected by table I, trained subsampling (a coefficient and a bias for each
map), and an output layer of radial basis functions with fixed codes; 60,000 parameters. Both use the paper's scaled
tanh (appendix A).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from inception_deploy.errors import UsageError

from .base import Network
from .keys import KeyMap
from .layers import scaled

# Table I: which S2 maps each of the sixteen C3 maps sees.
C3_TABLE = (
    *(tuple((first + step) % 6 for step in range(3)) for first in range(6)),
    *(tuple((first + step) % 6 for step in range(4)) for first in range(6)),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)


def build(
    name: str, *, num_classes: int, in_channels: int, width: float, input_size: tuple[int, int], form: str
) -> LeNet5:
    """(N, 1, H, W) -> (N, classes).

    Raises:
        UsageError: (kind ``width``) for the 1998 form at another width: the table is for 6 and 16 maps.
    """
    if form == "1998" and width != 1.0:
        raise UsageError(
            "the 1998 form of lenet5 has a table for 6 and 16 maps: width must be 1",
            kind="width",
            got=width,
            allowed=1.0,
        )
    return LeNet5(num_classes, in_channels, width, input_size, paper=form == "1998")


class LeNet5(Network):
    """C1, S2, C3, S4, C5, F6 and the output, named as in the paper."""

    def __init__(
        self, num_classes: int, in_channels: int, width: float, input_size: tuple[int, int], *, paper: bool
    ) -> None:
        super().__init__()
        maps1, maps3, hidden5, hidden6 = (scaled(count, width) for count in (6, 16, 120, 84))
        height, columns = (((size - 4) // 2 - 4) // 2 for size in input_size)
        self.c1 = nn.Conv2d(in_channels, maps1, 5)
        self.s2: nn.Module = Subsample(maps1) if paper else nn.AvgPool2d(2)
        self.c3 = TableConv(C3_TABLE, 5) if paper else nn.Conv2d(maps1, maps3, 5)
        self.s4: nn.Module = Subsample(maps3) if paper else nn.AvgPool2d(2)
        # C5 is a convolution whose kernel covers the whole map: a linear layer.
        self.c5 = nn.Linear(maps3 * height * columns, hidden5)
        self.f6 = nn.Linear(hidden5, hidden6)
        self.output: nn.Module = FixedCodes(hidden6, num_classes) if paper else nn.Linear(hidden6, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = scaled_tanh(self.s2(scaled_tanh(self.c1(x))))
        x = scaled_tanh(self.s4(scaled_tanh(self.c3(x))))
        x = scaled_tanh(self.f6(scaled_tanh(self.c5(torch.flatten(x, 1)))))
        logits: Tensor = self.output(x)
        return logits


def scaled_tanh(x: Tensor) -> Tensor:
    """Appendix A: 1.7159 tanh(2/3 x), which keeps unit variance and has f(1) = 1, f(-1) = -1."""
    return 1.7159 * torch.tanh(x * (2.0 / 3.0))


class Subsample(nn.Module):
    """S2 and S4 of the paper: the 2 x 2 mean, times a trained coefficient plus a trained bias for each map."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.coefficient = nn.Parameter(torch.ones(channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(x, 2) * self.coefficient + self.bias


class TableConv(nn.Conv2d):
    """A convolution in which output map i sees the input maps `table[i]` only; holds just the kernels that exist.

    `weight` is (connections, 1, kernel, kernel), in the order of the table; `owners` (connections,) is the output map
    of each.
    """

    places: Tensor
    owners: Tensor

    def __init__(self, table: tuple[tuple[int, ...], ...], kernel: int) -> None:
        inputs = 1 + max(max(row) for row in table)
        super().__init__(inputs, len(table), kernel)
        connections = sum(map(len, table))
        self.weight = nn.Parameter(torch.randn(connections, 1, kernel, kernel) / kernel)
        # Where each kernel of the dense (outputs, inputs) grid is found; absent ones are the extra kernel of zeros at
        # the end.
        rows, number = [], 0
        for row in table:
            rows.append([number + row.index(source) if source in row else connections for source in range(inputs)])
            number += len(row)
        self.register_buffer("places", torch.tensor(rows), persistent=False)
        owners = [output for output, row in enumerate(table) for _ in row]
        self.register_buffer("owners", torch.tensor(owners), persistent=False)

    def dense(self) -> Tensor:
        """(outputs, inputs, kernel, kernel) with zeros where the table has no connection."""
        kernels = torch.cat([self.weight[:, 0], torch.zeros_like(self.weight[:1, 0])])
        return kernels[self.places]

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x, self.dense(), self.bias)


class FixedCodes(nn.Module):
    """The paper's radial basis output against a fixed code of +1 and -1 for each class: (N, F) -> (N, classes).

    The paper's output is |x - code|^2, smallest for the class found. With codes of +-1 that is |x|^2 - 2 x.code + F, so
    ``x.code - F / 2`` orders the classes the same way, largest first, and |x|^2 cancels in a softmax. The paper draws
    its codes as 7 x 12 pictures of the characters; these are seeded signs, which its section III.C holds for as good
    when classes are few.
    """

    codes: Tensor

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__()
        signs = torch.randint(
            0, 2, (num_classes, features), generator=torch.Generator().manual_seed(1998), device="cpu"
        )
        self.register_buffer("codes", signs * 2.0 - 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.codes) - self.codes.shape[1] / 2


KEYS: tuple[KeyMap, ...] = ()
