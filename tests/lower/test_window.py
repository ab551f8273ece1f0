"""Pools of any shape against onnxruntime."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from inception_deploy.verify import bound

BUDGET = settings(
    max_examples=6, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@st.composite
def pools(draw):
    """Size, and the attributes that both pools have. No window lies in the padding alone (onnxruntime divides by zero there)."""
    kernel = [draw(st.integers(1, 3)), draw(st.integers(1, 4))]
    strides = [draw(st.integers(1, 3)), draw(st.integers(1, 3))]
    pads = [draw(st.integers(0, (k - 1) // 2)) for k in (*kernel, *kernel)]
    size = [k + draw(st.integers(0, 14)) for k in kernel]
    ceil = draw(st.booleans())
    if ceil:
        for axis in (0, 1):
            padded = size[axis] + pads[axis] + pads[axis + 2]
            last = -(-(padded - kernel[axis]) // strides[axis]) * strides[axis]
            assume(last < size[axis] + pads[axis])
    return size, {"kernel_shape": kernel, "strides": strides, "pads": pads, "ceil_mode": int(ceil)}


@BUDGET
@given(shape=pools(), batch=st.integers(1, 2), channels=st.sampled_from([5, 16, 40]), dilated=st.booleans())
def test_max_pool(compiled, builder, shape, batch, channels, dilated):
    size, attributes = shape
    if dilated and not attributes["ceil_mode"]:
        attributes = attributes | {"dilations": [2, 1]}
        size = [size[0] + attributes["kernel_shape"][0], size[1]]
    b = builder()
    made = compiled(b.model(b.op("MaxPool", b.input(batch, channels, *size), **attributes)))
    made.check(*b.inputs.values(), tolerance=0)
    assert not made.plan.refusals


@BUDGET
@given(shape=pools(), batch=st.integers(1, 2), channels=st.sampled_from([5, 16, 40]), include=st.integers(0, 1))
def test_average_pool(compiled, builder, shape, batch, channels, include):
    size, attributes = shape
    b = builder()
    made = compiled(
        b.model(b.op("AveragePool", b.input(batch, channels, *size), count_include_pad=include, **attributes))
    )
    made.check(*b.inputs.values(), tolerance=bound("rounding"))
    assert not made.plan.refusals


@BUDGET
@given(shape=pools(), include=st.integers(0, 1), op=st.sampled_from(["Add", "Mul"]))
def test_numbers_of_channels_behind_an_average(compiled, builder, shape, include, op):
    """A bias and bounds are the pool's own end, where all windows count alike."""
    size, attributes = shape
    b = builder()
    x = b.op("AveragePool", b.input(2, 20, *size), count_include_pad=include, **attributes)
    made = compiled(b.model(b.op("Relu", b.op(op, x, b.weight(20, 1, 1)))))
    made.check(*b.inputs.values())
    assert not made.plan.refusals
    if include and not attributes["ceil_mode"] and attributes["kernel_shape"] != size:
        assert made.ops == ["average_pool"]


@pytest.mark.parametrize("size", [(1, 1), (7, 7), (3, 5)])
def test_global_pools(compiled, builder, size):
    b = builder()
    x = b.input(2, 37, *size)
    axes = b.constant([-1, -2], "int64")
    outputs = [
        b.op("GlobalAveragePool", x),
        b.op("GlobalMaxPool", x),
        b.op("ReduceMean", x, axes, keepdims=0),
        b.op("ReduceMax", x, axes),
        b.op("AveragePool", x, kernel_shape=list(size)),
    ]
    made = compiled(b.model(*outputs))
    made.check(*b.inputs.values(), tolerance=bound("rounding"))
    assert not made.plan.refusals


def test_the_indices_of_the_maxima_are_computed_only_where_they_are_used(compiled, builder):
    b = builder()
    values, _ = b.op("MaxPool", b.input(1, 4, 6, 6), outputs=2, kernel_shape=[2, 2])
    assert [step.op for step in compiled(b.model(values)).plan.steps if step.layers] == ["max_pool"]
    b = builder()
    values, indices = b.op("MaxPool", b.input(1, 4, 6, 6), outputs=2, kernel_shape=[2, 2])
    made = compiled(b.model(values, indices))
    assert {step.op for step in made.plan.steps if "MaxPool_0" in step.layers} == {"extern"}
    made.check(*b.inputs.values())


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
def test_an_activation_behind_a_pool_is_its_epilogue(compiled, builder, kind):
    b = builder()
    pooled = b.op(kind, b.input(1, 16, 8, 8), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    made = compiled(b.model(b.op("Relu", pooled)))
    assert [step.layers for step in made.plan.steps if len(step.layers) == 2] == [(f"{kind}_0", "Relu_1")]
    made.check(*b.inputs.values())


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool", "depthwise"])
@pytest.mark.parametrize("batch", [1, 2])
def test_the_zeros_around_a_window_are_its_own(compiled, builder, kind, batch):
    b = builder()
    x = b.op("Relu", b.conv(b.input(batch, 3, 23, 27), 3, 40, (3, 3)))
    window = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 0, 1, 1]}
    if kind == "depthwise":
        y = b.op("Relu", b.conv(x, 40, 40, group=40, strides=[2, 2], pads=[1, 0, 1, 1]))
    else:
        y = b.op(kind, x, **window)
    made = compiled(b.model(b.conv(y, 40, 24, (3, 5), pads=[1, 3, 0, 2])))
    made.check(*b.inputs.values(), tolerance=bound("window"))
    assert "frame" not in [step.op for step in made.plan.steps]


@pytest.mark.parametrize("kind", ["MaxPool", "AveragePool"])
@pytest.mark.parametrize("wide", [5, 17, 30])
def test_a_pool_beside_a_convolution(compiled, builder, kind, wide):
    """What a convolution reads, too, is of halves where there are tiles, before the pool and behind it."""
    b = builder()
    x = b.op("Relu", b.conv(b.input(1, 3, 12, wide), 3, 40, (1, 1)))
    pooled = b.op(kind, x, kernel_shape=[3, 3], pads=[1] * 4)
    y = b.op("Concat", b.conv(x, 40, 24, (1, 1)), b.conv(pooled, 40, 32, (1, 1)), axis=1)
    pooled = b.op(kind, y, kernel_shape=[3, 2], strides=[2, 1])
    made = compiled(b.model(b.conv(pooled, 56, 16, (1, 1)), b.conv(y, 56, 16, (1, 1))))
    made.check(*b.inputs.values())


@pytest.mark.parametrize("group", [2, 4, 8])
def test_groups_of_few_channels(compiled, builder, group):
    b = builder()
    x = b.op("Relu", b.conv(b.input(2, 3, 13, 18), 3, 64, (1, 1)))
    y = b.op("Relu", b.conv(x, 64, 64, (3, 3), group=64 // group, strides=[2, 1], pads=[1, 2, 0, 1]))
    y = b.conv(y, 64, 64, (2, 3), group=64 // group, dilations=[2, 3])
    made = compiled(b.model(b.conv(y, 64, 20, (1, 1))))
    made.check(*b.inputs.values(), tolerance=bound("window"))
    if made.pairs:
        groups = [getattr(kernel.spec, "group", 1) for kernel in made.plan.kernels.values()]
        assert sorted(groups)[-2:] == ([1, 1] if group == 8 else [group, group])
