"""What verification is for: a network with one small thing wrong is refused, whatever rounding is allowed.

Planted into every network of the zoo, narrow and on small images, ONNX against ONNX: one weight off by a hundredth of the
largest of its channel, two channels of a convolution swapped, a convolution whose padding is shifted by one. The layer
is drawn; in it, the error sits where the network is alive, since behind a ReLU that is shut no comparison can see it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from inception_deploy import judge, models
from inception_deploy.rounding import Rounding
from inception_deploy.sources import capture
from inception_deploy.verify import run_onnx

QUICK = ("lenet5", "mobilenet_v1", "inception_resnet_v2")
BLOCKS = {
    **dict.fromkeys(("resnet50", "resnet101", "resnet152"), (1, 1, 1, 1)),
    **dict.fromkeys(("resnext50_32x4d", "resnext101_32x4d", "resnext101_32x8d"), (1, 1, 1, 1)),
    "inception_v4": (1, 1, 1),
    "inception_resnet_v1": (1, 1, 1),
    "inception_resnet_v2": (2, 1, 1),
    "xception": 1,
}


def small(name: str) -> onnx.ModelProto:
    size = models.spec(name).minimum
    options = {"blocks": BLOCKS[name]} if name in BLOCKS else {}
    width = 1.0 if name == "lenet5" else 0.125
    module = models.build(name, num_classes=10, width=width, input_size=(size, size), **options)
    return capture.to_onnx(module, (1, *module.input_shape))


class Network:
    """An exported network, its inputs, and what can go wrong in it."""

    def __init__(self, model: onnx.ModelProto, seed: int) -> None:
        self.model, self.random = model, np.random.default_rng(seed)
        self.weights = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
        self.layers = [node for node in model.graph.node if node.op_type == "Conv" and node.input[1] in self.weights]
        (port,) = [value for value in model.graph.input if value.name not in self.weights]
        shape = [dim.dim_value for dim in port.type.tensor_type.shape.dim]
        x = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        self.feeds = {"random": {port.name: x}, "uniform": {port.name: np.abs(x)}}
        self.rounding = Rounding(model, self.feeds)

    def outputs(self, model: onnx.ModelProto) -> dict[str, Any]:
        return {name: run_onnx(model, feeds) for name, feeds in self.feeds.items()}

    def layer(self, padded: bool = False) -> onnx.NodeProto:
        found = [node for node in self.layers if not padded or any(_pads(node))]
        return found[self.random.integers(len(found))]

    def alive(self, layer: onnx.NodeProto) -> tuple[int, int]:
        """The channels of its output and of its input, in the group of the first, that are largest."""
        shown = onnx.ModelProto()
        shown.CopyFrom(self.model)
        names = [name for name in (layer.output[0], layer.input[0]) if name not in self.feeds["random"]]
        for name in names:
            shown.graph.node.append(helper.make_node("Identity", [name], [f"{name}/shown"]))
            shown.graph.output.append(helper.make_empty_tensor_value_info(f"{name}/shown"))
        values = (
            dict(zip(names, run_onnx(shown, self.feeds["random"])[-len(names) :], strict=True)) | self.feeds["random"]
        )
        out = values[layer.output[0]].mean(axis=(0, 2, 3))
        best, channels = int(out.argmax()), self.weights[layer.input[1]].shape[1]
        group = best // (len(out) // max(1, values[layer.input[0]].shape[1] // channels))
        read = np.abs(values[layer.input[0]]).mean(axis=(0, 2, 3))[group * channels : (group + 1) * channels]
        return best, int(read.argmax())

    def with_weights(self, layer: onnx.NodeProto, values: np.ndarray) -> onnx.ModelProto:
        result = onnx.ModelProto()
        result.CopyFrom(self.model)
        (place,) = [tensor for tensor in result.graph.initializer if tensor.name == layer.input[1]]
        place.CopyFrom(numpy_helper.from_array(values, place.name))
        return result

    def one_weight_off(self) -> onnx.ModelProto:
        layer = self.layer()
        values = self.weights[layer.input[1]].copy()
        out, read = self.alive(layer)
        rows, columns = values.shape[2:]
        values[out, read, rows // 2, columns // 2] += 0.01 * np.abs(values[out]).max()
        return self.with_weights(layer, values)

    def two_channels_swapped(self) -> onnx.ModelProto:
        layer = self.layer()
        values = self.weights[layer.input[1]].copy()
        out, _ = self.alive(layer)
        other = (out + int(self.random.integers(1, len(values)))) % len(values)
        values[[out, other]] = values[[other, out]]
        return self.with_weights(layer, values)

    def padding_shifted(self) -> onnx.ModelProto:
        name = self.layer(padded=True).output[0]
        result = onnx.ModelProto()
        result.CopyFrom(self.model)
        (layer,) = [node for node in result.graph.node if node.output[0] == name]
        (pads,) = [attribute for attribute in layer.attribute if attribute.name == "pads"]
        axis = 0 if pads.ints[0] + pads.ints[2] else 1
        step = 1 if pads.ints[axis] else -1
        pads.ints[axis] -= step
        pads.ints[axis + 2] += step
        return result

    def judged(self, wrong: onnx.ModelProto) -> dict[str, Any]:
        return judge.row("optimised", self.outputs(self.model), self.outputs(wrong), self.rounding)


def _pads(node: onnx.NodeProto) -> list[int]:
    return next((list(attribute.ints) for attribute in node.attribute if attribute.name == "pads"), [])


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in QUICK else pytest.mark.slow) for name in models.names()]
)
def test_a_planted_error_is_refused(name: str) -> None:
    model = small(name)
    for seed in range(3):
        network = Network(model, seed)
        plants = {"weight": network.one_weight_off(), "channels": network.two_channels_swapped()}
        if any(any(_pads(layer)) for layer in network.layers):
            plants["padding"] = network.padding_shifted()
        for what, wrong in plants.items():
            row = network.judged(wrong)
            assert not row["ok"], (name, seed, what, row)
            assert row["noise"] is not None  # the allowance was asked for, and was not enough
