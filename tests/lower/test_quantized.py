"""A quantized network (QDQ) gives what onnxruntime gives, to one step of the last scale."""

from __future__ import annotations

import numpy as np
import pytest

from inception_deploy.errors import DeployError
from inception_deploy.verify import bound


def qdq(b, x, scale, zero, dtype):
    """QuantizeLinear, DequantizeLinear."""
    numbers = b.constant(scale), b.constant(zero, dtype)
    return b.op("DequantizeLinear", b.op("QuantizeLinear", x, *numbers), *numbers)


@pytest.mark.parametrize(("dtype", "zero"), [("uint8", 0), ("uint8", 117), ("int8", 0), ("int8", -5)])
def test_rounding_is_exact(compiled, builder, dtype, zero):
    """Ties go to even, the ends saturate."""
    b = builder()
    x = b.input(1, 16, 40, 1)
    b.inputs[x][:] = np.linspace(-80, 80, 640, dtype=np.float32).reshape(1, 16, 40, 1) / 4
    made = compiled(b.model(qdq(b, x, 0.125, zero, dtype)))
    made.check(*b.inputs.values(), tolerance=0)
    assert not made.plan.refusals


def test_branches_with_one_scale(compiled, builder):
    """Weights in int8 for each output channel, biases in int32, a concat of two branches."""
    b = builder()
    x = qdq(b, b.input(1, 16, 9, 9), 0.03, 128, "uint8")

    def conv(x, channels, out, kernel):
        weight = b.constant(b.random.integers(-127, 128, (out, channels, *kernel)), "int8")
        scale = b.random.uniform(0.5, 2, out) / 127 / np.sqrt(channels)
        real = b.op("DequantizeLinear", weight, b.constant(scale), b.constant(np.zeros(out), "int8"), axis=0)
        bias = b.op(
            "DequantizeLinear", b.constant(b.random.integers(-300, 300, out), "int32"), b.constant(scale * 0.03), axis=0
        )
        return b.op("Relu", b.op("Conv", x, real, bias, pads=[k // 2 for k in kernel] * 2))

    left, right = conv(x, 16, 24, (1, 1)), conv(x, 16, 20, (3, 3))
    joined = qdq(
        b, b.op("Concat", qdq(b, left, 0.02, 0, "uint8"), qdq(b, right, 0.02, 0, "uint8"), axis=1), 0.02, 0, "uint8"
    )
    made = compiled(b.model(conv(joined, 44, 16, (1, 1))))
    made.check(*b.inputs.values(), tolerance=bound("step"))
    assert not made.plan.refusals


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_other_numbers_on_the_way_back(compiled, builder, dtype):
    b = builder()
    stored = b.op("QuantizeLinear", b.input(1, 16, 4, 4), b.constant(0.03), b.constant(7, dtype))
    made = compiled(b.model(b.op("DequantizeLinear", stored, b.constant(0.25), b.constant(4, dtype))))
    made.check(*b.inputs.values())
    assert not made.plan.refusals


def test_integers_do_not_leave_their_pair(compiled, builder):
    b = builder()
    stored = b.op("QuantizeLinear", b.input(1, 16, 4, 4), b.constant(0.125), b.constant(0, "int8"))
    with pytest.raises(DeployError, match="an 8-bit integer, without DequantizeLinear"):
        compiled(b.model(b.op("Cast", stored, to=1)))
