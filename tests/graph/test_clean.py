"""Passes that remove what computes nothing."""

from __future__ import annotations

import numpy as np
import pytest

from inception_deploy.graph.clean import fold_constants, lift_constants, remove_dead, remove_noops

X = "(float[2,8,6,6] x, float[1] s, int64[4] same) => (float[n,c,h,w] y) "
NUMBERS = {"same": np.array([2, 8, 6, 6], np.int64)}


@pytest.mark.parametrize(
    "body",
    [
        "t = Identity(r)",
        "t = Dropout(r)",
        "t = Cast<to=1>(r)",
        "t = CastLike(r, s)",
        "t = Reshape(r, same)",
        "t = Expand(r, same)",
        "t = Transpose<perm=[0,1,2,3]>(r)",
        "t = Concat<axis=1>(r)",
        "t = Sum(r)",
        "t = Max(r)",
        "t = Min(r)",
        "t = AveragePool<kernel_shape=[1,1]>(r)",
        "t = MaxPool<kernel_shape=[1,1]>(r)",
        "t = Relu(r)",
    ],
)
def test_what_does_nothing_goes(check_pass, build, operators, body) -> None:
    model = build(f"{X} {{ r = Relu(x)  {body}  y = Neg(t) }}", **NUMBERS)
    assert operators(check_pass.fires(remove_noops, model)) == ["Relu", "Neg"]


@pytest.mark.parametrize(("body", "number"), [("Add(r, s)", 0), ("Sub(r, s)", 0), ("Mul(r, s)", 1), ("Div(r, s)", 1)])
def test_neutral_numbers_go(check_pass, build, operators, body, number) -> None:
    model = build(f"{X} {{ r = Relu(x)  t = {body}  y = Neg(t) }}", s=np.full(1, number, np.float32), **NUMBERS)
    assert operators(check_pass.fires(remove_noops, model)) == ["Relu", "Neg"]
    check_pass.silent(remove_noops, build(f"{X} {{ r = Relu(x)  t = {body}  y = Neg(t) }}", **NUMBERS))


def test_padding_with_nothing_goes(check_pass, build, operators) -> None:
    text = "(float[2,8,6,6] x, int64[8] p) => (float[n,c,h,w] y) { r = Relu(x)  t = Pad(r, p)  y = Neg(t) }"
    assert operators(check_pass.fires(remove_noops, build(text, p=np.zeros(8, np.int64)))) == ["Relu", "Neg"]
    check_pass.silent(remove_noops, build(text, p=np.ones(8, np.int64)))


def test_a_graph_output_keeps_its_name(check_pass, build) -> None:
    result = check_pass.fires(remove_noops, build(f"{X} {{ r = Relu(x)  y = Identity(r) }}", **NUMBERS))
    assert [(node.op_type, list(node.output)) for node in result.graph.node] == [("Relu", ["y"])]


def test_a_value_read_twice_keeps_both_readers(check_pass, build, operators) -> None:
    model = build(f"{X} {{ r = Relu(x)  t = Identity(r)  a = Neg(t)  y = Add(t, a) }}", **NUMBERS)
    result = check_pass.fires(remove_noops, model)
    assert operators(result) == ["Relu", "Neg", "Add"]


@pytest.mark.parametrize(
    "body",
    [
        "y = Identity(x)",  # nothing else could be called y
        "t = Neg(x)  r = Relu(t)  y = Neg(r)",
        "t = Concat<axis=1>(x, x)  y = Neg(t)",
        "t = Transpose<perm=[0,1,3,2]>(x)  y = Neg(t)",
        "t = Cast<to=11>(x)  u = Neg(t)  y = Cast<to=1>(u)",
        "t = AveragePool<kernel_shape=[1,1], strides=[2,2]>(x)  y = Neg(t)",
        "t = MaxPool<kernel_shape=[2,2]>(x)  y = Neg(t)",
    ],
)
def test_what_does_something_stays(check_pass, build, body) -> None:
    check_pass.silent(remove_noops, build(f"{X} {{ {body} }}", **NUMBERS))


def test_a_dropout_whose_mask_is_read_stays(check_pass, build) -> None:
    text = "(float[2,8,6,6] x) => (float[n,c,h,w] y, bool[n,c,h,w] m) { t, m = Dropout(x)  y = Neg(t) }"
    check_pass.silent(remove_noops, build(text))


def test_a_training_dropout_stays(check_pass, build) -> None:
    text = "(float[2,8,6,6] x, float r, bool t) => (float[n,c,h,w] y) { d = Dropout(x, r, t)  y = Neg(d) }"
    check_pass.silent(remove_noops, build(text, r=np.float32(0.5), t=np.array(True)))


def test_a_named_symbolic_shape_counts_as_equal_and_an_unknown_one_does_not(check_pass, build, operators) -> None:
    text = "(float[{n},8] x, float[1,8] z) => (float[m,c] y) {{ t = Add(x, z)  y = Neg(t) }}"
    zeros = np.zeros((1, 8), np.float32)
    assert operators(check_pass.fires(remove_noops, build(text.format(n="batch"), z=zeros))) == ["Neg"]


def test_constant_nodes_become_initialisers(check_pass, build, operators) -> None:
    text = "(float[2,8,6,6] x) => (float[n,c,h,w] y) { k = Constant<value=float {2.0}>()  y = Mul(x, k) }"
    result = check_pass.fires(lift_constants, build(text))
    assert operators(result) == ["Mul"]
    assert [tensor.name for tensor in result.graph.initializer] == ["k"]


def test_what_depends_on_constants_only_is_computed(check_pass, build, operators) -> None:
    text = "(float[2,8,6,6] x, float[4,8,1,1] w) => (float[n,c,h,w] y) { a = Neg(w)  b = Exp(a)  y = Conv(x, b) }"
    assert operators(check_pass.fires(fold_constants, build(text), count=2)) == ["Conv"]


def test_a_quantized_weight_keeps_its_dequantization(check_pass, build) -> None:
    text = """(float[2,8,6,6] x, int8[4,8,1,1] w, float s, int8 z) => (float[n,c,h,w] y)
              { d = DequantizeLinear(w, s, z)  y = Conv(x, d) }"""
    weight = np.arange(32, dtype=np.int8).reshape(4, 8, 1, 1)
    check_pass.silent(fold_constants, build(text, w=weight, s=np.float32(0.1), z=np.int8(0)))


def test_dead_nodes_go_with_their_weights(check_pass, build, operators) -> None:
    text = "(float[2,8,6,6] x, float[4,8,1,1] w) => (float[n,c,h,w] y) { d = Conv(x, w)  e = Neg(d)  y = Relu(x) }"
    result = check_pass.fires(remove_dead, build(text), count=3)
    assert operators(result) == ["Relu"]
    assert not result.graph.initializer


def test_a_live_graph_is_left_alone(check_pass, build) -> None:
    text = "(float[2,8,6,6] x, float[4,8,1,1] w) => (float[n,c,h,w] y) { d = Conv(x, w)  y = Relu(d) }"
    for run in (lift_constants, fold_constants, remove_noops, remove_dead):
        check_pass.silent(run, build(text))
