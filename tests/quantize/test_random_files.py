"""Quantized graphs put together at random, Q and DQ in odd places: each integer is onnxruntime's, or beside it at a tie."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from random import Random

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from inception_deploy.graph import driver
from inception_deploy.quantize import integer_network
from inception_deploy.sources import capture
from inception_deploy.verify import bound, run_onnx

from ..cases.int8_files import SHAPE, Graph

QUICK, ALL = {*range(14), 57, 81}, 200
"""Those that run in `make test`, of all; the last two need the bounds of a Clip, which a scale with room beside them does
not make superfluous.
"""
OPSETS = (10, 13, 19, 21)
SIXTEEN = 21
"""From this one on there are numbers of 16 bits."""
TIES = {8: 0.1, 16: 0.5}
"""The part of a tensor of so many bits that may be off by one: biases are rounded, too, by up to half of a step of 16
bits.
"""


class RandomGraph(Graph):
    """A graph that knows what its values are."""

    def __init__(self, seed: int) -> None:
        self.choice = Random(seed)
        super().__init__(seed, self.choice.choice(OPSETS))
        self.x = self.random.standard_normal(SHAPE).astype(np.float32)
        self.quantized: dict[str, int] = {}
        self.scales: dict[str, float] = {}

    def value(self, name: str) -> np.ndarray:
        return self.x if name == "x" else run_onnx(self.model(name), {"x": self.x})[0]

    def quantize(self, y: str) -> str:
        """To a range that may cut some of it off, or leave room beside it, in any of the ways of saying so."""
        found = self.value(y) * np.float32(self.choice.choice([1.0, 1.0, 0.7137, 1.9]))
        low, high = min(0.0, float(found.min())), max(0.0, float(found.max()))
        dtype = self.choice.choice(["uint8", "int8", *(["uint16", "int16"] if self.opset >= SIXTEEN else [])])
        ends = np.iinfo(dtype)
        first, scale = int(ends.min), (high - low) / (int(ends.max) - int(ends.min)) or 1.0
        numbers = [self.constant(scale), self.constant(first + np.rint(-low / scale), dtype)]
        if dtype == "uint8" and low == 0 and self.choice.random() < 0.5:
            numbers.pop()  # uint8 and 0, when nothing is said
        stored = self.op("QuantizeLinear", y, *numbers)
        self.quantized[stored] = TensorProto.DataType.Value(dtype.upper())
        name: str = self.op("DequantizeLinear", stored, *numbers)
        self.scales[name] = scale
        return name

    def convolved(self, y: str) -> str:
        channels, group = self.value(y).shape[1], 1
        out, kernel = self.choice.choice([8, 16, 20]), self.choice.choice([1, 3])
        if self.choice.random() < 0.4:
            out = group = channels
        how = (
            {"axis": None}
            if self.opset < 13
            else self.choice.choice([{}, {"axis": None}, {"dtype": "uint8", "zero": 120}])
        )
        bias = self.choice.choice(["exact", "float", "own", "none"] if self.opset >= 13 else ["float", "none"])
        scale, strides = self.scales.get(y, 0.02), [self.choice.choice([1, 2])] * 2
        name: str = self.conv(y, scale, channels, out, kernel, bias=bias, weight=how, group=group, strides=strides)
        return name

    def joined(self, y: str, values: list[str]) -> str | None:
        alike = [other for other in values if self.value(other).shape == self.value(y).shape]
        kind = self.choice.choice(["Add", "Concat", "Mul"])
        return self.op(kind, y, self.choice.choice(alike), **({"axis": 1} if kind == "Concat" else {}))

    def scaled(self, y: str) -> str:
        channels = self.value(y).shape[1]
        if self.choice.random() < 0.5:
            numbers = [self.normal(channels, 1).reshape(-1) for _ in range(3)]
            inputs = [*map(self.constant, numbers), self.constant(self.random.uniform(0.5, 2, channels))]
            return str(self.op("BatchNormalization", y, *inputs))
        column = self.constant(self.random.standard_normal((channels, 1, 1)))
        return str(self.op(self.choice.choice(["Mul", "Add", "Sub", "Div"]), y, column))

    def bounded(self, y: str) -> str:
        if self.choice.random() < 0.5:
            return str(self.op("Relu", y))
        ends = {"min": -0.4, "max": 1.1}
        inputs = [] if self.opset < 11 else [self.constant(end) for end in ends.values()]
        return str(self.op("Clip", y, *inputs, **({} if inputs else ends)))

    def simple(self, y: str) -> str | None:
        if min(self.value(y).shape[2:]) < 4:
            return None
        pads = {"kernel_shape": [3, 3], "pads": [1, 0, 1, 1], "strides": [self.choice.choice([1, 2])] * 2}
        kind = self.choice.choice(["MaxPool", "AveragePool", "LeakyRelu", "Sigmoid", "Pad", "HardSigmoid"])
        if kind == "Pad":
            ends = [0, 0, 1, 0, 0, 0, 0, 2]
            inputs = [] if self.opset < 11 else [self.constant(ends, "int64"), self.constant(0.31)]
            return str(self.op(kind, y, *inputs, **({} if inputs else {"pads": ends, "value": 0.31})))
        return str(self.op(kind, y, **(pads if kind.endswith("Pool") else {})))


def made(seed: int) -> tuple[RandomGraph, str]:
    """A graph and its output."""
    g = RandomGraph(seed)
    values = [g.quantize("x")]
    kinds: list[Callable[[str], str | None]] = [
        g.convolved,
        g.convolved,
        g.scaled,
        g.simple,
        g.bounded,
        lambda y: g.joined(y, values),
    ]
    for _ in range(g.choice.randint(2, 5)):
        y = g.choice.choice(kinds)(g.choice.choice(values[-2:]))
        if y is None:
            continue
        y = g.bounded(y) if g.choice.random() < 0.4 else y
        values.append(g.quantize(y) if g.choice.random() < 0.8 else y)
    return g, g.op("Flatten", g.op("GlobalAveragePool", values[-1]))


@pytest.mark.parametrize("seed", [pytest.param(n, marks=() if n in QUICK else pytest.mark.slow) for n in range(ALL)])
def test_integers_are_onnxruntimes(seed: int, tmp_path: Path) -> None:
    g, output = made(seed)
    onnx.save(g.model(output), str(tmp_path / "model.onnx"))
    watched = g.model(output)
    for name, kind in g.quantized.items():
        watched.graph.output.append(helper.make_tensor_value_info(name, kind, None))
    expected = dict(zip([output, *g.quantized], run_onnx(watched, {"x": g.x}), strict=True))
    model, _ = driver.optimise(capture.load_onnx(tmp_path / "model.onnx"), verify=False)
    network = integer_network.read(model)
    values = {**network.constants, "x": g.x}
    for step in network.steps:
        network.execute(step, values)
        name = "" if step.output is None else step.output.name
        if name in expected:
            error = np.abs(values[name].astype(int) - expected[name].astype(int))
            assert error.max() <= 1, (step.kind, step.name)
            ties = TIES[8 * values[name].itemsize]
            assert (error > 0).mean() <= max(ties, 1 / error.size), (step.kind, step.name)
            values[name] = expected[name]  # each step by itself
    away = np.abs(values[network.outputs[0]] - expected[output]).max()
    assert away <= bound("step") * np.abs(expected[output]).max()
