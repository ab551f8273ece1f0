"""Operators that are written by others: the formula is theirs."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from inception_deploy.graph.skeleton import check
from inception_deploy.graph.spell import spell_out

HEAD = "(float[2,8,5,6] x, float[8] s, float[8] b, float[8] m, float[8] var) => (float[n,c,h,w] y) "


@pytest.mark.parametrize(
    "text",
    [
        "y = LpNormalization<axis=1>(x)",
        "y = LpNormalization<axis=2, p=1>(x)",
        "y = MeanVarianceNormalization<axes=[0,2]>(x)",
        "y = GroupNormalization<num_groups=4>(x, s, b)",
        "y, q, r = BatchNormalization<training_mode=1>(x, s, b, m, var)",
    ],
)
def test_it_is_written_by_others(check_pass, build, text) -> None:
    check_pass.fires(spell_out, build(f"{HEAD} {{ {text} }}", opset=21))


def test_statistics_that_the_network_computes(check_pass, build, operators) -> None:
    text = "t = ReduceMean<keepdims=0>(x, a)  y = BatchNormalization(x, s, b, t, var)"
    head = HEAD.replace("float[8] var)", "float[8] var, int64[3] a)")
    model = build(f"{head} {{ {text} }}", a=np.array([0, 2, 3], np.int64))
    assert "BatchNormalization" not in operators(check_pass.fires(spell_out, model))


def test_running_statistics_that_are_read(check_pass, build) -> None:
    text = "y, q, r = BatchNormalization<training_mode=1, momentum=0.75>(x, s, b, m, var)  z = Add(q, r)"
    head = HEAD.replace("(float[n,c,h,w] y)", "(float[n,c,h,w] y, float[k] z)")
    check_pass.fires(spell_out, build(f"{head} {{ {text} }}"))


@pytest.mark.parametrize("text", ["y = BatchNormalization(x, s, b, m, var)", "y = LRN<size=3>(x)"])
def test_others_stay(check_pass, build, text) -> None:
    check_pass.silent(spell_out, build(f"{HEAD} {{ {text} }}"))


def test_a_group_norm_of_groups_needs_no_rank(build) -> None:
    """Opset 18 has a scale a group, and onnx calls it deprecated: it goes before anything asks onnx."""
    text = "(float[2,8,5,6] x, float[4] s, float[4] b) => (float[n,c,h,w] y) { y = Relu(x) }"
    model = ir.from_proto(build(text, opset=18))
    relu = model.graph[0]
    scale, bias = (model.graph.initializers[name] for name in "sb")
    y = ir.Value(name="y")
    node = ir.node("GroupNormalization", [relu.inputs[0], scale, bias], attributes={"num_groups": 4}, outputs=[y])
    model.graph.append(node)
    model.graph.outputs[0] = y
    relu.outputs[0].name = "unread"
    assert spell_out(model) == 1
    check(model)
    assert tuple(model.graph.outputs[0].shape.numpy()) == (2, 8, 5, 6)
