"""A network for another number of images: shapes follow, the rows stay what they were, and what cannot be is refused."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import parser

from inception_deploy.errors import DeployError
from inception_deploy.graph.rows import with_rows
from inception_deploy.verify import bound, run_onnx

HEAD = '<ir_version: 10, opset_import: ["" : 20]> net '
PLAIN = """(float[1,4,6,6] x) => (float[1,5] y) <int64[2] flat = {1, 128}> {
    a = Conv(x, w)
    b = Reshape(a, flat)
    y = MatMul(b, fc)
}"""
EXPANDED = """(float[1,4] x) => (float[1,4] y) <float[1,4] k = {1.0, 2.0, 3.0, 4.0}, int64[2] to = {1, 4}> {
    e = Expand(k, to)
    y = Add(x, e)
}"""
HEADS = """(float[1,6,8] x) => (float[1,6,8] y) <int64[4] apart = {1, 6, 2, 4}, int64[3] whole = {1, 6, -1}> {
    a = Reshape(x, apart)
    b = Transpose<perm = [0, 2, 1, 3]>(a)
    c = Softmax(b)
    d = Transpose<perm = [0, 2, 1, 3]>(c)
    y = Reshape(d, whole)
}"""


def network(text: str) -> onnx.ModelProto:
    model = parser.parse_model(HEAD + text)
    random = np.random.default_rng(0)
    for name, shape in {"w": (8, 4, 3, 3), "fc": (128, 5)}.items():
        values = random.standard_normal(shape).astype(np.float32)
        if any(name in node.input for node in model.graph.node):
            model.graph.initializer.append(onnx.numpy_helper.from_array(values, name))
    return model


@pytest.mark.parametrize("rows", [1, 3, 8])
@pytest.mark.parametrize("text", [PLAIN, EXPANDED, HEADS])
def test_every_row_is_what_it_was(text: str, rows: int) -> None:
    model = network(text)
    before = model.SerializeToString()
    more = with_rows(model, rows)
    assert model.SerializeToString() == before
    shape = [size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim]
    x = np.random.default_rng(1).standard_normal((rows, *shape[1:])).astype(np.float32)
    (got,) = run_onnx(more, {"x": x})
    one = np.concatenate([run_onnx(model, {"x": x[row : row + 1]})[0] for row in range(rows)])
    np.testing.assert_allclose(got, one, rtol=0, atol=bound("kernel") * float(np.abs(one).max()))
    assert more.graph.output[0].type.tensor_type.shape.dim[0].dim_value == rows


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("(float[1,4] x) => (float[4] y) { y = Reshape(x, s) } ", "does not compute 2 images as it computes one"),
        ("(float[1,4] x, float[1,4] z) => (float[1,4] y) { y = Add(x, z) }", "a network of 2 inputs has one number"),
        ("(float[1,4] x) => (float y) { y = ReduceSum<keepdims = 0>(x) }", "does not compute 2 images"),
    ],
)
def test_what_has_one_number_of_images_is_refused(text: str, message: str) -> None:
    text = text.replace("=> (float[4] y)", "=> (float[4] y) <int64[1] s = {4}>")
    with pytest.raises(DeployError, match=message) as caught:
        with_rows(network(text), 2)
    assert caught.value.kind == "batch"
