"""One spelling for one meaning."""

from __future__ import annotations

import numpy as np
import pytest

from inception_deploy.graph.fuse import fuse_flatten, fuse_gemm, fuse_global_pool

MAP = "(float[{n},8,5,6] x, int64[2] axes) => (float[n,c{rest}] y) "


def test_a_matmul_becomes_a_gemm(check_pass, build, operators) -> None:
    text = "(float[3,8] x, float[8,5] w, float[5] b) => (float[n,c] y) "
    assert operators(check_pass.fires(fuse_gemm, build(text + "{ y = MatMul(x, w) }"))) == ["Gemm"]
    for add in ("Add(m, b)", "Add(b, m)"):
        result = check_pass.fires(fuse_gemm, build(text + f"{{ m = MatMul(x, w)  y = {add} }}"))
        assert operators(result) == ["Gemm"]
        assert len(result.graph.node[0].input) == 3


def test_a_bias_that_is_read_twice_or_too_wide_stays_an_add(check_pass, build, operators) -> None:
    text = "(float[3,8] x, float[8,5] w, float[3,5] b) => (float[n,c] y) { m = MatMul(x, w)  y = Add(m, b) }"
    assert operators(check_pass.fires(fuse_gemm, build(text))) == ["Gemm", "Add"]
    text = (
        "(float[3,8] x, float[8,5] w, float[5] b) => (float[n,c] y, float[n,c] m) { m = MatMul(x, w)  y = Add(m, b) }"
    )
    assert operators(check_pass.fires(fuse_gemm, build(text))) == ["Gemm", "Add"]


@pytest.mark.parametrize(
    "text",
    [
        "(float[2,3,8] x, float[8,5] w) => (float[n,c,d] y) { y = MatMul(x, w) }",
        "(float[3,8] x, float[8,5] v) => (float[n,c] y) { w = Neg(v)  y = MatMul(x, w) }",
        "(float[8,3] x, float[5,8] w) => (float[n,c] y) { y = MatMul(w, x) }",
    ],
)
def test_other_products_stay(check_pass, build, text) -> None:
    check_pass.silent(fuse_gemm, build(text))


@pytest.mark.parametrize("batch", ["2", "batch"])
@pytest.mark.parametrize("axes", [[2, 3], [3, 2], [-1, -2]])
def test_a_mean_over_the_map(check_pass, build, operators, batch, axes) -> None:
    axes = np.array(axes, np.int64)
    kept = build(MAP.format(n=batch, rest=",h,w") + "{ y = ReduceMean(x, axes) }", axes=axes)
    assert operators(check_pass.fires(fuse_global_pool, kept)) == ["GlobalAveragePool"]
    dropped = build(MAP.format(n=batch, rest="") + "{ y = ReduceMean<keepdims=0>(x, axes) }", axes=axes)
    assert operators(check_pass.fires(fuse_global_pool, dropped)) == ["GlobalAveragePool", "Flatten"]


def test_a_pooling_of_the_whole_map(check_pass, build, operators) -> None:
    model = build("(float[2,8,5,6] x) => (float[n,c,h,w] y) { y = AveragePool<kernel_shape=[5,6]>(x) }")
    assert operators(check_pass.fires(fuse_global_pool, model)) == ["GlobalAveragePool"]


@pytest.mark.parametrize(
    "pool", ["kernel_shape=[5,5]", "kernel_shape=[5,6], pads=[1,1,1,1]", 'kernel_shape=[5,6], auto_pad="SAME_UPPER"']
)
def test_other_poolings_stay(check_pass, build, pool) -> None:
    check_pass.silent(
        fuse_global_pool, build(f"(float[2,8,5,6] x) => (float[n,c,h,w] y) {{ y = AveragePool<{pool}>(x) }}")
    )


def test_a_mean_over_channels_stays(check_pass, build) -> None:
    model = build(MAP.format(n=2, rest=",h,w") + "{ y = ReduceMean(x, axes) }", axes=np.array([1, 2], np.int64))
    check_pass.silent(fuse_global_pool, model)


def test_a_reshape_to_a_matrix_becomes_a_flatten(check_pass, build, operators) -> None:
    text = "(float[2,8,5,6] x, int64[2] t) => (float[n,c] y) { y = Reshape(x, t) }"
    assert operators(check_pass.fires(fuse_flatten, build(text, t=np.array([2, 240], np.int64)))) == ["Flatten"]
    assert operators(check_pass.fires(fuse_flatten, build(text, t=np.array([-1, 240], np.int64)))) == ["Flatten"]
    check_pass.silent(fuse_flatten, build(text, t=np.array([4, 120], np.int64)))


def test_a_flatten_keeps_a_symbolic_batch(check_pass, build, operators) -> None:
    text = "(float[batch,8,1,1] x, int64[2] t) => (float[n,c] y) { g = Relu(x)  y = Squeeze(g, t) }"
    result = check_pass.fires(fuse_flatten, build(text, t=np.array([2, 3], np.int64)))
    assert operators(result) == ["Relu", "Flatten"]
    assert result.graph.output[0].type.tensor_type.shape.dim[0].dim_param == "batch"
