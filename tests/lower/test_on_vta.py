"""Networks on VTA: every step computes what `quantize.arith` says, to the bit."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from inception_deploy import models
from inception_deploy.graph.driver import optimise
from inception_deploy.quantize import quantize
from inception_deploy.quantize.scheme import Choices
from inception_deploy.sources import capture

from .test_integers import NETWORKS, averaged, model_of
from .test_zoo_lower import BLOCKS
from .vta import Executed

COMPUTED = {"conv", "dense", "depthwise", "max_pool", "average_pool", "add", "rescale", "clip"}
"""Operators that a VTA computes."""

CHOICES = {"aligned": Choices(), "accumulator": Choices(add="accumulator", average="summed")}


def quantized(model: onnx.ModelProto, pictures: np.ndarray, scheme: str, **choices: object) -> onnx.ModelProto:
    return quantize(model, pictures, scheme=scheme, method="minmax", **choices).model


@pytest.mark.parametrize("add", CHOICES)
@pytest.mark.parametrize("scheme", ["power-of-two", "power-of-two-tensor"])
@pytest.mark.parametrize("make", NETWORKS, ids=lambda make: make.__name__)
def test_small_networks(make, scheme, add):
    model, pictures = model_of(make)
    made = Executed(quantized(model, pictures, scheme, choices=CHOICES[add]), pictures[:2])
    assert made.compared
    assert not made.wrong
    assert not {row.op for row in made.network.kept} & COMPUTED


@pytest.mark.parametrize("tiny", [False, True])
@pytest.mark.parametrize("counted", [0, 1])
def test_an_average_summed_behind_its_convolution(counted, tiny):
    """Where the windows at the border have less to count, too."""
    model, pictures = model_of(averaged(counted, tiny=tiny))
    made = Executed(quantized(model, pictures, "power-of-two", choices=CHOICES["accumulator"]), pictures[:2])
    assert "average_pool" not in [layer.op for layer in made.network.layers]
    assert not made.wrong
    assert not made.network.kept


@pytest.mark.slow
@pytest.mark.parametrize("add", CHOICES)
@pytest.mark.parametrize("name", models.names())
def test_zoo_network(name, add):
    spec = models.spec(name)
    size = max(spec.minimum, min(96, spec.input[1]))
    options = {"blocks": BLOCKS[name]} if name in BLOCKS else {}
    module = models.build(name, width=0.125, num_classes=12, input_size=(size, size), **options)
    model, _ = optimise(capture.to_onnx(module, (1, *module.input_shape)), verify=False)
    pictures = np.random.default_rng(0).standard_normal((2, *module.input_shape), dtype=np.float32)
    made = Executed(quantized(model, pictures, "power-of-two", choices=CHOICES[add]), pictures[:1])
    assert made.compared
    assert not made.wrong
    assert {row.op for row in made.network.kept} <= ({"table"} if name == "lenet5" else {"depthwise"})
