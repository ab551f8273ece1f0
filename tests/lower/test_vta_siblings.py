"""Convolutions of a VTA that read the same pixels: one step where that is faster, and every bit as before."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from inception_deploy.kernels.spec import Vta
from inception_deploy.lower import vta_siblings
from inception_deploy.lower.layers import Network

from .conftest import Builder
from .test_on_vta import quantized
from .vta import Executed


def trunk(b: Builder, batch: int) -> str:
    name: str = b.op("Relu", b.conv(b.input(batch, 3, 14, 13), 3, 48))
    return name


def block(b: Builder, x: str) -> str:
    """An Inception block: a slice of the concat, two that further convolutions read, one without activation."""
    sliced = b.op("Relu", b.conv(x, 48, 40, (1, 1)))
    padded = b.op("Relu", b.conv(b.op("Relu", b.conv(x, 48, 70, (1, 1))), 70, 32, pads=[1] * 4))
    narrow = b.op("Relu", b.conv(b.op("Relu", b.conv(x, 48, 8, (1, 1))), 8, 16, pads=[1] * 4))
    name: str = b.op("Concat", sliced, padded, narrow, b.conv(x, 48, 64, (1, 1)), axis=1)
    return name


def network(b: Builder, y: str) -> tuple[onnx.ModelProto, np.ndarray]:
    """What ends in `y` and a convolution of it, in int8, and pictures for it."""
    model, pictures = floating(b, y)
    return quantized(model, pictures, "power-of-two"), pictures[: next(iter(b.inputs.values())).shape[0]]


def floating(b: Builder, y: str) -> tuple[onnx.ModelProto, np.ndarray]:
    """The same before it is quantized, and all its pictures."""
    model = b.model(b.op("Relu", b.conv(y, _channels(b, y), 16, (1, 1))))
    shape = next(iter(b.inputs.values())).shape
    pictures = np.random.default_rng(1).standard_normal((4, *shape[1:])).cumsum(-1).astype(np.float32) / 4
    return model, pictures


def _channels(b: Builder, y: str) -> int:
    found = onnx.shape_inference.infer_shapes(b.model(y)).graph.output[0].type.tensor_type.shape
    return int(found.dim[1].dim_value)


def splits(network: Network) -> list[list[int]]:
    """The blocks of each output of the steps that have several."""
    specs = [layer.spec for layer in network.layers if isinstance(layer.spec, Vta)]
    return [[share.blocks for share in spec.split] for spec in specs if spec.split]


@pytest.mark.parametrize("batch", [1, 2])
def test_a_block(batch: int) -> None:
    """What is clamped otherwise stays, and the reason is told."""
    b = Builder()
    made = Executed(*network(b, block(b, trunk(b, batch))))
    assert made.compared
    assert not made.wrong
    assert splits(made.network) == [[3, 5, 1]]
    joined, alone = made.network.siblings
    assert joined.joined
    assert joined.together is not None
    assert joined.together < joined.apart
    assert (len(joined.nodes), joined.reason) == (3, "")
    assert (len(alone.nodes), alone.joined, alone.together) == (1, False, None)
    assert alone.reason == "its clamp, or how its bias is added, is another than that of what reads the same"
    (step,) = [layer for layer in made.network.layers if layer.also]
    assert [storage.parent is None for storage in step.writes] == [False, True, True]
    assert set(joined.nodes) <= set(step.nodes)


def test_the_same_bits_as_apart_where_one_step_takes_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    b = Builder()
    model, x = network(b, block(b, trunk(b, 1)))
    together = Executed(model, x)
    monkeypatch.setattr(vta_siblings, "cycles", lambda layers, _: 10 // len(layers))
    apart = Executed(model, x)
    assert not splits(apart.network)
    assert not any(row.joined for row in apart.network.siblings)
    assert apart.network.siblings[0].reason == "one step would take no less"
    assert together.compared != []
    assert set(together.compared) == set(apart.compared)
    assert not together.wrong + apart.wrong
    assert len(together.network.layers) == len(apart.network.layers) - 2


def test_who_adds_pools_or_reads_through_another_window_stays_alone() -> None:
    b = Builder()
    x = trunk(b, 1)
    added = b.op("Relu", b.op("Add", b.conv(x, 48, 48, (1, 1)), x))
    pooled = b.op("MaxPool", b.op("Relu", b.conv(x, 48, 32, (1, 1))), kernel_shape=[3, 3], strides=[2, 2])
    strided = b.op("Relu", b.conv(x, 48, 32, (1, 1), strides=[2, 2]))
    grouped = b.op("Relu", b.conv(x, 48, 48, (1, 1), group=3))
    several = [b.op("GlobalAveragePool", y) for y in (added, pooled, strided, grouped)]
    made = Executed(*network(b, b.op("Concat", *several, axis=1)))
    assert not made.wrong
    assert not made.network.siblings
    assert not splits(made.network)


@pytest.mark.parametrize("first", [True, False])
def test_biases_of_more_and_of_fewer_tiles(first: bool) -> None:
    """A bias that takes two tiles beside one of one: the other's second tile adds nothing."""
    b = Builder()
    x = trunk(b, 1)
    if not first:
        before = b.op("Relu", b.conv(x, 48, 16, (1, 1)))
    far = b.op("Conv", x, b.constant(np.full((16, 48, 1, 1), 0.02)), b.constant(np.linspace(-6, 6, 16)))
    sides = [b.op("Relu", far), b.op("Relu", b.conv(x, 48, 16, (1, 1))) if first else before]
    made = Executed(*network(b, b.op("Concat", *sides, axis=1)))
    assert not made.wrong
    assert splits(made.network) == [[1, 1]]
    (step,) = [layer for layer in made.network.layers if layer.also]
    assert isinstance(step.spec, Vta)
    assert step.spec.stages[0].bias_tiles > 1
