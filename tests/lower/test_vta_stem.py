"""The first convolution on a VTA: patches, or space to depth, whichever the model of the tiles prefers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest

from inception_deploy.kernels.spec import Vta
from inception_deploy.kernels.vta.accelerator import Accelerator
from inception_deploy.kernels.vta.boards import BOARDS
from inception_deploy.kernels.vta.config import Config

from .test_on_vta import quantized
from .vta import PYNQ, Executed

NARROW = Accelerator("narrow", Config(), replace(BOARDS["pynq"], bus_bytes=1))
"""A VTA whose bus takes longer for patches than its multipliers do for the windows."""


def stem(
    kernel: tuple[int, int], stride: tuple[int, int], pads: list[int], size: int
) -> tuple[onnx.ModelProto, np.ndarray]:
    """A network that begins with a convolution of 3 channels, and a few pictures."""
    random = np.random.default_rng(0)
    text = (
        f'<ir_version: 10, opset_import: ["" : 20]> g (float[1,3,{size},{size}] x) => (float[1,20,h,w] y) '
        f"{{ c = Conv<pads={pads}, strides={list(stride)}>(x, w, b) r = Relu(c) y = Conv(r, v) }}"
    )
    model = onnx.parser.parse_model(text)
    weight = random.standard_normal((20, 3, *kernel), np.float32) / kernel[0]
    behind = random.standard_normal((20, 20, 1, 1), np.float32) / 4
    for name, array in (("w", weight), ("b", random.standard_normal(20, np.float32)), ("v", behind)):
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    model = onnx.shape_inference.infer_shapes(model)
    return model, random.standard_normal((4, 3, size, size), np.float32)


@pytest.mark.parametrize(
    ("kernel", "stride", "pads"),
    [
        ((7, 7), (2, 2), [3, 3, 3, 3]),
        ((3, 3), (2, 2), [0, 0, 0, 0]),
        ((3, 3), (2, 2), [1, 0, 0, 1]),
        ((5, 3), (2, 1), [2, 0, 1, 1]),
        ((4, 4), (4, 4), [0, 0, 0, 0]),
        ((11, 11), (4, 4), [2, 2, 2, 2]),
        ((3, 3), (1, 1), [1, 1, 1, 1]),
    ],
)
def test_every_bit_in_either_way(kernel, stride, pads, monkeypatch) -> None:
    """Whichever is asked for: the model is asked, and told to prefer one."""
    model, pictures = stem(kernel, stride, pads, 23)
    int8 = quantized(model, pictures, "power-of-two")
    seen = set()
    for sign in (1, -1):
        monkeypatch.setattr("inception_deploy.lower.on_vta._Rewriter._cycles", lambda _, la, s=sign: s * la.spec.macs)
        made = Executed(int8, pictures[:1], PYNQ)
        assert made.compared
        assert not made.wrong
        seen.add(next(layer.output.name.rpartition(":")[2] for layer in made.network.layers if layer.op == "patches"))
    # without a stride, or with a window as wide as its stride, both are the same
    assert seen == ({"patches"} if stride == (1, 1) or kernel == stride else {"patches", "space-to-depth"})


@pytest.mark.parametrize(("accelerator", "way"), [(PYNQ, "patches"), (NARROW, "space-to-depth")])
def test_the_model_prefers_one(accelerator: Accelerator, way: str) -> None:
    """By its bus: patches of 7x7 are 10 products a vector and ten times the bytes, space to depth is 16."""
    model, pictures = stem((7, 7), (2, 2), [3, 3, 3, 3], 64)
    made = Executed(quantized(model, pictures, "power-of-two"), pictures[:1], accelerator)
    assert not made.wrong
    first, _ = [layer for layer in made.network.layers if isinstance(layer.spec, Vta)]
    assert first.reads[0].name.endswith(f":{way}")
