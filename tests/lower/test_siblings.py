"""Sibling 1x1 convolutions are one kernel, which writes each of them where it belongs."""

from __future__ import annotations

import numpy as np
import pytest

from inception_deploy.kernels.spec import Conv
from inception_deploy.lower import siblings

pytestmark = pytest.mark.parametrize("target", ["avx512-amx"], indirect=True)


def block(b, x):
    """An Inception block: a slice of the concat, a branch that pads for a 3x3, one without activation, a pool's."""
    slice_ = b.op("Relu", b.conv(x, 48, 40, (1, 1)))
    padded = b.op(
        "Relu", b.conv(b.op("Clip", b.conv(x, 48, 70, (1, 1)), b.constant(0), b.constant(6)), 70, 32, pads=[1] * 4)
    )
    linear = b.conv(x, 48, 64, (1, 1))
    pooled = b.conv(b.op("AveragePool", x, kernel_shape=[3, 3], pads=[1] * 4), 48, 8, (1, 1))
    return b.op("Concat", slice_, padded, linear, pooled, axis=1)


@pytest.mark.parametrize("batch", [1, 3])
def test_a_block(compiled, builder, batch):
    b = builder()
    x = b.op("Relu", b.conv(b.input(batch, 3, 9, 7), 3, 48))
    joined = block(b, x)
    made = compiled(b.model(joined, b.op("GlobalAveragePool", joined)))
    made.check(*b.inputs.values())
    several = [step for step in made.plan.steps if len(step.layers) > 2 and step.op == "conv"]
    assert [len(made.plan.kernels[step.kernel].spec.split) for step in several] == [3]
    assert several[0].macs == batch * 7 * 5 * 48 * (40 + 70 + 64)


def test_the_same_bits_as_apart(compiled, builder, monkeypatch):
    b = builder()
    x = b.op("Relu", b.conv(b.input(1, 3, 9, 7), 3, 48))
    model = b.model(block(b, x))
    together = compiled(model).run(*b.inputs.values())
    monkeypatch.setattr(siblings, "join", lambda *_: None)
    assert np.array_equal(together, compiled(model).run(*b.inputs.values()))


def test_any_number_of_them(compiled, builder):
    b = builder()
    x = b.op("Relu", b.conv(b.input(1, 3, 8, 8), 3, 32))
    made = compiled(b.model(*[b.op("Relu", b.conv(x, 32, 8 * number, (1, 1))) for number in range(1, 13)]))
    made.check(*b.inputs.values())
    splits = [len(kernel.spec.split) for kernel in made.plan.kernels.values() if hasattr(kernel.spec, "split")]
    assert sorted(splits) == [0, 12]


def test_who_adds_or_reads_something_else_stays_alone(compiled, builder):
    b = builder()
    x = b.op("Relu", b.conv(b.input(1, 3, 8, 8), 3, 64))
    y = b.op("Relu", b.conv(x, 64, 64, (1, 1)))
    outputs = [
        b.op("Add", b.conv(x, 64, 64, (1, 1)), y),
        b.conv(x, 64, 32, (1, 1), strides=[2, 2]),
        b.conv(x, 64, 64, (1, 1), group=2),
    ]
    made = compiled(b.model(*outputs))
    made.check(*b.inputs.values())
    specs = [kernel.spec for kernel in made.plan.kernels.values() if isinstance(kernel.spec, Conv)]
    assert len(specs) == 5
    assert not any(spec.split for spec in specs)
