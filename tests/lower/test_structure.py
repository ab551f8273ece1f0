"""Operators that move nothing: concats, splits, shuffles, reshapes; and what they do to the layers around them."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

BUDGET = settings(
    max_examples=6, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)

# what is tested here does not depend on the vector width
pytestmark = pytest.mark.parametrize("target", ["avx2"], indirect=True)


def ops(made):
    return [step.op for step in made.plan.steps]


@BUDGET
@given(
    widths=st.lists(st.sampled_from([1, 7, 16, 20]), min_size=1, max_size=4),
    batch=st.integers(1, 2),
    nested=st.booleans(),
)
def test_concat_moves_nothing(compiled, builder, widths, batch, nested):
    b = builder()
    x = b.input(batch, 3, 5, 4)
    parts = [b.op("Relu", b.conv(x, 3, w, (1, 1))) for w in widths]
    y = b.op("Concat", *parts, axis=1)
    if nested:
        y = b.op("Concat", b.conv(x, 3, 5, (1, 1)), y, b.op("MaxPool", y, kernel_shape=[1, 1]), axis=1)
    channels = 5 + 2 * sum(widths) if nested else sum(widths)
    z = b.conv(b.op("AveragePool", y, kernel_shape=[2, 2]), channels, 6, (3, 2))
    made = compiled(b.model(z))
    made.check(*b.inputs.values())
    assert "copy" not in ops(made)


def test_a_part_that_is_joined_twice_is_copied(compiled, builder):
    b = builder()
    x = b.conv(b.input(2, 3, 5, 5), 3, 20, (1, 1))
    y = b.conv(b.op("Concat", x, x, axis=1), 40, 6, (1, 1))
    z = b.conv(b.op("Concat", b.op("Relu", y), x, axis=1), 26, 7, (1, 1))
    made = compiled(b.model(z))
    made.check(*b.inputs.values())
    assert ops(made).count("copy") == 2


def test_a_dense_block_copies_nothing(compiled, builder):
    b = builder()
    features = [b.conv(b.input(2, 3, 6, 6), 3, 12)]
    for index in range(3):
        joined = b.op("Concat", *features, axis=1) if index else features[0]
        features.append(b.op("Relu", b.conv(joined, 12 + 8 * index, 8, (1, 1))))
    y = b.op("GlobalAveragePool", b.op("Concat", *features, axis=1))
    made = compiled(b.model(y))
    made.check(*b.inputs.values())
    assert ops(made) == ["conv"] * 4 + ["global_average", "unpack"]


def test_joining_the_input_and_an_output_copies(compiled, builder):
    b = builder()
    x = b.input(1, 5, 4, 4)
    y = b.conv(x, 5, 6, (1, 1))
    compiled(b.model(b.op("Concat", x, y, axis=1), y)).check(*b.inputs.values())


@pytest.mark.parametrize(("sizes", "steps"), [([16, 32], 0), ([5, 19, 24], 0), ([1, 47], 0)])
def test_split_moves_nothing(compiled, builder, sizes, steps):
    b = builder()
    x = b.conv(b.input(2, 3, 5, 5), 3, 48, (1, 1))
    parts = b.op("Split", x, b.constant(sizes, "int64"), outputs=len(sizes), axis=1)
    outputs = [b.conv(b.op("Sigmoid", p), s, 4, (1, 1)) for p, s in zip(parts, sizes, strict=True)]
    joined = b.op("Concat", *parts[::-1], axis=1)
    made = compiled(
        b.model(*outputs, b.op("GlobalMaxPool", joined), b.conv(parts[-1], sizes[-1], sizes[-1], group=sizes[-1]))
    )
    made.check(*b.inputs.values())
    assert not {"pack", "extern"} & set(ops(made))
    assert not made.plan.refusals


def test_slices_and_gathers_of_channels(compiled, builder):
    b = builder()
    x = b.conv(b.input(1, 3, 5, 5), 3, 40, (1, 1))
    ints = [b.constant([v], "int64") for v in (4, 39, 1, 2, -1, -(2**63))]
    start, end, axis, two, minus, far = ints
    strided = b.op("Slice", x, start, end, axis, two)
    turned = b.op("Slice", x, minus, far, axis, minus)
    taken = b.op("Gather", x, b.constant([17, 2, -1], "int64"), axis=1)
    outputs = [
        b.conv(strided, 18, 4, (1, 1)),
        b.conv(turned, 40, 4, (3, 3)),
        b.op("Add", taken, b.conv(taken, 3, 3, (1, 1))),
        taken,
    ]
    made = compiled(b.model(*outputs))
    made.check(*b.inputs.values())
    assert not made.plan.refusals


@pytest.mark.parametrize("groups", [2, 3])
def test_channel_shuffle_moves_nothing(compiled, builder, groups):
    b = builder()
    batch, channels = 2, 24
    x = b.conv(b.input(batch, 3, 4, 5), 3, channels, (1, 1))
    y = b.op("Reshape", x, b.constant([batch, groups, channels // groups, 4, 5], "int64"))
    y = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3, 4]), b.constant([batch, channels, 4, 5], "int64"))
    z = b.conv(b.conv(y, channels, channels, group=channels), channels, 6, (1, 1))
    made = compiled(b.model(z, b.op("Flatten", y)))
    made.check(*b.inputs.values())
    assert not {"pack", "extern", "copy"} & set(ops(made))


@BUDGET
@given(
    channels=st.sampled_from([1, 10, 16, 21]),
    size=st.sampled_from([(1, 1), (3, 2)]),
    batch=st.integers(1, 3),
    out=st.sampled_from([3, 16, 40]),
)
def test_flatten_into_dense(compiled, builder, channels, size, batch, out):
    """Flattened channels that fill no block, into a dense layer, its activation and another one."""
    b = builder()
    features = channels * size[0] * size[1]
    x = b.op("Relu", b.op("Flatten", b.conv(b.input(batch, 3, *size), 3, channels, (1, 1))))
    y = b.op("Relu", b.op("Gemm", x, b.weight(out, features), b.weight(out), transB=1, alpha=0.5, beta=2.0))
    z = b.op("Add", b.op("MatMul", y, b.weight(out, 7)), b.constant([[1, 2, 3, 4, 5, 6, 7]]))
    made = compiled(b.model(z))
    made.check(*b.inputs.values())
    assert "extern" not in ops(made)


def test_biases_of_a_dense_layer(compiled, builder):
    for shape, refused in [((), 0), ((1,), 0), ((4,), 0), ((1, 4), 0), ((1, 1), 0), ((2, 1), 1), ((2, 4), 1)]:
        b = builder()
        y = b.op("Gemm", b.input(2, 8), b.weight(8, 4), b.constant(b.random.standard_normal(shape)))
        made = compiled(b.model(y))
        made.check(*b.inputs.values())
        assert len(made.plan.refusals) == refused


def test_dense_on_the_networks_own_input(compiled, builder):
    b = builder()
    x = b.input(2, 37)
    y = b.op("Gemm", x, b.weight(37, 5), b.weight(5))
    compiled(b.model(y, b.op("Softmax", y, axis=1))).check(*b.inputs.values())


def test_reshapes_of_plain_memory(compiled, builder):
    """Views of one memory with other first axes, read by kernels of both kinds, and given out."""
    b = builder()
    x = b.input(2, 3, 4, 4)
    rows = b.op("Reshape", x, b.constant([6, 16], "int64"))
    image = b.op("Reshape", rows, b.constant([1, 6, 4, 4], "int64"))
    y = b.conv(image, 6, 5)
    z = b.op("Softmax", rows, axis=-1)
    w = b.op("Reshape", z, b.constant([3, 2, 16], "int64"))
    compiled(b.model(y, w, b.op("Sin", w), b.conv(x, 3, 4))).check(*b.inputs.values())


def test_outputs_that_are_the_input_or_each_other(compiled, builder):
    b = builder()
    x = b.input(2, 3, 4)
    y = b.op("Softmax", x, axis=-1)
    compiled(
        b.model(b.op("Identity", x), y, b.op("Reshape", y, b.constant([6, 4], "int64")), b.op("Identity", y))
    ).check(*b.inputs.values())


def test_an_integer_that_goes_straight_out_is_an_error(builder, target):
    from inception_deploy.errors import DeployError
    from inception_deploy.lower.lower import lower

    b = builder()
    with pytest.raises(DeployError, match="is its input, or another output, unchanged"):
        lower(b.model(b.op("Identity", b.input(3, dtype="int64"))), target)
