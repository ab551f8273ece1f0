"""The losses by hand, and that the loop learns."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from inception_deploy import models
from inception_deploy.models.base import Outputs
from inception_deploy.models.train import AUXILIARY_WEIGHT, Recipe, accuracy, jitter, loss, train
from inception_deploy.verify import bound


def test_label_smoothing_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0]])
    logp = logits[0] - math.log(sum(math.exp(value) for value in logits[0].tolist()))
    expected = -(0.9 * logp[0] + 0.1 * logp.mean())
    assert float(loss(logits, torch.tensor([0]), smoothing=0.1)) == pytest.approx(
        float(expected), rel=bound("rounding")
    )


def test_auxiliary_losses_are_weighed() -> None:
    labels = torch.tensor([1, 0])
    main, first, second = (torch.randn(2, 3, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    parts = [float(loss(logits, labels)) for logits in (main, first, second)]
    outputs = Outputs(main, (first, second))
    assert float(loss(outputs, labels, auxiliary_weight=0.3)) == pytest.approx(
        parts[0] + 0.3 * (parts[1] + parts[2]), rel=bound("rounding")
    )
    assert AUXILIARY_WEIGHT == {"googlenet": 0.3, "googlenet-textbook": 0.3, "inception_v3": 0.4}


def stripes(count: int, size: int) -> TensorDataset:
    """Pictures of upright (0) and level (1) stripes in noise."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 2
    wave = torch.sin(torch.arange(size) * 0.8)
    level, upright = wave[:, None].expand(size, size), wave[None, :].expand(size, size)
    images = torch.stack([level if label else upright for label in labels])[:, None]
    return TensorDataset(images + 0.3 * torch.randn(images.shape, generator=generator), labels)


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("irv2", 75, {"blocks": (1, 1, 1)}),
        ("googlenet", 64, {"aux": True}),
        ("lenet5", 32, {}),
        ("lenet5", 32, {"form": "1998"}),
    ],
)
def test_the_loop_learns(name: str, size: int, options: dict[str, object]) -> None:
    width = 1.0 if name == "lenet5" else 0.125
    module = models.build(name, width=width, num_classes=2, in_channels=1, input_size=size, **options)
    data = stripes(40, size)
    epochs = list(train(module, data, Recipe(epochs=6, batch=8, learning_rate=2e-3)))  # type: ignore[arg-type]
    assert [epoch.number for epoch in epochs] == [1, 2, 3, 4, 5, 6]
    assert epochs[-1].loss < 0.8 * epochs[0].loss
    assert module.trained
    assert not module.training
    assert accuracy(module, data) >= 0.9  # type: ignore[arg-type]


def test_training_is_repeatable() -> None:
    states = []
    for _ in range(2):
        module = models.build("lenet5", num_classes=2)
        list(train(module, stripes(16, 32), Recipe(epochs=2, batch=8, augment=jitter)))  # type: ignore[arg-type]
        states.append(module.state_dict())
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_jitter_moves_pictures_a_little() -> None:
    images: Tensor = stripes(4, 16).tensors[0]
    still = jitter(images, torch.Generator().manual_seed(0), degrees=0.0, shift=0.0, zoom=0.0)
    torch.testing.assert_close(still, images, atol=bound("kernels"), rtol=bound("kernels"))
    moved = jitter(images, torch.Generator().manual_seed(0))
    assert moved.shape == images.shape
    assert not torch.allclose(moved, images, atol=bound("visible"))
    assert float(moved.abs().max()) <= float(images.abs().max()) + bound("kernels")


def test_accuracy_counts() -> None:
    module = models.build("lenet5", num_classes=2)
    data = stripes(12, 32)
    with torch.no_grad():
        expected = (module(data.tensors[0]).argmax(1) == data.tensors[1]).float().mean()
    assert accuracy(module, data, batch=5) == pytest.approx(float(expected))  # type: ignore[arg-type]
