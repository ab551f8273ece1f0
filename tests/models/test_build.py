"""Building: what comes back, what options do, and what a user is told who asks for the impossible."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from inception_deploy import models
from inception_deploy.errors import UsageError
from inception_deploy.models.assemble import assemble
from inception_deploy.models.base import Network, Outputs
from inception_deploy.models.inception_resnet import ResidualInception
from inception_deploy.models.initialise import pictures
from inception_deploy.models.layers import grid_pool


def logits_of(module: Network, *, count: int = 4, seed: int = 5) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = module(pictures(count, module.input_shape, torch.Generator().manual_seed(seed)))
    return result


@pytest.mark.parametrize("name", models.names())
def test_untrained_networks_tell_pictures_apart(name: str) -> None:
    """At an eighth of the width; `test_full_size_logits_are_sane` does it at full size."""
    spec = models.spec(name)
    width = 1.0 if name == "lenet5" else 0.125
    module = models.build(name, width=width, num_classes=50, input_size=max(spec.minimum, min(96, spec.input[1])))
    assert not module.training
    assert module.trained is False
    assert_sane(logits_of(module))


@pytest.mark.slow
@pytest.mark.parametrize("name", models.names())
def test_full_size_logits_are_sane(name: str) -> None:
    assert_sane(logits_of(models.build(name)))


def test_the_1998_lenet_is_sane_too() -> None:
    assert_sane(logits_of(models.build("lenet5", form="1998")))


def assert_sane(logits: torch.Tensor) -> None:
    assert torch.isfinite(logits).all()
    assert 0.1 < float(logits.std()) < 10
    for other in logits[1:]:
        assert float((logits[0] - other).std()) > 0.1
        assert not torch.equal(logits[0].argsort(), other.argsort())


def test_a_seed_gives_the_same_bits_and_another_does_not() -> None:
    first, again, other = (
        models.build("irv2", width=0.125, input_size=75, num_classes=10, blocks=(2, 2, 2), seed=seed).state_dict()
        for seed in (3, 3, 4)
    )
    assert all(torch.equal(value, again[key]) for key, value in first.items())
    assert not all(torch.equal(value, other[key]) for key, value in first.items())


def test_building_leaves_torchs_own_random_numbers_alone() -> None:
    torch.manual_seed(0)
    models.build("lenet5", seed=1)
    first = models.build("lenet5", seed=7).state_dict()
    torch.manual_seed(99)
    again = models.build("lenet5", seed=7).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in first.items())


@pytest.mark.parametrize("name", models.names())
def test_the_smallest_input_works_and_one_less_is_refused(name: str) -> None:
    spec = models.spec(name)
    module = assemble(spec, input_size=spec.minimum, width=1.0 if name == "lenet5" else 0.125, num_classes=3).eval()
    assert module.input_shape == (spec.input[0], spec.minimum, spec.minimum)
    assert module(torch.zeros(1, *module.input_shape)).shape == (1, 3)
    with pytest.raises(
        UsageError, match=rf"input size {spec.minimum - 1}x{spec.minimum - 1} is too small for {name}"
    ) as caught:
        models.build(name, input_size=spec.minimum - 1)
    assert caught.value.kind == "input-size"


@pytest.mark.parametrize("name", ["inception_v4", "alexnet", "vgg11", "resnet18", "lenet5"])
def test_rectangular_inputs(name: str) -> None:
    spec = models.spec(name)
    size = (spec.minimum + 8, spec.minimum + 40)
    module = assemble(spec, input_size=size, num_classes=3, in_channels=1).eval()
    assert module(torch.zeros(1, 1, *size)).shape == (1, 3)
    assert (module.preprocessing.crop, module.preprocessing.color) == (size, "gray")


def test_no_picture_has_two_channels() -> None:
    module = assemble(models.spec("lenet5"), num_classes=3, in_channels=2).eval()
    assert module(torch.zeros(1, 2, 32, 32)).shape == (1, 3)
    assert module.preprocessing is None


@pytest.mark.parametrize(
    ("name", "arguments", "kind", "message"),
    [
        ("irv2", {"width": 0.0}, "width", "width 0.0 is out of range"),
        ("irv2", {"num_classes": 0}, "num-classes", "num_classes must be a whole number of at least 1"),
        ("irv2", {"in_channels": 0}, "in-channels", "in_channels must be"),
        ("irv2", {"scale": 0.1}, "option", r"inception_resnet_v2 has no option 'scale'; did you mean scales\?"),
        ("irv2", {"blocks": (1, 2)}, "option", "option blocks must be 3 whole numbers above 0"),
        ("irv2", {"blocks": (1, 2, 0)}, "option", "option blocks must be 3 whole numbers above 0"),
        ("irv2", {"scales": (0.1, 0.1, -1.0)}, "option", "option scales must be 3 numbers above 0"),
        ("resnet18", {"blocks": (1, 2)}, "option", "option blocks must be 4 whole numbers above 0"),
        ("inception_v3", {"aux": 1}, "option", "option aux must be true or false"),
        ("inception_v2", {"stem": "odd"}, "option", "option stem must be one of separable, plain"),
        ("xception", {"blocks": 0}, "option", "option blocks must be a whole number above 0"),
        ("mobilenet_v1", {"alpha": 0.0}, "option", "option alpha must be a number above 0"),
        ("mobilenet_v1", {"rho": 0.1}, "input-size", "input size 22x22 is too small"),
        ("resnet18", {"dropout": 1.0}, "option", "option dropout must be a number from 0 to below 1"),
        ("lenet5", {"form": "1998", "width": 2.0}, "width", "width must be 1"),
    ],
)
def test_impossible_wishes(name: str, arguments: dict[str, Any], kind: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        models.build(name, **arguments)
    assert caught.value.kind == kind


def test_blocks_and_scales_are_the_callers() -> None:
    module = assemble(models.spec("irv2"), width=0.125, options={"blocks": (1, 2, 3), "scales": (0.3, 0.2, 0.1)})
    scales = [layer.scale for layer in module.modules() if isinstance(layer, ResidualInception)]
    assert scales == [0.3, 0.2, 0.2, 0.1, 0.1, 1.0]


def test_a_residual_block_is_what_its_docstring_says() -> None:
    module = assemble(models.spec("irv2"), width=0.125, options={"blocks": (1, 1, 2)}).eval()
    inner, last = (layer for name, layer in module.named_modules() if name in ("block8.0", "block8.1"))
    assert isinstance(inner, ResidualInception)
    assert isinstance(last, ResidualInception)
    x = torch.randn(1, inner.out_channels, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(inner(x), torch.relu(x + 0.2 * inner.up(inner.branches(x))))
        torch.testing.assert_close(last(x), x + last.up(last.branches(x)))
        assert float(last(x).min()) < 0


@pytest.mark.parametrize(
    ("name", "heads", "size"), [("inception_v3", 1, 75), ("googlenet", 2, 64), ("googlenet-textbook", 2, 28)]
)
def test_auxiliary_heads_speak_while_training_only(name: str, heads: int, size: int) -> None:
    module = models.build(name, width=0.125, num_classes=4, input_size=size, aux=True)
    x = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    evaluated = module(x)
    assert isinstance(evaluated, torch.Tensor)
    trained = module.train()(x)
    assert isinstance(trained, Outputs)
    assert trained.logits.shape == (2, 4)
    assert [head.shape for head in trained.aux] == [(2, 4)] * heads
    assert not any(key.startswith("aux.") for key in assemble(models.spec(name), width=0.125).state_dict())


def test_the_1998_table_connects_as_the_paper_says() -> None:
    """Table I: the first six maps see three neighbours, the next six four, three more four, the last one all; 60 kernels."""
    module = models.build("lenet5", form="1998")
    connected = module.get_submodule("c3").dense().abs().amax((2, 3)) > 0  # type: ignore[operator]
    assert connected.sum(1).tolist() == [3] * 6 + [4] * 9 + [6]
    assert connected.sum(0).tolist() == [10] * 6
    assert connected[0].tolist() == [True, True, True, False, False, False]


@pytest.mark.parametrize("size", [(7, 7), (8, 8), (9, 9), (10, 7), (14, 21), (12, 9), (13, 8)])
def test_the_grid_is_torchs_adaptive_pool(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    pool = grid_pool(size, 7)
    assert (pool is None) == (size == (7, 7))
    expected = torch.nn.functional.adaptive_avg_pool2d(x, 7)
    torch.testing.assert_close(x if pool is None else pool(x), expected)


def test_resolution_multiplier_chooses_the_input() -> None:
    assert assemble(models.spec("mobilenet_v1"), width=0.25, options={"rho": 0.571}).input_shape == (3, 128, 128)
