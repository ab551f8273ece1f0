"""Training for the zoo: the losses of the papers, one plain loop. `module.train()` gives the auxiliary outputs that
`loss` weighs.

module = assemble(spec("inception_v3"), options={"aux": True}, num_classes=10)
for epoch in train(module, data, Recipe(epochs=20)):
    print(epoch.number, epoch.loss)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from .base import Network, Outputs

# What the auxiliary classifiers' losses count: 0.3 in the GoogLeNet paper (1409.4842, section 5), 0.4 in TF-slim's and
# torchvision's training of Inception v3.
AUXILIARY_WEIGHT = {"googlenet": 0.3, "googlenet-textbook": 0.3, "inception_v3": 0.4}

Data = Dataset[tuple[Tensor, int]]


@dataclass(frozen=True)
class Recipe:
    """How to train.

    Attributes:
        epochs: passes over the data.
        batch: pictures a step.
        learning_rate: the highest; it rises over the first tenth of the steps and falls as a cosine.
        weight_decay: AdamW's.
        smoothing: label smoothing (1512.00567, section 7).
        seed: of the order and of the augmentation. The module's own values are the caller's.
        augment: applied to each batch (N, C, H, W) with a seeded generator; None for none.
    """

    epochs: int
    batch: int = 32
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    smoothing: float = 0.1
    seed: int = 0
    augment: Callable[[Tensor, torch.Generator], Tensor] | None = None


@dataclass(frozen=True)
class Epoch:
    """One pass over the data: its number from 1, and the mean loss of its steps."""

    number: int
    loss: float


def loss(outputs: Tensor | Outputs, labels: Tensor, *, smoothing: float = 0.1, auxiliary_weight: float = 0.3) -> Tensor:
    """Cross entropy with label smoothing, of the classifier and, weighted, of each auxiliary one.

    Args:
        outputs: (N, classes) logits, or what a network with auxiliary heads gives in training mode.
        labels: (N,) int64 class numbers.

    Returns:
        A scalar.
    """
    if isinstance(outputs, Tensor):
        return functional.cross_entropy(outputs, labels, label_smoothing=smoothing)
    heads = [functional.cross_entropy(head, labels, label_smoothing=smoothing) for head in outputs.aux]
    main = functional.cross_entropy(outputs.logits, labels, label_smoothing=smoothing)
    return main + auxiliary_weight * torch.stack(heads).sum()


def train(module: Network, data: Data, recipe: Recipe) -> Iterator[Epoch]:
    """Train in place, yielding after every epoch; the module is in eval mode whenever it yields and when it is done.

    Args:
        module: its parameters already have values (`build` without weights gives good ones).
        data: items ``((C, H, W) float32, class number)``; must have a length.
        recipe: how.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    # A last batch of one picture has no variance for a BatchNorm over a 1 x 1 map, so an incomplete batch is left out.
    whole = len(data) >= recipe.batch  # type: ignore[arg-type]
    loader = DataLoader(data, recipe.batch, shuffle=True, drop_last=whole, generator=generator)
    optimiser = torch.optim.AdamW(_groups(module, recipe.weight_decay), lr=recipe.learning_rate)
    steps = recipe.epochs * len(loader)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, recipe.learning_rate, total_steps=steps, pct_start=0.1)
    auxiliary_weight = AUXILIARY_WEIGHT.get(module.spec.name, 0.0)
    module.trained = True
    for number in range(1, recipe.epochs + 1):
        module.train()
        total = 0.0
        for images, labels in loader:
            batch = images if recipe.augment is None else recipe.augment(images, generator)
            optimiser.zero_grad(set_to_none=True)
            value = loss(module(batch), labels, smoothing=recipe.smoothing, auxiliary_weight=auxiliary_weight)
            value.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            total += value.item()
        module.eval()
        yield Epoch(number, total / len(loader))


def accuracy(module: Network, data: Data, *, batch: int = 64) -> float:
    """Top-1 of the module in eval mode, 0 to 1."""
    module.eval()
    right = count = 0
    with torch.no_grad():
        for images, labels in DataLoader(data, batch):
            right += int((module(images).argmax(1) == labels).sum())
            count += len(labels)
    return right / count


def jitter(
    images: Tensor, generator: torch.Generator, *, degrees: float = 10.0, shift: float = 0.08, zoom: float = 0.1
) -> Tensor:
    """Each picture of (N, C, H, W) turned, moved and zoomed a little; what comes in from outside repeats the border."""
    count = len(images)

    def spread(limit: float) -> Tensor:
        return (torch.rand(count, generator=generator) * 2 - 1) * limit

    angle, scale = torch.deg2rad(spread(degrees)), 1 + spread(zoom)
    cos, sin = angle.cos() * scale, angle.sin() * scale
    rows = torch.stack([cos, -sin, spread(2 * shift), sin, cos, spread(2 * shift)], dim=1).view(count, 2, 3)
    grid = functional.affine_grid(rows, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)


def _groups(module: Network, weight_decay: float) -> list[dict[str, object]]:
    """Weights decay; biases and the scales of batch normalisation do not."""
    decayed = [parameter for parameter in module.parameters() if parameter.dim() > 1]
    others = [parameter for parameter in module.parameters() if parameter.dim() <= 1]
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]
