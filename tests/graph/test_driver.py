"""The list of passes, and the loop that answers for it."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import onnx_ir as ir
import pytest

from inception_deploy.errors import DeployError, UsageError
from inception_deploy.graph.driver import KINDS, PASSES, Pass, optimise, passes_for

BLOCK = """(float[2,8,9,9] x, float[8,8,1,1] w1, float[6,8,1,1] w2, float[6,8,1,1] w3, float[8,12,1,1] w4, float[8] b4,
    float[8] gamma, float[8] beta, float[8] mean, float[8] var, float[1] scale) => (float[n,c,h,w] y)
    { i = Identity(x)  c = Conv(i, w1)  n = BatchNormalization(c, gamma, beta, mean, var)  r = Relu(n)
      p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1]>(r)  a = Conv(p, w2)  b = Conv(r, w3)
      j = Concat<axis=1>(a, b)  l = Conv(j, w4, b4)  m = Mul(l, scale)  s = Add(m, r)  y = Relu(s) }"""


def test_a_residual_inception_block_becomes_its_convolutions(build, operators) -> None:
    model = build(BLOCK)
    before = model.SerializeToString()
    optimised, effects = optimise(model)
    assert model.SerializeToString() == before
    assert operators(optimised) == ["Conv", "Relu", "Conv", "AveragePool", "Conv", "Concat", "Conv", "Add", "Relu"]
    fired = {effect.name: effect.fired for effect in effects if effect.fired}
    assert fired == {"remove_noops": 1, "fold_batchnorm": 1, "fold_affine": 1, "commute_pool": 1}
    assert [effect.name for effect in effects] == [entry.name for entry in passes_for("cpu")]
    for earlier, later in pairwise(effects):
        assert (earlier.nodes_after, earlier.macs_after) == (later.nodes_before, later.macs_before)
        assert later.seconds >= 0
    assert effects[0].as_dict()["name"] == effects[0].name


def test_the_same_input_gives_the_same_bytes(build) -> None:
    first, second = (optimise(build(BLOCK), verify=False)[0] for _ in range(2))
    assert first.SerializeToString() == second.SerializeToString()


def test_optimising_twice_changes_nothing(build) -> None:
    once, _ = optimise(build(BLOCK))
    twice, effects = optimise(once)
    assert not any(effect.fired for effect in effects)
    assert twice.SerializeToString() == once.SerializeToString()


def test_progress_hears_every_pass(build) -> None:
    heard: list[str] = []
    optimise(build(BLOCK), verify=False, progress=heard.append)
    assert heard == [entry.name for entry in passes_for("cpu")]


def test_the_table_of_passes() -> None:
    names = [entry.name for entry in PASSES]
    assert len(set(names)) == len(names)
    for entry in PASSES:
        assert entry.why_here
        assert "Given" in (entry.run.__doc__ or ""), f"{entry.name} does not state what it takes and gives"
    for kind in KINDS:
        assert {entry.name for entry in PASSES} - {p.name for p in passes_for(kind)} == {
            entry.name for entry in PASSES if kind in entry.off
        }
    assert passes_for("cuda:sm_90") == passes_for("cuda")


def test_a_pass_for_an_unknown_kind_cannot_be_written() -> None:
    with pytest.raises(ValueError, match="unknown kinds"):
        Pass(PASSES[0].run, "first", off={"tpu": "no"})


def test_an_unknown_target_is_a_usage_error(build) -> None:
    with pytest.raises(UsageError, match="unknown target kind 'tpu'"):
        optimise(build(BLOCK), target="tpu:v5")


def test_a_pass_that_changes_numbers_is_named(build) -> None:
    def double_a_weight(model: ir.Model) -> int:
        value = model.graph.initializers["w4"]
        assert value.const_value is not None
        value.const_value = ir.tensor(value.const_value.numpy() * 2, name="w4")
        return 1

    passes = [*passes_for("cpu")[:3], Pass(double_a_weight, "to be caught")]
    with pytest.raises(DeployError, match="double_a_weight changed the numbers: relative error"):
        optimise(build(BLOCK), passes=passes)


def test_a_pass_that_breaks_the_graph_is_named(build) -> None:
    def lose_a_node(model: ir.Model) -> int:
        model.graph.remove(model.graph[3])
        return 1

    with pytest.raises(DeployError, match="not valid after pass lose_a_node"):
        optimise(build(BLOCK), passes=[Pass(lose_a_node, "to be caught")])


@pytest.mark.parametrize(
    "body",
    [
        "m = ReduceMean<keepdims=0>(x, axes)  y = BatchNormalization(x, gamma, beta, m, var)",
        "y, m, v = BatchNormalization<training_mode=1>(x, gamma, beta, mean, var)",
    ],
)
def test_a_batchnorm_that_cannot_be_folded_is_an_error(build, body) -> None:
    text = """(float[2,8,9,9] x, float[8] gamma, float[8] beta, float[8] mean, float[8] var, int64[3] axes)
        => (float[n,c,h,w] y) """
    with pytest.raises(DeployError, match="batch normalisation cannot be folded"):
        optimise(build(f"{text} {{ {body} }}", axes=np.array([0, 2, 3], np.int64)))


def test_merging_siblings_gives_the_same_numbers_in_the_whole_list(build, operators) -> None:
    chosen = [Pass(entry.run, entry.why_here) for entry in PASSES]
    optimised, effects = optimise(build(BLOCK), passes=chosen)
    assert {effect.name: effect.fired for effect in effects}["merge_siblings"] == 1
    assert "Split" in operators(optimised)
