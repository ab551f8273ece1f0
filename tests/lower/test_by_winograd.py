"""Winograd in a network: the same numbers as onnxruntime, on any tile that the edges cut, whatever it costs."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from inception_deploy.kernels.vector import winograd
from inception_deploy.lower import by_winograd
from inception_deploy.verify import bound

pytestmark = pytest.mark.parametrize("target", ["avx512", "avx2"], indirect=True)  # beside tiles there is none of it

BUDGET = settings(
    max_examples=6, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)


@pytest.fixture(autouse=True)
def always(monkeypatch: pytest.MonkeyPatch) -> None:
    """Transforms and weights cost nothing, so that small maps take this way too."""
    monkeypatch.setattr(winograd, "_MOVE_IN", -1e9)


@BUDGET
@given(
    batch=st.integers(1, 2),
    channels=st.sampled_from([16, 40]),
    out=st.sampled_from([24, 32]),
    size=st.tuples(st.integers(5, 14), st.integers(5, 14)),
    kernel=st.sampled_from([(3, 3), (1, 7), (7, 1), (3, 1), (5, 5)]),
    padded=st.booleans(),
)
def test_a_convolution(compiled, builder, batch, channels, out, size, kernel, padded):
    half = [k // 2 if padded else 0 for k in kernel]
    size = [max(s, k) for s, k in zip(size, kernel, strict=True)]
    b = builder()
    x = b.op("Relu", b.conv(b.input(batch, channels, *size), channels, channels, (1, 1)))
    made = compiled(b.model(b.op("Relu", b.conv(x, channels, out, kernel, pads=[*half, *half]))))
    assert [s.op for s in made.plan.steps if s.op.startswith("winograd")] == ["winograd_in", "winograd_out"]
    made.check(*b.inputs.values(), tolerance=bound("kernels"))


def test_a_residual_of_branches(compiled, builder):
    """Slices of a concat as input and output, an add that writes over its addend, channels that are no multiple of 16."""
    b = builder()
    x = b.op("Relu", b.conv(b.input(1, 16, 9, 11), 16, 40, (1, 1)))
    left = b.op("Relu", b.conv(x, 40, 24, (3, 3), pads=[1, 1, 1, 1]))
    right = b.op("Relu", b.conv(b.op("Relu", b.conv(x, 40, 20, (1, 1))), 20, 20, (1, 7), pads=[0, 3, 0, 3]))
    joined = b.op("Concat", left, right, axis=1)
    back = b.conv(joined, 44, 40, (3, 3), pads=[1, 1, 1, 1])
    made = compiled(b.model(b.op("Relu", b.op("Add", x, back))))
    assert sum(s.op == "winograd_out" for s in made.plan.steps) == 3
    assert not any(s.op == "copy" for s in made.plan.steps)
    made.check(*b.inputs.values(), tolerance=bound("kernels"))


@pytest.mark.parametrize("tile_rows", [1, 2, 3])
def test_bands(compiled, builder, monkeypatch, tile_rows):
    """A large image is done a few tile rows at a time, in the same memory, with a residual that others read meanwhile."""
    b = builder()
    x = b.op("Relu", b.conv(b.input(2, 16, 27, 14), 16, 16, (1, 1)))
    back = b.op("Add", x, b.conv(x, 16, 16, (5, 5), pads=[2, 2, 2, 2]))
    wide = b.conv(b.op("Relu", b.conv(x, 16, 16, (3, 3), pads=[1, 1, 1, 1])), 16, 16, (1, 7), pads=[0, 3, 0, 3])
    model = b.model(b.op("Relu", b.op("Add", back, wide)))
    whole = compiled(model).plan.arena_bytes
    monkeypatch.setattr(by_winograd, "BAND_BYTES", 4 * 64 * 4 * 32 * 2 * tile_rows)
    made = compiled(model)
    assert sum(s.op == "winograd_out" for s in made.plan.steps) > 3
    assert sum(s.macs for s in made.plan.steps) == 2 * 27 * 14 * 16 * 16 * (1 + 25 + 9 + 7)
    assert made.plan.arena_bytes < whole
    made.check(*b.inputs.values(), tolerance=bound("kernels"))


def test_the_work_is_counted_once(compiled, builder):
    """A layer's multiply-adds and its name stay with the products."""
    b = builder()
    made = compiled(b.model(b.conv(b.input(1, 16, 8, 8), 16, 16, (3, 3))))
    assert sum(s.macs for s in made.plan.steps) == 6 * 6 * 16 * 16 * 9
    assert [s.layers for s in made.plan.steps if s.layers] == [("Conv_0",)]
