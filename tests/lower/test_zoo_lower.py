"""The zoo's networks, narrow and on small images: lowered without a refusal, compiled, and equal to onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest

from inception_deploy import models
from inception_deploy.graph.driver import optimise
from inception_deploy.sources import capture
from inception_deploy.verify import bound

BLOCKS = {
    "resnet101": (1, 1, 1, 1),
    "resnet152": (1, 1, 1, 1),
    "resnext101_32x4d": (1, 1, 1, 1),
    "resnext101_32x8d": (1, 1, 1, 1),
    "inception_v4": (1, 1, 1),
    "inception_resnet_v1": (1, 1, 1),
    "inception_resnet_v2": (2, 1, 1),
}
"""Equal blocks of the deep ones: one of each kind is enough here."""


@pytest.mark.slow
@pytest.mark.parametrize("target", ["avx2", "avx512-amx"], indirect=True)
@pytest.mark.parametrize("name", models.names())
def test_zoo_network(compiled, target, name):
    spec = models.spec(name)
    size = max(spec.minimum, min(96, spec.input[1]))
    options = {"blocks": BLOCKS[name]} if name in BLOCKS else {}
    module = models.build(name, width=0.125, num_classes=12, input_size=(size, size), **options)
    model, _ = optimise(capture.to_onnx(module, (2, *module.input_shape)), verify=False)
    made = compiled(model)
    assert not made.plan.refusals
    made.check(
        np.random.default_rng(0).standard_normal((2, *module.input_shape), dtype=np.float32), tolerance=bound("network")
    )
