"""Moves of quantized numbers become moves of integers: the pass fires, must not fire, and the numbers stay."""

from __future__ import annotations

import numpy as np
import pytest

from inception_deploy.graph.moved import quantize_moved

X = "(float[2,8,6,6] x, float s, uint8 z, float t, float[4,8,1,1] w) => ({y}) "
IN = "q = QuantizeLinear(x, s, z)  d = DequantizeLinear(q, s, z)  "
NUMBERS = {"s": np.float32(0.05), "z": np.uint8(100), "t": np.float32(0.04)}


def model(build, body, y="float[n,c,h,w] y", **values):
    sizes = "".join(f", int64[{len(array)}] {name}" for name, array in values.items())
    return build(f"{X.format(y=y).replace(') =>', sizes + ') =>')}{{ {body} }}", **NUMBERS, **values)


@pytest.mark.parametrize(
    "body",
    [
        "m = MaxPool<kernel_shape=[2,2]>(d)  y = Conv(m, w)",
        "m = Relu(d)  y = Conv(m, w)",
        "m = Concat<axis=2>(d, d)  y = Conv(m, w)",
        "m = Transpose<perm=[0,1,3,2]>(d)  n0 = Exp(m)  n1 = Neg(m)  n2 = Add(n0, n1)  y = Conv(n2, w)",
    ],
)
def test_what_moves_integers_is_quantized_again(check_pass, build, operators, body) -> None:
    made = operators(check_pass.fires(quantize_moved, model(build, IN + body)))
    assert made[3:5] == ["QuantizeLinear", "DequantizeLinear"]


@pytest.mark.parametrize(
    "move", ["MaxPool<kernel_shape=[2,2]>(c)", "Transpose<perm=[0,1,3,2]>(c)", "Concat<axis=1>(c, c)"]
)
def test_what_is_quantized_behind_a_move_is_quantized_before_it(check_pass, build, operators, move) -> None:
    body = f"{IN}c = Conv(d, w)  m = {move}  p = QuantizeLinear(m, t, z)  y = DequantizeLinear(p, t, z)"
    made = operators(check_pass.fires(quantize_moved, model(build, body)))
    assert made[2:5] == ["Conv", "QuantizeLinear", "DequantizeLinear"]


def test_a_chain_of_moves_and_a_split(check_pass, build) -> None:
    body = "a, b = Split<axis=1>(d, halves)  c = MaxPool<kernel_shape=[2,2]>(a)  e = MaxPool<kernel_shape=[2,2]>(b)  y = Add(c, e)"
    check_pass.fires(quantize_moved, model(build, IN + body, halves=np.array([4, 4])), count=4)
    body = f"{IN}c = Conv(d, w)  m = MaxPool<kernel_shape=[2,2]>(c)  r = Flatten(m)  p = QuantizeLinear(r, t, z)  y = DequantizeLinear(p, t, z)"
    check_pass.fires(quantize_moved, model(build, body, "float[n,k] y"), count=2)


@pytest.mark.parametrize(
    "body",
    [
        "y = MaxPool<kernel_shape=[2,2]>(d)",  # the network's own output
        "e = DequantizeLinear(q, t, z)  m = Concat<axis=1>(d, e)  k = Exp(m)  y = Neg(k)",  # scales of their own
        "m = AveragePool<kernel_shape=[2,2]>(d)  y = Neg(m)",  # gives other numbers
        "m = MaxPool<kernel_shape=[2,2]>(x)  y = Neg(m)",
        "c = Conv(d, w)  r = Relu(c)  p = QuantizeLinear(r, t, z)  y = DequantizeLinear(p, t, z)",  # one step already
        "c = Conv(d, w)  m = MaxPool<kernel_shape=[2,2]>(c)  p = QuantizeLinear(m, t, z)  e = DequantizeLinear(p, t, z)  "
        "k = MaxPool<kernel_shape=[2,2]>(c)  y = Add(k, e)",  # read as float besides
    ],
)
def test_moves_that_stay(check_pass, build, body) -> None:
    check_pass.silent(quantize_moved, model(build, IN + body))
