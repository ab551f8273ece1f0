"""Forks and joins."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inception_deploy.graph.branch import commute_pool, flatten_concats, merge_siblings
from inception_deploy.graph.cost import cost

QUICK = settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
Y = " => (float[n,c,h,w] y) "

# -- flatten_concats ------------------------------------------------------------------------------------------------


def test_a_concat_in_a_concat_is_spliced_in_its_place(check_pass, build) -> None:
    text = (
        "(float[2,8,3,3] x)"
        + Y
        + """
        { a = Neg(x)  b = Relu(x)  c = Exp(x)  i = Concat<axis=1>(b, c)  y = Concat<axis=-3>(a, i, x) }"""
    )
    result = check_pass.fires(flatten_concats, build(text))
    assert list(result.graph.node[-1].input) == ["a", "b", "c", "x"]


def test_concats_nest_to_any_depth(check_pass, build, operators) -> None:
    text = (
        "(float[2,8,3,3] x)"
        + Y
        + """
        { i = Concat<axis=1>(x, x)  j = Concat<axis=1>(i, x)  k = Concat<axis=1>(x, j)  y = Concat<axis=1>(k, x) }"""
    )
    result = check_pass.fires(flatten_concats, build(text), count=3)
    assert operators(result) == ["Concat"]
    assert len(result.graph.node[0].input) == 5


@pytest.mark.parametrize(
    "body",
    [
        "i = Concat<axis=2>(x, x)  j = Concat<axis=1>(i, i)  y = Neg(j)",  # two readers of one node
        "i = Concat<axis=2>(x, x)  y = Concat<axis=1>(i)",  # another axis
        "i = Concat<axis=1>(x, x)  j = Neg(i)  y = Concat<axis=1>(i, j)",  # another reader
        "i = Concat<axis=1>(x, x)  j = Relu(i)  y = Concat<axis=1>(j, x)",
    ],
)
def test_concats_that_stay(check_pass, build, body) -> None:
    check_pass.silent(flatten_concats, build(f"(float[2,8,3,3] x){Y}{{ {body} }}"))


def test_a_concat_that_is_an_output_stays(check_pass, build) -> None:
    text = "(float[2,8,3,3] x) => (float[n,c,h,w] y, float[n,d,h,w] i)"
    check_pass.silent(flatten_concats, build(text + " { i = Concat<axis=1>(x, x)  y = Concat<axis=1>(i, x) }"))


# -- commute_pool ---------------------------------------------------------------------------------------------------

POOL = "AveragePool<kernel_shape=[3,3], strides=[{s},{s}], pads=[{p},{p},{p},{p}], count_include_pad={c}>"


def pool_then_conv(build, outs, *, bias=True, s=1, p=1, c=0, batch="2", numbers=None):
    text = f"(float[{batch},8,9,9] x, float[{outs},8,1,1] w, float[{outs}] b){Y}"
    body = f"a = {POOL.format(s=s, p=p, c=c)}(x)  y = Conv(a, w{', b' if bias else ''})"
    return build(f"{text} {{ {body} }}", **(numbers or {}))


def conv_then_pool(build, outs, *, bias=True, s=2, p=1, c=0):
    text = f"(float[2,8,9,9] x, float[{outs},8,1,1] w, float[{outs}] b){Y}"
    return build(f"{text} {{ a = Conv(x, w{', b' if bias else ''})  y = {POOL.format(s=s, p=p, c=c)}(a) }}")


def test_the_convolution_goes_first_where_it_shrinks_the_channels(check_pass, build, operators) -> None:
    model = pool_then_conv(build, 4)
    result = check_pass.fires(commute_pool, model)
    assert operators(result) == ["Conv", "AveragePool"]
    assert cost(result).other_ops < cost(model).other_ops
    assert cost(result).macs == cost(model).macs


def test_a_symbolic_batch_is_no_obstacle(check_pass, build, operators) -> None:
    assert operators(check_pass.fires(commute_pool, pool_then_conv(build, 4, batch="batch"))) == ["Conv", "AveragePool"]


def test_the_pooling_goes_first_where_it_shrinks_the_map(check_pass, build, operators) -> None:
    model = conv_then_pool(build, 8)
    result = check_pass.fires(commute_pool, model)
    assert operators(result) == ["AveragePool", "Conv"]
    assert cost(result).macs * 3 < cost(model).macs


def test_a_counted_padding_sends_the_bias_behind_the_pooling(check_pass, build, operators) -> None:
    result = check_pass.fires(commute_pool, pool_then_conv(build, 4, c=1))
    assert operators(result) == ["Conv", "AveragePool", "Add"]
    result = check_pass.fires(commute_pool, pool_then_conv(build, 4, c=1, bias=False))
    assert operators(result) == ["Conv", "AveragePool"]
    result = check_pass.fires(commute_pool, pool_then_conv(build, 4, c=1, numbers={"b": np.zeros(4, np.float32)}))
    assert operators(result) == ["Conv", "AveragePool"]


@QUICK
@given(
    outs=st.sampled_from([1, 4, 8, 12]),
    s=st.integers(1, 2),
    p=st.integers(0, 1),
    c=st.integers(0, 1),
    bias=st.booleans(),
    conv_first=st.booleans(),
)
def test_no_configuration_changes_a_number_or_adds_work(check_pass, build, outs, s, p, c, bias, conv_first) -> None:
    make = conv_then_pool if conv_first else pool_then_conv
    model = make(build, outs, bias=bias, s=s, p=p, c=c)
    if commute_pool(ir.from_proto(model)):
        result = check_pass.fires(commute_pool, model)
        work = [cost(m).macs + cost(m).other_ops for m in (model, result)]
        assert work[1] < work[0]
    else:
        check_pass.silent(commute_pool, model)


@pytest.mark.parametrize(
    "body",
    [
        "a = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)  r = Relu(a)  y = Conv(r, w)",  # not linear between them
        "a = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], ceil_mode=1>(x)  y = Conv(a, w)",
        'a = AveragePool<kernel_shape=[3,3], auto_pad="SAME_UPPER">(x)  y = Conv(a, w)',
        "a = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)  y = Conv(a, w)",
        "a = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)  y = Conv<pads=[1,1,1,1]>(a, w)",
        "a = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)  y = Conv<strides=[2,2]>(a, w)",
        "a = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)  y = Conv(a, w3)",  # not 1x1
        "a = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)  y = Conv<group=2>(a, wg)",
        "a = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)  c = Conv(a, w)  d = Neg(a)  y = Concat<axis=1>(c, d)",
        "v = Sigmoid(w)  a = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)  y = Conv(a, v)",
        "a = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)  y = Conv(a, wide)",  # it widens: pooling first is cheaper
    ],
)
def test_pairs_that_stay(check_pass, build, body) -> None:
    text = "(float[2,8,9,9] x, float[4,8,1,1] w, float[4,8,3,3] w3, float[4,4,1,1] wg, float[16,8,1,1] wide)"
    check_pass.silent(commute_pool, build(f"{text}{Y}{{ {body} }}"))


def test_a_middle_value_that_is_an_output_stays(check_pass, build) -> None:
    text = "(float[2,8,9,9] x, float[4,8,1,1] w) => (float[n,c,h,w] y, float[n,d,h,w] a)"
    body = "{ a = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(x)  y = Conv(a, w) }"
    check_pass.silent(commute_pool, build(text + body))


# -- merge_siblings -------------------------------------------------------------------------------------------------

W = "float[4,8,1,1] w1, float[6,8,1,1] w2, float[3,8,3,3] w3, float[4] b1, float[6] b2"


def test_siblings_become_one_convolution(check_pass, build, operators) -> None:
    text = f"(float[2,8,9,9] x, {W}){Y}"
    body = "p = Conv(x, w1, b1)  q = Conv(x, w2, b2)  t = Neg(q)  y = Concat<axis=1>(p, t)"
    model = build(f"{text}{{ {body} }}")
    result = check_pass.fires(merge_siblings, model)
    assert operators(result) == ["Conv", "Split", "Neg", "Concat"]
    assert cost(result).macs == cost(model).macs


def test_a_relu_that_all_have_moves_before_the_split(check_pass, build, operators) -> None:
    body = "p = Conv(x, w1)  q = Conv(x, w2, b2)  r = Relu(p)  s = Relu(q)  y = Concat<axis=1>(r, s)"
    result = check_pass.fires(merge_siblings, build(f"(float[2,8,9,9] x, {W}){Y}{{ {body} }}"))
    assert operators(result) == ["Conv", "Relu", "Split", "Concat"]


def test_siblings_that_are_outputs_keep_their_names(check_pass, build) -> None:
    text = f"(float[2,8,9,9] x, {W}) => (float[n,c,h,w] p, float[n,d,h,w] q)"
    result = check_pass.fires(merge_siblings, build(text + "{ p = Conv(x, w1)  q = Conv(x, w2) }"))
    assert list(result.graph.node[-1].output) == ["p", "q"]


def test_siblings_may_share_a_weight(check_pass, build, operators) -> None:
    body = "p = Conv(x, w1)  q = Conv(x, w1, b1)  y = Concat<axis=1>(p, q)"
    result = check_pass.fires(merge_siblings, build(f"(float[2,8,9,9] x, {W}){Y}{{ {body} }}"))
    assert operators(result) == ["Conv", "Split", "Concat"]


@pytest.mark.parametrize(
    "body",
    [
        "p = Conv(x, w1)  q = Conv<pads=[1,1,1,1]>(x, w3)  y = Concat<axis=1>(p, q)",  # another kernel
        "p = Conv<strides=[2,2]>(x, w1)  q = Conv(x, w2)  r = Neg(q)  y = Neg(p)",  # another stride
        "a = Neg(x)  p = Conv(x, w1)  q = Conv(a, w2)  y = Concat<axis=1>(p, q)",  # another input
        "v = Neg(w1)  p = Conv(x, v)  q = Conv(x, w2)  y = Concat<axis=1>(p, q)",  # a weight that is not constant
        "p = Conv<group=2>(x, g1)  q = Conv<group=2>(x, g2)  y = Concat<axis=1>(p, q)",
    ],
)
def test_convolutions_that_are_no_siblings(check_pass, build, body) -> None:
    text = f"(float[2,8,9,9] x, {W}, float[4,4,1,1] g1, float[4,4,1,1] g2){Y}"
    check_pass.silent(merge_siblings, build(f"{text}{{ {body} }}"))
