"""Small branchy networks and pictures for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from inception_deploy.graph.skeleton import check

BRANCHY = """(float[1,3,12,12] x, float[8,3,3,3] w0, float[8] b0, float[4,8,1,1] w1, float[4] b1, float[6,8,3,3] w2, float[6] b2,
float[10,10,3,3] w3, float[10] b3, float[5,10] fc, float[5] fb) => (float[1,5] y) {
    c0 = Conv<pads=[1,1,1,1]>(x, w0, b0)
    r0 = Relu(c0)
    c1 = Conv(r0, w1, b1)
    r1 = Relu(c1)
    c2 = Conv<pads=[1,1,1,1]>(r0, w2, b2)
    r2 = Relu(c2)
    j = Concat<axis=1>(r1, r2)
    m = MaxPool<kernel_shape=[3,3], strides=[2,2], ceil_mode=1>(j)
    c3 = Conv<pads=[1,1,1,1]>(m, w3, b3)
    a = Add(m, c3)
    ra = Relu(a)
    p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(ra)
    g = GlobalAveragePool(p)
    f = Flatten(g)
    y = Gemm<transB=1>(f, fc, fb)
}"""

TABLES = """(float[1,1,8,8] x, float[4,1,3,3] w0, float[4] b0, float k, float[4,4,3,3] w1, float[3,64] fc) => (float[1,3] y) {
    c0 = Conv<pads=[1,1,1,1]>(x, w0, b0)
    t0 = Tanh(c0)
    s0 = Mul(t0, k)
    c1 = Conv<pads=[1,1,1,1], strides=[2,2]>(s0, w1)
    s1 = Sigmoid(c1)
    f = Flatten(s1)
    y = Gemm<transB=1>(f, fc)
}"""

DEPTHWISE = """(float[2,4,9,9] x, float[4,1,3,3] w0, float[4] b0, float[8,4,1,1] w1, float[8] b1, float low, float high,
float[6,8] fc) => (float[2,6] y) {
    c0 = Conv<group=4, pads=[1,1,1,1]>(x, w0, b0)
    r0 = Clip(c0, low, high)
    c1 = Conv(r0, w1, b1)
    r1 = Relu(c1)
    g = GlobalAveragePool(r1)
    f = Flatten(g)
    y = Gemm<transB=1>(f, fc)
}"""

GATED = """(float[1,3,8,8] x, float[8,3,3,3] w0, float[8] b0, float[1,8,1,1] scale, float[8,1,1] shift, float[4,8,1,1] w1,
float[4] b1, float[8,4,1,1] w2, float[8] b2, float[6,4,1,1] w3, float[5,6] fc) => (float[1,5] y)
<int64[8] ends = {0, 0, 1, 0, 0, 0, 2, 1}, float[4] twice = {1.0, 1.0, 2.0, 2.0}, int64[2] halves = {4, 4}> {
    c0 = Conv<pads=[1,1,1,1]>(x, w0, b0)
    sig = Sigmoid(c0)
    silu = Mul(c0, sig)
    scaled = Mul(silu, scale)
    normal = Add(scaled, shift)
    r0 = Relu(normal)
    g0 = GlobalAveragePool(r0)
    c1 = Conv(g0, w1, b1)
    r1 = Relu(c1)
    c2 = Conv(r1, w2, b2)
    gate = HardSigmoid(c2)
    gated = Mul(gate, r0)
    left, right = Split<axis=1>(gated, halves)
    both = Mul(left, right)
    up = Resize<mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor">(both, , twice)
    wide = Pad(up, ends)
    c3 = Conv(wide, w3)
    g1 = GlobalMaxPool(c3)
    f = Flatten(g1)
    y = Gemm<transB=1>(f, fc)
}"""


def build(text: str, **values: NDArray[np.float32] | float) -> onnx.ModelProto:
    """A model from ONNX's text form; every input after the first becomes an initialiser, random where not given."""
    model = onnx.parser.parse_model('<ir_version: 10, opset_import: ["" : 20]> main ' + text)
    random = np.random.default_rng(7)
    for value in list(model.graph.input)[1:]:
        sizes = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        fan = max(1, int(np.prod(sizes[1:])))
        array = (random.standard_normal(sizes) / np.sqrt(fan)).astype(np.float32)
        array = np.asarray(values.get(value.name, array), np.float32)
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, value.name))
        model.graph.input.remove(value)
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type.lower()}{index}"
    ready = ir.from_proto(model)
    check(ready)
    return ir.to_proto(ready)


def inputs(shape: tuple[int, ...], count: int = 24, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal((count, *shape)).astype(np.float32)


@pytest.fixture(scope="session")
def branchy() -> onnx.ModelProto:
    return build(BRANCHY)


@pytest.fixture(scope="session")
def tables() -> onnx.ModelProto:
    return build(TABLES, k=1.7159)


@pytest.fixture(scope="session")
def depthwise() -> onnx.ModelProto:
    return build(DEPTHWISE, low=0.0, high=6.0)


@pytest.fixture(scope="session")
def gated() -> onnx.ModelProto:
    return build(GATED)


@pytest.fixture(scope="session", name="build")
def build_fixture() -> Callable[..., onnx.ModelProto]:
    return build


@pytest.fixture(scope="session", name="inputs")
def inputs_fixture() -> Callable[..., NDArray[np.float32]]:
    return inputs
