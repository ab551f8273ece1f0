"""A scale for each channel between two convolutions moves into them: the pass fires, must not fire, the numbers stay."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from inception_deploy.graph.even import even_scales

HEAD = "(float[1,3,6,6] x, float s, uint8 o, float[4] p, uint8[4] z, int8[4,3,3,3] w, int8[8,1,3,3] v, float a, float[4] f, float[8] g, int8[8] h, float low, float high) => (float[n,c,h,w] y) "
BODY = (
    "q = QuantizeLinear(x, s, o)  d = DequantizeLinear(q, s, o)  k = DequantizeLinear<axis=0>(w, a)  "
    "c = Conv(d, k, f)  {act}e = QuantizeLinear<axis=1>({r}, p, z)  i = DequantizeLinear<axis=1>(e, p, z)  "
    "j = DequantizeLinear<axis=0>(v, g, h)  {end}"
)
DEPTHWISE = "y = Conv<group=4>(i, j)"
WHOLE = np.random.default_rng(0)
NUMBERS = {
    "s": np.float32(0.02), "o": np.uint8(120), "p": np.float32([0.01, 0.02, 0.015, 0.004]), "z": np.uint8([0] * 4),
    "a": np.float32(0.004), "g": np.float32(np.arange(1, 9) / 1000), "h": np.int8([0] * 8),
    "w": WHOLE.integers(-127, 128, (4, 3, 3, 3), np.int8), "v": WHOLE.integers(-127, 128, (8, 1, 3, 3), np.int8),
    "low": np.float32(0), "high": np.float32(6),
}  # fmt: skip


def model(build, act="r = Relu(c)  ", end=DEPTHWISE, **values) -> onnx.ModelProto:
    text = BODY.format(act=act, r="r" if act else "c", end=end)
    return build(f"{HEAD}{{ {text} }}", **{**NUMBERS, **values})


@pytest.mark.parametrize("act", ["", "r = Relu(c)  ", "r = Clip(c, low, high)  "])
def test_one_scale_takes_the_place_of_many(check_pass, build, operators, act) -> None:
    made = check_pass.fires(even_scales, model(build, act))
    assert "Clip" not in operators(made)  # a Relu does what it does
    scales = {t.name: t.dims for t in made.graph.initializer}
    activations = [node for node in made.graph.node if node.op_type == "QuantizeLinear"]
    assert all(not scales[node.input[1]] for node in activations)


@pytest.mark.parametrize(
    "changed",
    [
        {"z": np.uint8([0, 0, 3, 0])},  # zero points of their own
        {"act": "r = Clip(c, low, high)  ", "high": np.float32(1)},  # ends below what a channel's bytes reach
        {"act": "r = Sigmoid(c)  "},
        {"end": "n = Neg(i)  m = Conv<group=4>(i, j)  y = Relu(n)"},  # another reader
        {"end": "y = Neg(i)"},
    ],
)
def test_elsewhere_channels_are_scaled_as_reals(check_pass, build, operators, changed) -> None:
    made = operators(check_pass.fires(even_scales, model(build, **changed)))
    assert made.count("Mul") == made.count("Add") == 2


def test_what_stays(check_pass, build) -> None:
    one = {"p": np.float32([0.01]), "z": np.uint8([0])}
    text = HEAD.replace("float[4] p, uint8[4] z", "float[1] p, uint8[1] z")
    body = BODY.format(act="", r="c", end=DEPTHWISE).replace("Linear<axis=1>(", "Linear(")
    check_pass.silent(even_scales, build(f"{text}{{ {body} }}", **{**NUMBERS, **one}))
