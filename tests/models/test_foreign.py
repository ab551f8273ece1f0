"""Where timm and torchvision are installed: their networks and ours, on the same weights, give the same logits."""

from __future__ import annotations

import importlib
from typing import Any

import pytest
import torch
from torch import nn

from inception_deploy import models
from inception_deploy.models import checkpoint
from inception_deploy.models.assemble import assemble
from inception_deploy.models.base import Outputs
from inception_deploy.models.initialise import pictures
from inception_deploy.verify import tolerance

TORCHVISION = [
    "alexnet",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "googlenet",
    "inception_v3",
    "resnext50_32x4d",
    "resnext101_32x8d",
]
TIMM = {
    **{
        name: name
        for name in (
            "vgg16",
            "resnet18",
            "resnet50",
            "inception_v3",
            "inception_v4",
            "inception_resnet_v2",
            "resnext101_32x4d",
        )
    },
    "xception": "legacy_xception",
    "mobilenet_v1": "mobilenetv1_100",
}
CASES = [
    *(("torchvision", name, name) for name in TORCHVISION),
    *(("timm", name, theirs) for name, theirs in TIMM.items()),
]
# Their pretrained files come with transform_input, which undoes another normalisation than ours: see models/table.py.
ARGUMENTS: dict[str, dict[str, Any]] = {
    name: {"init_weights": False, "transform_input": False} for name in ("googlenet", "inception_v3")
}


def library(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, RuntimeError) as error:  # torchvision for another torch fails with RuntimeError
        pytest.skip(f"{name} cannot be imported here: {error}")


def their_network(source: str, name: str) -> nn.Module:
    if source == "timm":
        module: nn.Module = library("timm").create_model(name)
    else:
        module = library("torchvision").models.get_model(name, **ARGUMENTS.get(name, {}))
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for key, value in module.state_dict().items():
            if key.endswith("running_var"):
                value.uniform_(0.5, 1.5, generator=generator)
            elif value.dim() > 1:
                value.normal_(0.0, (2 / value[0].numel()) ** 0.5, generator=generator)
            elif value.is_floating_point() and not key.endswith("weight"):
                value.normal_(0.0, 0.1, generator=generator)
    return module.eval()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # theirs
@pytest.mark.parametrize(("source", "name", "theirs"), CASES)
def test_the_same_weights_give_the_same_logits(source: str, name: str, theirs: str) -> None:
    reference = their_network(source, theirs)
    module = assemble(models.spec(name)).eval()
    checkpoint.fit(module, reference.state_dict(), name)
    x = pictures(1, module.input_shape, torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected = reference(x)
        error = float((module(x) - expected).abs().max() / expected.abs().max())
    assert error <= tolerance("weights").max_rel


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_auxiliary_heads_are_torchvisions(name: str) -> None:
    reference = their_network("torchvision", name).train()
    module = assemble(models.spec(name), options={"aux": True}).train()
    checkpoint.fit(module, reference.state_dict(), name)
    for layer in (*reference.modules(), *module.modules()):
        if isinstance(layer, (nn.BatchNorm2d, nn.Dropout)):
            layer.eval()
    x = pictures(1, module.input_shape, torch.Generator().manual_seed(2))
    with torch.no_grad():
        expected, outputs = reference(x), module(x)
    assert isinstance(outputs, Outputs)
    # torchvision lists the logits first and then the heads, the last one first.
    for theirs, ours in zip(expected, (outputs.logits, *reversed(outputs.aux)), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance("weights").max_rel, atol=tolerance("weights").max_rel)
