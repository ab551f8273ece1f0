"""Sums over a stack of maps: the pass fires, must not fire, and the numbers stay."""

from __future__ import annotations

import numpy as np
import pytest

from inception_deploy.graph.stack import unstack_sums

X = "(float[2,8,5,4] x, int64[1] one) => (float[n,c,h,w] y) "
STACK = "a = Neg(x)  b = Relu(x)  a1 = Unsqueeze(a, one)  b1 = Unsqueeze(b, one)  s = Concat<axis=1>(a1, b1)  "
ATTENTION = (
    "t = ReduceSum<keepdims=0>(s, one)  g = GlobalAveragePool(t)  v = Concat<axis=1>(g, g)  u = Reshape(v, five)  "
    "w = Softmax<axis=1>(u)  m = Mul(s, w)  y = ReduceSum<keepdims=0>(m, one)"
)
ONE = np.array([1], np.int64)
FIVE = np.array([2, 2, 8, 1, 1], np.int64)


def model(build, body):
    text = X.replace("one)", "one, int64[5] five)") if "five" in body else X
    return build(f"{text}{{ {STACK}{body} }}", one=ONE, **({"five": FIVE} if "five" in body else {}))


def test_attention_between_branches_needs_no_stack(check_pass, build, operators) -> None:
    made = operators(check_pass.fires(unstack_sums, model(build, ATTENTION)))
    assert not {"Unsqueeze", "ReduceSum"} & set(made)
    assert (made.count("Add"), made.count("Mul")) == (2, 2)


def test_a_sum_alone_and_weights_on_the_left(check_pass, build, operators) -> None:
    made = operators(check_pass.fires(unstack_sums, model(build, "y = ReduceSum<keepdims=0>(s, one)")))
    assert made == ["Neg", "Relu", "Add"]
    check_pass.fires(unstack_sums, model(build, ATTENTION.replace("Mul(s, w)", "Mul(w, s)")))


@pytest.mark.parametrize(
    "body",
    [
        "t = ReduceSum<keepdims=1>(s, one)  y = Squeeze(t, one)",  # the axis stays
        "t = ReduceSum<keepdims=0>(s, one)  m = ReduceMax<keepdims=0>(s, one)  y = Add(t, m)",  # somebody reads the stack
        "m = Mul(s, s)  y = ReduceSum<keepdims=0>(m, one)",  # no weights of channels
        "m = Exp(s)  y = ReduceSum<keepdims=0>(m, one)",
    ],
)
def test_stacks_that_stay(check_pass, build, body) -> None:
    check_pass.silent(unstack_sums, model(build, body))


def test_a_concat_of_what_has_the_axis_stays(check_pass, build) -> None:
    text = "(float[2,3,8,5,4] x, int64[1] one) => (float[n,c,h,w] y) { s = Concat<axis=1>(x, x)  y = ReduceSum<keepdims=0>(s, one) }"
    check_pass.silent(unstack_sums, build(text, one=ONE))
