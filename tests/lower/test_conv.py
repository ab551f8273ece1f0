"""Convolutions of any shape, with every epilogue, against onnxruntime."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inception_deploy.kernels.isa import ISAS
from inception_deploy.kernels.spec import Conv
from inception_deploy.kernels.vector.conv import share

CPUS = [isa for isa in ISAS if not isa.gpu]

BUDGET = settings(
    max_examples=6, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@st.composite
def shapes(draw):
    """Batch, channels, size, outputs and attributes of a convolution whose output is not empty."""
    kernel = (draw(st.integers(1, 4)), draw(st.integers(1, 5)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 3)))
    pads = [draw(st.integers(0, k - 1)) for k in (*kernel, *kernel)]
    least = [
        max(1, (k - 1) * d + 1 - pads[i] - pads[i + 2]) for i, (k, d) in enumerate(zip(kernel, dilation, strict=True))
    ]
    size = [low + draw(st.integers(0, 19)) for low in least]
    attributes = {
        "strides": [draw(st.integers(1, 3)), draw(st.integers(1, 2))],
        "dilations": list(dilation),
        "pads": pads,
    }
    return draw(st.integers(1, 3)), size, kernel, attributes


@BUDGET
@given(
    shape=shapes(),
    channels=st.sampled_from([1, 3, 16, 20, 33]),
    out=st.sampled_from([5, 16, 24, 64]),
    act=st.sampled_from(["", "Relu", "Clip"]),
)
def test_convolution(compiled, builder, shape, channels, out, act):
    batch, size, kernel, attributes = shape
    b = builder()
    y = b.conv(b.input(batch, channels, *size), channels, out, kernel, **attributes)
    if act:
        y = b.op(act, y, *([b.constant(-0.3), b.constant(0.7)] if act == "Clip" else []))
    made = compiled(b.model(y))
    made.check(*b.inputs.values())
    assert made.ops == ["conv"], "the activation has a layer of its own"


@BUDGET
@given(shape=shapes(), channels=st.sampled_from([3, 16, 40]))
def test_depthwise(compiled, builder, shape, channels):
    batch, size, kernel, attributes = shape
    b = builder()
    y = b.conv(b.input(batch, channels, *size), channels, channels, kernel, group=channels, **attributes)
    made = compiled(b.model(b.op("Relu", y)))
    made.check(*b.inputs.values())
    assert "depthwise" in [s.op for s in made.plan.steps]


@BUDGET
@given(
    shape=shapes(),
    groups=st.sampled_from([(2, 4, 3), (4, 16, 16), (3, 16, 32), (8, 4, 4), (8, 4, 8), (3, 8, 16), (32, 1, 2)]),
)
def test_grouped(compiled, builder, shape, groups):
    batch, size, kernel, attributes = shape
    group, channels, out = groups
    b = builder()
    y = b.conv(
        b.input(batch, group * channels, *size), group * channels, group * out, kernel, group=group, **attributes
    )
    made = compiled(b.model(y))
    made.check(*b.inputs.values())


@pytest.mark.parametrize(
    ("group", "channels", "out"), [(19, 8, 8), (3, 24, 24), (5, 12, 12), (9, 4, 4), (3, 8, 24), (5, 16, 8), (2, 24, 8)]
)
def test_groups_that_share_blocks(compiled, builder, group, channels, out):
    """Whole vectors of them are computed without the zeros of a block-diagonal weight, the last blocks are partly
    padding, and what is added behind lies as they do.
    """
    b = builder()
    x = b.conv(b.input(2, 3, 9, 7), 3, group * channels, (1, 1))
    y = b.op("Relu", b.conv(x, group * channels, group * out, group=group, pads=[1] * 4))
    if channels == out:
        y = b.op("Add", y, x)
    compiled(b.model(b.conv(y, group * out, 5, (1, 1)))).check(*b.inputs.values())


def test_a_grouped_convolution_multiplies_few_zeros():
    """RegNet's: 7 groups of 8 channels are 4 pairs in blocks of 16, and vectors of 8 take one each."""
    spec = Conv(1, 16, 9, 9, 64, 9, 9, (3, 3), pad=(1, 1), groups=4, diagonal=(8, 8))
    assert {isa.lanes: share(spec, isa.lanes).inputs for isa in CPUS} == {4: 8, 8: 8, 16: 16}
    assert share(replace(spec, groups=1, channels=64, diagonal=(24, 24)), 8) == (24, 24)


