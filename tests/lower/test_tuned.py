"""Whatever tuning may choose computes the same numbers: networks whose kernels all take choices drawn at random."""

from __future__ import annotations

from random import Random

import numpy as np
import pytest

from inception_deploy import targets
from inception_deploy.lower.layers import Param
from inception_deploy.lower.lower import layers_for, lower, pack
from inception_deploy.quantize import integer_network, quantize
from inception_deploy.tuning.space import Space, choice_of, knobs
from inception_deploy.tuning.task import tasks_of
from inception_deploy.tuning.tuned import Better, tunable, with_choices
from inception_deploy.verify import bound, run_onnx, tolerance

from ..cases.emulator import emulator

TWO_BYTES = (("cortex-a76", "fp16"), ("neoverse-v1", "bf16"))


def drawn(model, target, random: Random):
    """The target with a random choice for every task of the model."""
    choices = {}
    for task in tasks_of(layers_for(model, target).layers):
        (choice,) = Space(task, target).sample(random, 1)
        assert choice_of(knobs(choice), task, target) == choice
        choices[task.key] = Better(task, choice, 0.5)
    return with_choices(target, choices)


def branchy(b):
    """Each kind of task: planar stem, pointwise, 3x3, 1x7, grouped, depthwise, residual, pools, dense."""
    x = b.op("Relu", b.conv(b.input(2, 3, 19, 23), 3, 32, (3, 3), strides=[2, 2]))
    x = b.op("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    left = b.op("Relu", b.conv(x, 32, 160, (1, 1)))
    right = b.op(
        "Relu", b.conv(b.op("Relu", b.conv(x, 32, 48, (1, 7), pads=[0, 3, 0, 3])), 48, 40, (3, 3), pads=[1] * 4)
    )
    x = b.op("Concat", left, right, axis=1)
    x = b.op("Relu", b.op("Add", x, b.conv(b.conv(x, 200, 32, (1, 1)), 32, 200, (3, 3), pads=[1] * 4)))
    x = b.conv(b.conv(x, 200, 200, (3, 3), group=200), 200, 64, (1, 1))
    x = b.conv(x, 64, 64, (3, 3), group=2, pads=[1] * 4)
    x = b.op("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2])
    return b.model(b.op("Gemm", b.op("Flatten", b.op("GlobalAveragePool", x), axis=1), b.weight(64, 30), b.weight(30)))


@pytest.mark.parametrize("seed", range(4))
def test_any_choices_compute_the_same(target, builder, tmp_path, seed):
    from .conftest import Compiled

    b = builder()
    model = branchy(b)
    tuned = drawn(model, target, Random(seed))
    made = Compiled(model, tuned, tmp_path / "network.so")
    taken = {record["task"] for record in tuned.used.values()}
    assert taken == set(tuned.choices), "a task's choice was not asked for"
    made.check(*b.inputs.values(), tolerance=bound("kernels"))


@pytest.mark.parametrize("isa", ["avx512-vnni", "avx2"])
@pytest.mark.parametrize("seed", range(2))
def test_any_choices_of_integers_are_the_reference(isa, builder, tmp_path, seed):
    from .conftest import Compiled

    goal = targets.parse(f"cpu:{isa}").at("int8")
    if reason := goal.missing():
        pytest.skip(reason)
    b = builder()
    model = branchy(b)
    (x,) = b.inputs.values()
    quantized = quantize(model, list(np.random.default_rng(0).standard_normal((8, *x.shape[1:]), np.float32))).model
    tuned = drawn(quantized, goal, Random(seed))
    made = Compiled(quantized, tuned, tmp_path / "network.so")
    assert {record["task"] for record in tuned.used.values()} == set(tuned.choices)
    (expected,) = integer_network.reference(quantized, {quantized.graph.input[0].name: x})
    np.testing.assert_array_equal(made.run(x)[0], expected)


@pytest.mark.parametrize(
    ("core", "precision", "seed"),
    [
        pytest.param(*pair, seed, marks=[pytest.mark.slow] * ((*pair, seed) != ("neoverse-v1", "bf16", 0)))
        for pair in TWO_BYTES
        for seed in range(4)
    ],
)
def test_any_choices_of_two_bytes_are_near(core, precision, builder, tmp_path, seed):
    from .test_arm import calculated

    goal = tunable(targets.parse(f"arm:{core}"), precision)
    emulator(goal.isa)
    b = builder()
    model = branchy(b)
    tuned = drawn(model, goal, Random(seed))
    goal.build(lower(model, tuned), tmp_path)
    assert {record["task"] for record in tuned.used.values()} == set(tuned.choices)
    (x,) = b.inputs.values()
    (expected,) = run_onnx(model, {model.graph.input[0].name: x})
    got = calculated(core, tmp_path, x)
    assert float(np.abs(got - expected).max() / np.abs(expected).max()) < tolerance(f"compiled-{precision}").max_rel


def test_no_choices_change_nothing(target, builder):
    model = branchy(builder())
    tuned = with_choices(target, {})
    assert lower(model, tuned) == lower(model, target)
    assert tuned.used == {}


def test_a_spec_s_operands_are_as_large_as_what_the_network_hands_over(target, builder):
    network = layers_for(branchy(builder()), target)
    for layer in network.layers:
        schedule = target.schedule(layer.spec)
        given = [
            pack(operand, layer, schedule, target).nbytes if isinstance(operand, Param) else operand[0].bytes
            for operand in layer.operands
        ]
        written = [storage.bytes for storage in layer.writes]
        assert [operand.bytes for operand in layer.spec.operands] == [*given, *written], layer.spec
    assert len({type(layer.spec) for layer in network.layers}) >= 4
