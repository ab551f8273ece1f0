"""Elementwise operators, on blocked maps, on plain memory of whole blocks, and on plain memory that is not."""

from __future__ import annotations

import numpy as np
import pytest

UNARY = {
    "Abs": {}, "Clip": {}, "Elu": {"alpha": 0.7}, "Erf": {}, "Exp": {}, "Gelu": {}, "HardSigmoid": {"alpha": 0.3}, "HardSwish": {}, "LeakyRelu": {},
    "Mish": {}, "Neg": {}, "Relu": {}, "Selu": {}, "Sigmoid": {}, "Softplus": {}, "Softsign": {}, "Tanh": {},
}  # fmt: skip


def test_unary(compiled, builder):
    b = builder()
    x = b.conv(b.input(2, 3, 5, 3), 3, 20, (1, 1))
    wide = b.op("Mul", x, b.constant(6.0))
    outputs = [b.op(kind, wide, **attributes) for kind, attributes in UNARY.items()]
    outputs += [
        b.op("Gelu", wide, approximate="tanh"),
        b.op("Pow", wide, b.constant(2.0)),
        b.op("Pow", wide, b.constant(1, "int64")),
    ]
    made = compiled(b.model(*outputs))
    made.check(*b.inputs.values())
    assert not made.plan.refusals


@pytest.mark.parametrize("shape", [(4, 3, 8), (2, 3, 4, 4), (5, 32)])
def test_on_plain_memory(compiled, builder, shape):
    """What no convolution has touched is not packed for an elementwise operator, if it is whole vectors."""
    b = builder()
    x, y = b.input(*shape), b.input(*shape)
    z = b.op("Add", b.op("Tanh", x), b.op("Mul", y, x))
    made = compiled(b.model(b.op("Sub", b.constant(2.0), z), b.op("Relu", b.op("Div", z, b.constant(-0.5)))))
    made.check(*b.inputs.values())
    assert not made.plan.refusals
    assert "pack" not in [s.op for s in made.plan.steps]


def test_operators_that_zero_does_not_survive(compiled, builder):
    """1 / x and its like have kernels where no padding is, and take the default where there is."""
    for channels, refused in ((32, set()), (12, {"Div", "Log", "Reciprocal", "Sqrt"})):
        b = builder()
        x = b.op("Add", b.op("Sigmoid", b.conv(b.input(1, 3, 3, 3), 3, channels, (1, 1))), b.constant(0.5))
        outputs = [b.op(kind, x) for kind in ("Log", "Reciprocal", "Sqrt")]
        outputs += [
            b.op("Div", outputs[0], x),
            b.op("Div", x, b.constant(3.0)),
            b.op("Div", x, b.constant(np.full((channels, 1, 1), 2))),
        ]
        made = compiled(b.model(*outputs))
        made.check(*b.inputs.values())
        assert {r.op for r in made.plan.refusals} == refused
        assert all("12 channels is not finite" in r.reason for r in made.plan.refusals if r.op != "Div")


def test_a_value_a_channel(compiled, builder):
    b = builder()
    x = b.conv(b.input(2, 3, 5, 3), 3, 20, (1, 1))
    gate = b.op("Sigmoid", b.conv(b.op("GlobalAveragePool", x), 20, 20, (1, 1)))
    slope, shift = b.weight(20, 1, 1), b.weight(1, 20, 1, 1)
    outputs = [
        b.op("Mul", x, gate),
        b.op("Add", gate, x),
        b.op("Sub", x, gate),
        b.op("PRelu", x, slope),
        b.op("Sub", x, shift),
        b.op("Max", shift, x),
    ]
    made = compiled(b.model(*outputs))
    made.check(*b.inputs.values())
    assert not made.plan.refusals


def test_gates_become_one_layer(compiled, builder):
    b = builder()
    x = b.conv(b.input(2, 3, 4, 4), 3, 16, (1, 1))
    silu = b.op("Mul", x, b.op("Sigmoid", x))
    hard = b.op("Mul", b.op("HardSigmoid", silu, alpha=1 / 6, beta=0.5), silu)
    kept = b.op("Sigmoid", hard)
    made = compiled(b.model(b.op("Mul", hard, kept), kept))
    made.check(*b.inputs.values())
    assert made.ops == ["conv", "silu", "hard_swish", "sigmoid", "mul"]


def test_several_operands(compiled, builder):
    b = builder()
    x, y = b.input(1, 5, 3, 3), b.input(1, 5, 3, 3)
    outputs = [
        b.op("Sum", x, y, x, b.constant(np.ones((5, 1, 1)))),
        b.op("Max", x),
        b.op("Min", b.constant(0.2), y, b.constant(0.1), x),
    ]
    made = compiled(b.model(*outputs))
    made.check(*b.inputs.values())
    assert not made.plan.refusals


@pytest.mark.parametrize("shape", [(1, 1000), (3, 7), (2, 3, 33), (2, 4, 1, 1)])
def test_softmax(compiled, builder, shape):
    b = builder()
    x = b.op("Mul", b.input(*shape), b.constant(30.0))
    made = compiled(b.model(b.op("Softmax", x, axis=1 if len(shape) != 3 else -1)))
    made.check(*b.inputs.values())
    assert not [r for r in made.plan.refusals if r.op == "Softmax"]


def test_shapes_that_broadcast_otherwise_take_the_default(compiled, builder):
    b = builder()
    x = b.conv(b.input(2, 3, 5, 4), 3, 6, (1, 1))
    spatial = b.op("Sigmoid", b.conv(x, 6, 1, (1, 1)))
    outputs = [
        b.op("Mul", x, spatial),
        b.op("Add", x, b.weight(5, 4)),
        b.op("Add", b.weight(1, 4), b.op("GlobalMaxPool", x)),
    ]
    made = compiled(b.model(*outputs))
    made.check(*b.inputs.values())
    assert [r.op for r in made.plan.refusals] == ["Mul", "Add", "Add"]
    assert (
        made.plan.refusals[0].reason
        == "shapes (2, 6, 5, 4) and (2, 1, 5, 4) are neither equal nor a map and one value a channel"
    )