@BUDGET
@given(
    batch=st.integers(1, 2),
    channels=st.sampled_from([16, 24]),
    mid=st.sampled_from([7, 32]),
    side=st.sampled_from(["left", "right", "joined"]),
)
def test_residual_add(compiled, builder, batch, channels, mid, side):
    """The add goes into the second convolution, whichever side it is on and however the other side's channels lie."""
    b = builder()
    x = b.input(batch, channels, 5, 6)
    if side == "joined":
        shortcut = b.op("Concat", b.conv(x, channels, 5, (1, 1)), b.conv(x, channels, channels - 5, (1, 1)), axis=1)
    else:
        shortcut = b.op("Relu", b.conv(x, channels, channels, (1, 1)))
    y = b.conv(b.op("Relu", b.conv(shortcut, channels, mid, pads=[1] * 4)), mid, channels, pads=[1] * 4)
    y = b.op("Relu", b.op("Add", *((y, shortcut) if side == "left" else (shortcut, y))))
    y = b.conv(y, channels, 9, (1, 1))
    made = compiled(b.model(y))
    made.check(*b.inputs.values())
    assert not {"add", "clip", "copy"} & {s.op for s in made.plan.steps}


def test_a_sum_that_leaves_the_network_over_an_addend_that_stays(compiled, builder):
    """On matrix tiles the one is fp32 and the other pairs of bfloat16, of the same size."""
    b = builder()
    x = b.op("Relu", b.conv(b.input(2, 3, 6, 6), 3, 64, (1, 1)))
    y = b.op("Relu", b.op("Add", b.conv(b.conv(x, 64, 64), 64, 64, (3, 3), pads=[2] * 4), x))
    compiled(b.model(b.op("GlobalAveragePool", y))).check(*b.inputs.values())


def test_both_sides_are_convolutions(compiled, builder):
    b = builder()
    x = b.input(1, 3, 6, 6)
    left, right = b.conv(x, 3, 24, pads=[1] * 4), b.conv(x, 3, 24, (1, 1))
    made = compiled(b.model(b.op("Clip", b.op("Add", left, right), b.constant(0), b.constant(6))))
    made.check(*b.inputs.values())
    assert made.ops == ["conv", "conv"]


def test_a_value_with_two_readers_is_not_changed_in_place(compiled, builder):
    b = builder()
    x = b.conv(b.input(1, 3, 6, 6), 3, 20)
    relu = b.op("Relu", x)
    total = b.op("Add", b.conv(relu, 20, 20, (1, 1)), relu)
    late = b.op("Sub", b.op("Relu", total), relu)
    compiled(b.model(x, relu, total, late)).check(*b.inputs.values())


def test_wide_and_deep(compiled, builder):
    """Several register tiles, several groups of output vectors, a pointwise and a strided one."""
    b = builder()
    y = b.op("Relu", b.conv(b.input(1, 3, 39, 39), 3, 32, strides=[2, 2]))
    y = b.op("Relu", b.conv(y, 32, 96, (1, 7), pads=[0, 3, 0, 3]))
    y = b.op("Relu", b.conv(y, 96, 208, (1, 1)))
    y = b.conv(y, 208, 48, (3, 3), strides=[2, 2])
    compiled(b.model(y)).check(*b.inputs.values())


def test_same_padding(compiled, builder):
    for mode in ("SAME_UPPER", "SAME_LOWER", "VALID"):
        b = builder()
        y = b.conv(b.input(1, 5, 8, 7), 5, 6, (4, 3), strides=[2, 2], auto_pad=mode)
        compiled(b.model(y)).check(*b.inputs.values())


def test_one_spatial_axis_takes_the_default(compiled, builder):
    b = builder()
    made = compiled(b.model(b.op("Relu", b.conv(b.input(2, 4, 21), 4, 8, (3,), strides=[2]))))
    made.check(*b.inputs.values())
    (refusal,) = made.plan.refusals
    assert (refusal.op, refusal.reason) == ("Conv", "'x0' has 3 axes, not 4")


def test_a_computed_weight_takes_the_default(compiled, builder):
    b = builder()
    x, w = b.input(1, 4, 6, 6), b.input(3, 4, 3, 3)
    made = compiled(b.model(b.op("Conv", x, b.op("Tanh", w))))
    made.check(*b.inputs.values())
    assert [(r.op, r.reason) for r in made.plan.refusals] == [("Conv", "the weight is computed at run time")]
