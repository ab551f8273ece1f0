"""Affine maps into linear operators, and padding into what it pads for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inception_deploy.graph.fold import fold_affine, fold_batchnorm, fold_pads
from inception_deploy.verify import bound

QUICK = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
BN = "float[{c}] gamma, float[{c}] beta, float[{c}] mean, float[{c}] var"
X = "(float[2,8,7,6] x, "
Y = ") => (float[n,c,h,w] y) "


# -- fold_batchnorm: it fires ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("bias", ["", ", b"])
def test_a_batchnorm_after_a_convolution(check_pass, build, operators, bias) -> None:
    text = f"float[4,8,3,3] w, float[4] b, {BN.format(c=4)}"
    model = build(
        f"{X}{text}{Y} {{ c = Conv(x, w{bias})  y = BatchNormalization<epsilon=0.001>(c, gamma, beta, mean, var) }}"
    )
    result = check_pass.fires(fold_batchnorm, model)
    assert operators(result) == ["Conv"]


@QUICK
@given(
    group=st.sampled_from([1, 2, 4, 8]),
    kernel=st.integers(1, 3),
    stride=st.integers(1, 2),
    pad=st.integers(0, 1),
    transposed=st.booleans(),
    seed=st.integers(0, 9),
)
def test_any_convolution_geometry(check_pass, build, operators, group, kernel, stride, pad, transposed, seed) -> None:
    outs = 8
    weight = f"{8}, {outs // group}" if transposed else f"{outs}, {8 // group}"
    attributes = (
        f"kernel_shape=[{kernel},{kernel}], strides=[{stride},{stride}], pads=[{pad},{pad},{pad},{pad}], group={group}"
    )
    op = "ConvTranspose" if transposed else "Conv"
    if pad >= kernel:
        return
    text = f"float[{weight},{kernel},{kernel}] w, {BN.format(c=outs)}"
    body = f"c = {op}<{attributes}>(x, w)  y = BatchNormalization(c, gamma, beta, mean, var)"
    result = check_pass.fires(fold_batchnorm, build(f"{X}{text}{Y}{{ {body} }}", seed=seed))
    assert operators(result) == [op]


@pytest.mark.parametrize("trans", [0, 1])
@pytest.mark.parametrize("bias", [None, (5,), (1, 5), (1,), ()])
def test_a_batchnorm_after_a_linear_layer(check_pass, build, operators, trans, bias) -> None:
    size = "5,8" if trans else "8,5"
    given = "" if bias is None else ", b"
    array = np.random.default_rng(1).standard_normal(bias or ()).astype(np.float32)
    text = f"(float[3,8] x, float[{size}] w, float[5] b, {BN.format(c=5)}) => (float[n,c] y)"
    body = (
        f"g = Gemm<alpha=0.5, beta=3.0, transB={trans}>(x, w{given})  y = BatchNormalization(g, gamma, beta, mean, var)"
    )
    result = check_pass.fires(fold_batchnorm, build(f"{text} {{ {body} }}", b=array))
    assert operators(result) == ["Gemm"]


@pytest.mark.parametrize("group", [1, 2])
def test_a_batchnorm_before_convolutions_that_do_not_pad(check_pass, build, operators, group) -> None:
    text = f"float[4,{8 // group},3,3] w, float[4,{8 // group},1,1] w2, float[4] b, {BN.format(c=8)}"
    body = f"""n = BatchNormalization(x, gamma, beta, mean, var)
               y = Conv<group={group}>(n, w, b)  z = Conv<group={group}>(n, w2)"""
    model = build(f"{X}{text}) => (float[n,c,h,w] y, float[n,c,i,j] z) {{ {body} }}")
    assert operators(check_pass.fires(fold_batchnorm, model)) == ["Conv", "Conv"]


def test_a_batchnorm_before_a_linear_layer(check_pass, build, operators) -> None:
    text = f"(float[3,8] x, float[8,5] w, float[5] b, {BN.format(c=8)}) => (float[n,c] y)"
    model = build(f"{text} {{ n = BatchNormalization(x, gamma, beta, mean, var)  y = Gemm<alpha=2.0>(n, w, b) }}")
    assert operators(check_pass.fires(fold_batchnorm, model)) == ["Gemm"]


def test_before_a_convolution_that_pads_only_a_pure_scale_is_exact(check_pass, build, operators) -> None:
    text = f"{X}float[4,8,3,3] w, {BN.format(c=8)}{Y}"
    body = "{ n = BatchNormalization(x, gamma, beta, mean, var)  y = Conv<pads=[1,1,1,1]>(n, w) }"
    zero = np.zeros(8, np.float32)
    assert operators(check_pass.fires(fold_batchnorm, build(text + body, beta=zero, mean=zero))) == ["Conv"]
    assert operators(check_pass.fires(fold_batchnorm, build(text + body))) == ["Mul", "Add", "Conv"]


# -- fold_batchnorm: what it must leave to itself ---------------------------------------------------------------------


def test_a_convolution_with_a_second_reader_is_left_alone(check_pass, build, operators) -> None:
    text = f"{X}float[4,8,1,1] w, {BN.format(c=4)}) => (float[n,c,h,w] y, float[n,c,h,w] z)"
    model = build(f"{text} {{ c = Conv(x, w)  y = BatchNormalization(c, gamma, beta, mean, var)  z = Relu(c) }}")
    result = check_pass.fires(fold_batchnorm, model)
    assert sorted(operators(result)) == ["Add", "Conv", "Mul", "Relu"]
    assert result.graph.initializer[0].raw_data == model.graph.initializer[0].raw_data


def test_a_convolution_that_is_an_output_is_left_alone(check_pass, build, operators) -> None:
    text = f"{X}float[4,8,1,1] w, {BN.format(c=4)}) => (float[n,c,h,w] y, float[n,c,h,w] c)"
    model = build(f"{text} {{ c = Conv(x, w)  y = BatchNormalization(c, gamma, beta, mean, var) }}")
    assert sorted(operators(check_pass.fires(fold_batchnorm, model))) == ["Add", "Conv", "Mul"]


def test_a_shared_weight_is_copied_not_changed(check_pass, build, operators) -> None:
    text = f"{X}float[8,8,1,1] w, {BN.format(c=8)}{Y}"
    model = build(f"{text} {{ c = Conv(x, w)  n = BatchNormalization(c, gamma, beta, mean, var)  y = Conv(n, w) }}")
    result = check_pass.fires(fold_batchnorm, model)
    assert operators(result) == ["Conv", "Conv"]
    assert result.graph.node[1].input[1] == "w"
    assert result.graph.node[0].input[1] != "w"


def test_a_weight_that_is_not_constant_is_left_alone(check_pass, build, operators) -> None:
    text = f"{X}float[4,8,1,1] v, {BN.format(c=4)}{Y}"
    model = build(f"{text} {{ w = Sigmoid(v)  c = Conv(x, w)  y = BatchNormalization(c, gamma, beta, mean, var) }}")
    assert operators(check_pass.fires(fold_batchnorm, model)) == ["Sigmoid", "Conv", "Mul", "Add"]


def test_a_batchnorm_alone_becomes_mul_and_add(check_pass, build, operators) -> None:
    model = build(f"{X}{BN.format(c=8)}{Y} {{ r = Relu(x)  y = BatchNormalization(r, gamma, beta, mean, var) }}")
    assert operators(check_pass.fires(fold_batchnorm, model)) == ["Relu", "Mul", "Add"]


@pytest.mark.parametrize(
    "body",
    [
        "s = Sigmoid(mean)  y = BatchNormalization(x, gamma, beta, s, var)",
        "y, m, v = BatchNormalization<training_mode=1>(x, gamma, beta, mean, var)",
    ],
)
def test_statistics_that_are_not_constant_are_left_for_the_driver_to_refuse(check_pass, build, body) -> None:
    check_pass.silent(fold_batchnorm, build(f"{X}{BN.format(c=8)}{Y} {{ {body} }}"))


# -- fold_affine ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", [(), (1,), (4, 1, 1), (1, 4, 1, 1)])
@pytest.mark.parametrize(
    "body", ["Mul(c, s)", "Mul(s, c)", "Div(c, s)", "Add(c, s)", "Add(s, c)", "Sub(c, s)", "Sub(s, c)"]
)
def test_scales_and_shifts_of_each_shape_and_order(check_pass, build, operators, sizes, body) -> None:
    number = np.asarray(np.random.default_rng(2).uniform(0.5, 2, sizes), np.float32)
    text = f"{X}float[4,8,3,3] w, float[4] b, float[1] s{Y}"
    model = build(f"{text} {{ c = Conv(x, w, b)  y = {body} }}", s=number)
    assert operators(check_pass.fires(fold_affine, model)) == ["Conv"]


def test_the_residual_scale_goes_into_the_linear_convolution(check_pass, build, operators) -> None:
    text = f"{X}float[8,8,1,1] w, float[8] b, float[1] s{Y}"
    model = build(f"{text} {{ c = Conv(x, w, b)  m = Mul(c, s)  a = Add(x, m)  y = Relu(a) }}", s=np.float32(0.17))
    result = check_pass.fires(fold_affine, model)
    assert operators(result) == ["Conv", "Add", "Relu"]
    weight = onnx_array(result, result.graph.node[0].input[1])
    np.testing.assert_allclose(weight, 0.17 * onnx_array(model, "w"), rtol=bound("rounding"))


def test_an_input_normalisation_goes_into_the_first_convolution(check_pass, build, operators) -> None:
    text = f"{X}float[1,8,1,1] mean, float[1,8,1,1] var, float[4,8,3,3] w{Y}"
    model = build(f"{text} {{ d = Sub(x, mean)  n = Div(d, var)  y = Conv(n, w) }}")
    assert operators(check_pass.fires(fold_affine, model, count=2)) == ["Conv"]


@pytest.mark.parametrize(
    "body",
    [
        "c = Conv(x, w)  r = Relu(c)  y = Mul(r, s)",  # not linear before it, nothing after it
        "c = Conv(x, w)  y = Div(s, c)",  # not affine
        "c = Conv(x, w)  t = Mul(c, s)  y = Add(t, c)",  # two readers
        "s2 = Sigmoid(s)  c = Conv(x, w)  y = Mul(c, s2)",  # not constant
        "v = Sigmoid(w)  c = Conv(x, v)  y = Mul(c, s)",  # not a constant weight
        "m = Mul(x, s)  a = Add(m, s)  y = Conv<pads=[1,1,1,1]>(a, w3)",  # a shift before padding; and Mul not before linear
    ],
)
def test_what_fold_affine_leaves_alone(check_pass, build, body) -> None:
    text = f"{X}float[4,8,1,1] w, float[4,8,3,3] w3, float[1] s{Y}"
    check_pass.silent(fold_affine, build(f"{text} {{ {body} }}"))


@pytest.mark.parametrize("sizes", [(6,), (7, 6), (1, 1, 7, 6), (2, 4, 1, 1)])
def test_a_factor_that_is_not_one_number_a_channel_is_left_alone(check_pass, build, sizes) -> None:
    number = np.random.default_rng(2).standard_normal(sizes).astype(np.float32)
    check_pass.silent(
        fold_affine, build(f"{X}float[4,8,1,1] w, float[1] s{Y} {{ c = Conv(x, w)  y = Mul(c, s) }}", s=number)
    )


def test_a_factor_that_widens_the_tensor_is_left_alone(check_pass, build) -> None:
    number = np.ones((4, 1, 1), np.float32)
    text = f"{X}float[1,8,1,1] w, float[1] s{Y}"
    check_pass.silent(fold_affine, build(f"{text} {{ c = Conv(x, w)  y = Mul(c, s) }}", s=number))


def test_division_by_zero_is_left_to_happen(check_pass, build) -> None:
    check_pass.silent(
        fold_affine,
        build(f"{X}float[4,8,1,1] w, float[1] s{Y} {{ c = Conv(x, w)  y = Div(c, s) }}", s=np.zeros(1, np.float32)),
    )


# -- fold_pads ------------------------------------------------------------------------------------------------------

PADS = np.array([0, 0, 1, 2, 0, 0, 0, 1], np.int64)


@pytest.mark.parametrize(
    "pool",
    [
        "y = Conv(p, w)",
        "y = Conv<pads=[1,0,1,0]>(p, w)",
        "y = AveragePool<kernel_shape=[3,3]>(p)",
        "y = AveragePool<kernel_shape=[3,3], pads=[1,0,1,0], count_include_pad=1>(p)",
    ],
)
def test_zero_padding_goes_into_what_follows(check_pass, build, operators, pool) -> None:
    model = build(f"{X}float[4,8,3,3] w, int64[8] p0{Y} {{ p = Pad(x, p0)  {pool} }}", p0=PADS)
    assert operators(check_pass.fires(fold_pads, model)) == [model.graph.node[1].op_type]


def test_padding_a_relu_goes_into_a_maximum_pooling(check_pass, build, operators) -> None:
    body = "r = Relu(x)  p = Pad(r, p0)  y = MaxPool<kernel_shape=[3,3]>(p)"
    assert operators(check_pass.fires(fold_pads, build(f"{X}int64[8] p0{Y} {{ {body} }}", p0=PADS))) == [
        "Relu",
        "MaxPool",
    ]


def test_padding_by_minus_infinity_goes_into_a_maximum_pooling(check_pass, build, operators) -> None:
    body = "p = Pad(x, p0, low)  y = MaxPool<kernel_shape=[3,3], pads=[1,0,0,0]>(p)"
    model = build(f"{X}int64[8] p0, float[1] low{Y} {{ {body} }}", p0=PADS, low=np.float32(-np.inf))
    assert operators(check_pass.fires(fold_pads, model)) == ["MaxPool"]


@pytest.mark.parametrize("body", ["y = Conv(p, w)", "y = AveragePool<kernel_shape=[3,3]>(p)"])
def test_padding_by_minus_infinity_stays(check_pass, build, body) -> None:
    text = f"{X}float[4,8,3,3] w, int64[8] p0, float[1] low{Y}"
    model = build(f"{text} {{ p = Pad(x, p0, low)  {body} }}", p0=PADS, low=np.float32(-np.inf))
    check_pass.silent(fold_pads, model)


@pytest.mark.parametrize(
    "body",
    [
        'p = Pad<mode="reflect">(x, p0)  y = Conv(p, w)',
        "p = Pad(x, p0, one)  y = Conv(p, w)",  # pads with something else
        "p = Pad(x, p0)  y = MaxPool<kernel_shape=[3,3]>(p)",  # zero is not minus infinity
        "p = Pad(x, p0)  y = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(p)",  # its own zeros do not count
        "p = Pad(x, p0)  y = AveragePool<kernel_shape=[2,2]>(p)",  # pads as much as its window
        "p = Pad(x, p0)  c = Conv(p, w)  q = Relu(p)  y = AveragePool<kernel_shape=[3,3]>(q)",  # two readers
        "p = Pad(x, p0)  y = Relu(p)",
    ],
)
def test_padding_that_stays(check_pass, build, body) -> None:
    text = f"{X}float[4,8,3,3] w, int64[8] p0, float[1] one{Y}"
    check_pass.silent(fold_pads, build(f"{text} {{ {body} }}", p0=PADS, one=np.float32(1)))


def test_padding_of_channels_stays(check_pass, build) -> None:
    pads = np.array([0, 1, 0, 0, 0, 1, 0, 0], np.int64)
    check_pass.silent(
        fold_pads, build(f"{X}float[4,10,3,3] w, int64[8] p0{Y} {{ p = Pad(x, p0)  y = Conv(p, w) }}", p0=pads)
    )


def onnx_array(model, name) -> np.ndarray:
    import onnx

    return onnx.numpy_helper.to_array(next(t for t in model.graph.initializer if t.name == name))
