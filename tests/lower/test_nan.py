"""A NaN goes through compiled kernels as through onnxruntime, and only as far; what is finite is untouched by that."""

from __future__ import annotations

import numpy as np
import pytest

from inception_deploy.verify import run_onnx

MAPS = {
    "Clip": {}, "Elu": {}, "Exp": {}, "HardSigmoid": {}, "HardSwish": {}, "LeakyRelu": {}, "Relu": {}, "Sigmoid": {}, "Softplus": {}, "Tanh": {},
}  # fmt: skip


def nan_maps(made, x):
    """Where each output is a NaN, in onnxruntime and compiled."""
    expected = run_onnx(made.model, {made.model.graph.input[0].name: x})
    return [np.isnan(y) for y in expected], [
        np.isnan(y).reshape(e.shape) for y, e in zip(made.run(x), expected, strict=True)
    ]


@pytest.mark.parametrize("target", ["avx2", "avx512"], indirect=True)
@pytest.mark.parametrize("kind", ["conv", "clipped", "depthwise", "winograd", "pools", "sum", "maps"])
def test_a_nan_goes_through(compiled, builder, kind):
    b = builder()
    x = b.input(1, 16, 12, 12)
    if kind == "maps":
        outputs = [
            b.op(op, x, *([b.constant(-0.5), b.constant(0.5)] if op == "Clip" else []), **how)
            for op, how in MAPS.items()
        ]
    elif kind == "pools":
        pools = [b.op("AveragePool", x, kernel_shape=[2, 2], strides=[2, 2]), b.op("GlobalAveragePool", x)]
        outputs = [b.op("Relu", y) for y in pools]
        outputs += [b.op("MaxPool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)]
    elif kind == "depthwise":
        outputs = [b.op("Relu", b.conv(x, 16, 16, (3, 3), pads=[1] * 4, group=16))]
    else:
        y = b.conv(
            x, 16, 16, (3, 3) if kind == "winograd" else (1, 1), **({"pads": [1] * 4} if kind == "winograd" else {})
        )
        y = b.op("Add", y, x) if kind == "sum" else y
        bounds = [b.constant(0.0), b.constant(6.0)] if kind == "clipped" else []
        outputs = [b.op("Clip" if bounds else "Relu", y, *bounds)]
    made = compiled(b.model(*outputs))
    if kind != "winograd":  # whose errors are other tests' matter
        made.check(*b.inputs.values())
    for place in ((0, 3, 4, 4), (0, 15, 11, 11), (0, 0, 5, 7)):
        given = next(iter(b.inputs.values())).copy()
        given[place] = np.nan
        expected, got = nan_maps(made, given)
        assert any(part.any() for part in expected)
        for want, have in zip(expected, got, strict=True):
            if kind == "winograd":  # a tile's outputs all come of all of its inputs
                assert not (want & ~have).any()
            else:
                np.testing.assert_array_equal(have, want)
