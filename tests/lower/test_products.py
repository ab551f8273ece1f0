"""Products of two computed matrices, as attention has them."""

from __future__ import annotations

from typing import Any

import pytest

SHAPES = {
    "attention's scores": ((1, 3, 49, 16), (1, 3, 16, 49)),
    "attention's values": ((2, 4, 21, 21), (2, 4, 21, 32)),
    "fewer columns than a vector": ((3, 13, 7), (3, 7, 3)),
    "one column": ((2, 5, 9), (2, 9, 1)),
    "one row": ((1, 2, 1, 33), (1, 2, 33, 17)),
    "matrices": ((14, 70), (70, 40)),
    "one matrix for all": ((2, 3, 6, 5), (5, 19)),
    "one of its own axes for all": ((2, 3, 6, 5), (1, 1, 5, 19)),
}


@pytest.mark.parametrize(("left", "right"), SHAPES.values(), ids=SHAPES)
def test_a_product(compiled: Any, builder: Any, left: tuple[int, ...], right: tuple[int, ...]) -> None:
    b = builder()
    x, y = b.op("Tanh", b.input(*left)), b.input(*right)
    made = compiled(b.model(b.op("MatMul", x, y)))
    assert made.ops[-1] == "product"
    assert not [refusal for refusal in made.plan.refusals if refusal.op == "MatMul"]
    made.check(*b.inputs.values())


def test_attention(compiled: Any, builder: Any) -> None:
    """Of three heads, with a map before and behind it."""
    b = builder()
    x = b.conv(b.input(1, 8, 6, 7), 8, 72, (1, 1))
    parts = b.op("Split", b.op("Reshape", x, b.constant([1, 9, 8, 42], "int64")), outputs=3, axis=1, num_outputs=3)
    rows = [b.op("Transpose", part, perm=[0, 1, 3, 2]) for part in parts]
    scores = b.op("Softmax", b.op("MatMul", rows[0], parts[1]), axis=-1)
    y = b.op("Transpose", b.op("MatMul", scores, rows[2]), perm=[0, 1, 3, 2])
    made = compiled(b.model(b.conv(b.op("Reshape", y, b.constant([1, 24, 6, 7], "int64")), 24, 8, (1, 1))))
    assert made.ops.count("product") == 2
    made.check(*b.inputs.values())


def test_a_left_operand_is_read_turned(compiled: Any, builder: Any) -> None:
    """By one product; a Transpose that something else reads, too, or that turns the right operand, is computed."""
    b = builder()
    x, y = b.input(2, 3, 9, 14), b.input(2, 3, 9, 21)
    turned = b.op("Transpose", x, perm=[0, 1, 3, 2])
    made = compiled(b.model(b.op("MatMul", turned, y)))
    assert made.ops == ["product"]
    made.check(*b.inputs.values())
    b = builder()
    x, y, z = b.input(2, 3, 9, 14), b.input(2, 3, 9, 21), b.input(2, 3, 5, 21)
    turned, other = (b.op("Transpose", each, perm=[0, 1, 3, 2]) for each in (x, y))
    made = compiled(b.model(b.op("MatMul", turned, y), b.op("Tanh", turned), b.op("MatMul", z, other)))
    assert made.ops.count("product") == 2
    assert [refusal.op for refusal in made.plan.refusals].count("Transpose") == 2
    made.check(*b.inputs.values())


def test_other_axes_for_all_take_the_default(compiled: Any, builder: Any) -> None:
    b = builder()
    x, y = b.input(1, 6, 5), b.input(4, 5, 9)
    made = compiled(b.model(b.op("MatMul", x, y)))
    (refusal,) = made.plan.refusals
    assert refusal.reason == "the axes before the matrices' are [1] and [4]"
    made.check(*b.inputs.values())
