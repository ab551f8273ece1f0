"""Parameters and MACs, counted on the meta device, against the table and against what others publish."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from inception_deploy import models
from inception_deploy.models.assemble import assemble
from inception_deploy.models.count import Count, count
from inception_deploy.verify import bound

# timm 1.0.31's and torchvision 0.28's definitions, and for MACs their published rounding (GMACs, digits as given).
REFERENCE = {
    "lenet5": (61_706, "0.00042"),
    "alexnet": (61_100_840, "0.7142"),
    "vgg11": (132_863_336, "7.609"),
    "vgg13": (133_047_848, "11.3"),
    "vgg16": (138_357_544, "15.470"),
    "vgg19": (143_667_240, "19.632"),
    "resnet18": (11_689_512, "1.8141"),
    "resnet34": (21_797_672, "3.6638"),
    "resnet50": (25_557_032, "4.0892"),
    "resnet101": (44_549_160, "7.8014"),
    "resnet152": (60_192_808, "11.5136"),
    "googlenet": (6_624_904, "1.4984"),
    "inception_v3": (23_834_568, "5.7132"),
    "inception_v4": (42_679_816, "12.2540"),
    "inception_resnet_v1": (22_756_328, "6.21"),
    "inception_resnet_v2": (55_843_464, "13.1558"),
    "resnext50_32x4d": (25_028_904, "4.2305"),
    "resnext101_32x4d": (44_177_704, "7.9700"),
    "resnext101_32x8d": (88_791_336, "16.4140"),
    "xception": (22_855_952, "8.3574"),
    "mobilenet_v1": (4_231_976, "0.5687"),
}


def counted(name: str, **options: Any) -> Count:
    with torch.device("meta"):
        module = assemble(models.spec(name), options=options)
    return count(module, module.input_shape)


@pytest.mark.parametrize("name", models.names())
def test_the_table_is_exact(name: str) -> None:
    spec = models.spec(name)
    assert counted(name) == Count(spec.parameters, spec.macs)


@pytest.mark.parametrize("name", REFERENCE)
def test_the_table_agrees_with_the_field(name: str) -> None:
    spec, (parameters, gmacs) = models.spec(name), REFERENCE[name]
    assert spec.parameters == parameters
    assert abs(spec.macs / 1e9 - float(gmacs)) <= 0.51 * 10.0 ** -len(gmacs.partition(".")[2])


def test_inception_v2_is_near_what_is_published_for_it() -> None:
    spec = models.spec("inception_v2")
    assert spec.parameters == pytest.approx(11.2e6, rel=bound("paper"))
    assert spec.macs == pytest.approx(1.94e9, rel=bound("paper"))


@pytest.mark.parametrize(
    ("name", "options", "parameters"),
    [
        ("inception_v3", {"aux": True}, 27_161_264),
        ("googlenet", {"aux": True}, 13_004_888),
        ("inception_resnet_v1", {"final_block8": True}, 24_357_096),
        ("lenet5", {"form": "1998"}, 60_000),
    ],
)
def test_other_forms(name: str, options: dict[str, Any], parameters: int) -> None:
    assert counted(name, **options).parameters == parameters


def test_plain_twins_lack_only_the_projections() -> None:
    for plain, residual in (("plain18", "resnet18"), ("plain34", "resnet34")):
        with torch.device("meta"):
            module = assemble(models.spec(residual))
        shortcuts = [layer for name, layer in module.named_modules() if name.endswith(".shortcut")]
        removed = sum(parameter.numel() for layer in shortcuts for parameter in layer.parameters())
        assert len(shortcuts) == 3
        assert models.spec(plain).parameters == models.spec(residual).parameters - removed


@pytest.mark.parametrize(
    ("alpha", "rho", "gmacs", "parameters"),
    [(0.75, 1.0, 0.325, 2.6e6), (0.5, 1.0, 0.149, 1.3e6), (1.0, 160 / 224, 0.290, 4.2e6)],
)
def test_mobilenets_multipliers_match_the_papers_tables(
    alpha: float, rho: float, gmacs: float, parameters: float
) -> None:
    """1704.04861, tables 6 and 7."""
    result = counted("mobilenet_v1", alpha=alpha, rho=rho)
    assert result.macs / 1e9 == pytest.approx(gmacs, rel=bound("paper-macs"))
    assert result.parameters == pytest.approx(parameters, rel=bound("paper-parameters"))


@pytest.mark.parametrize("name", models.names())
def test_width_rounds_every_channel_count_to_eight(name: str) -> None:
    with torch.device("meta"):
        module = assemble(models.spec(name), width=0.3, num_classes=5)
    convolutions = [layer for layer in module.modules() if isinstance(layer, nn.Conv2d)]
    assert all(layer.out_channels % 8 == 0 and layer.out_channels >= 8 for layer in convolutions)
    assert count(module, module.input_shape).parameters < models.spec(name).parameters


def test_counting_by_hand() -> None:
    module = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.Flatten(), nn.Linear(6 * 25, 3))
    expected = 6 * 25 * (2 * 9) + 6 * 25 * 3
    assert count(module, (4, 5, 5)) == Count(6 * 2 * 9 + 6 + 150 * 3 + 3, expected)
    assert module.training, "counting must leave the mode as it was"
