"""Modules as people have them: other precisions, statistics of the batch, pools to odd sizes, scripted ones."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from inception_deploy.sources import capture, resolve
from inception_deploy.verify import require_ok


class Unpool(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        pooled, where = F.max_pool2d(x, 2, return_indices=True)
        return F.max_unpool2d(pooled, where, 2)


class Unfold(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.unfold(x, 3, stride=2, padding=1)


def stem(*rest: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), *rest).eval()


@pytest.mark.parametrize(
    "module",
    [
        stem(nn.BatchNorm2d(4, track_running_stats=False)),
        stem(nn.AdaptiveAvgPool2d(5)),
        stem(nn.AdaptiveAvgPool2d(11)),
        stem(nn.AdaptiveMaxPool2d(4)),
        stem(Unpool()),
        stem(Unfold()),
        nn.DataParallel(stem()),
    ],
    ids=["statistics", "adaptive", "adaptive-larger", "adaptive-max", "unpool", "unfold", "dataparallel"],
)
@pytest.mark.filterwarnings("ignore")  # torch's exporter has many
def test_the_onnx_computes_what_torch_does(module: nn.Module) -> None:
    x = np.random.default_rng(0).standard_normal((1, 3, 8, 8), np.float32)
    require_ok(capture.check_against_torch(module, capture.to_onnx(module, x.shape), x))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_another_precision_becomes_float32_and_it_is_said(dtype: torch.dtype) -> None:
    module = stem().to(dtype)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    (note,) = capture.as_float32(module)
    assert note == f"the module is {str(dtype).removeprefix('torch.')}; it is converted to float32"
    assert all(torch.equal(value, before[key].to(value.dtype)) for key, value in module.state_dict().items())
    assert {parameter.dtype for parameter in module.parameters()} == {torch.float32}
    assert capture.as_float32(module) == []


class Focus(nn.Module):
    """Four pixels of a picture in the channels of one (YOLO's stem), and a convolution of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(12, 8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(F.pixel_unshuffle(x, 2)).mean((2, 3))  # type: ignore[no-any-return]


def test_a_stem_that_moves_pixels_into_channels_takes_a_picture():
    """Twelve is what the first convolution takes, and no number that a picture has."""
    source = resolve.resolve(resolve.Request(model="focus", module=Focus(), input_size=(16, 16)))
    (given,) = source.onnx(lambda _: None).graph.input
    assert [dim.dim_value for dim in given.type.tensor_type.shape.dim][1:] == [3, 16, 16]
