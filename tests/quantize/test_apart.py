"""Branches with ranges so far apart that no scale holds both stay float where they meet."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from inception_deploy.quantize import quantize
from inception_deploy.quantize.integer_network import reference
from inception_deploy.verify import run_onnx

from ..cases.int8_files import SHAPE, Graph


def joined(factor: float) -> onnx.ModelProto:
    """Two branches, one `factor` times as large as the other, that count alike in what follows."""
    g = Graph(1, 20)
    one = g.op("Relu", g.op("Conv", "x", g.constant(g.normal(8, 3, 3, 3)), pads=[1] * 4))
    other = g.op(
        "Mul", g.op("Sigmoid", g.op("Conv", "x", g.constant(g.normal(8, 3, 3, 3)), pads=[1] * 4)), g.constant(factor)
    )
    weight = g.normal(6, 16, 1, 1)
    weight[:, 8:] /= factor
    made = g.op("Conv", g.op("Concat", one, other, axis=1), g.constant(weight))
    model = g.model(made)
    return onnx.shape_inference.infer_shapes(model)


@pytest.mark.parametrize(("factor", "floats"), [(4.0, []), (1e4, ["Concat", "Conv"]), (1e-4, ["Concat", "Conv"])])
def test_what_one_scale_cannot_hold_stays_float(factor: float, floats: list[str]) -> None:
    model = joined(factor)
    pictures = [np.random.default_rng(i).standard_normal(SHAPE[1:]).astype(np.float32) for i in range(8)]
    result = quantize(model, pictures)
    operators = {node.name: node.op_type for node in result.model.graph.node}
    assert [operators[name] for name in result.float_nodes][-2:] == floats
    x = {"x": pictures[0][None]}
    (expected,), (got,) = run_onnx(model, x), reference(result.model, x)
    assert np.abs(got - expected).max() < np.abs(expected).max() / 8
