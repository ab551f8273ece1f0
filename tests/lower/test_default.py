"""Operators without a kernel of ours: TVM's default computes them, the Plan says so, and what nobody can do is a clear error."""

from __future__ import annotations

import os
import subprocess
import sys

import onnx
import pytest
from onnx import TensorProto, helper

from inception_deploy.errors import DeployError
from inception_deploy.lower.lower import lower

# what is tested here does not depend on the vector width
pytestmark = pytest.mark.parametrize("target", ["avx2"], indirect=True)


def ints(b, *values):
    return b.constant(list(values), "int64")


def every(b):
    """One output of each of many operators, of an image of odd sizes."""
    x = b.input(2, 5, 6, 7)
    return {
        "Transpose": b.op("Transpose", x, perm=[0, 2, 3, 1]),
        "Slice": b.op("Slice", x, ints(b, 1), ints(b, 5), ints(b, 3), ints(b, 2)),
        "Pad": b.op("Pad", x, ints(b, 0, 0, 1, 0, 0, 0, 2, 1), mode="reflect"),
        "ConvTranspose": b.op(
            "ConvTranspose",
            x,
            b.weight(5, 4, 3, 3),
            b.weight(4),
            strides=[2, 2],
            pads=[1, 1, 1, 1],
            output_padding=[1, 0],
        ),
        "InstanceNormalization": b.op(
            "InstanceNormalization", b.op("Reshape", x, ints(b, 2, 5, 42)), b.weight(5), b.weight(5)
        ),
        "LayerNormalization": b.op("LayerNormalization", x, b.weight(6, 7), b.weight(6, 7), axis=2),
        "ReduceL2": b.op("ReduceL2", x, ints(b, 1)),
        "ReduceSum": b.op("ReduceSum", x, ints(b, 3), keepdims=0),
        "Softmax": b.op("Softmax", x, axis=1),
        "MatMul": b.op("MatMul", x, b.weight(5, 7, 3)),
        "Tile": b.op("Tile", x, ints(b, 1, 1, 2, 1)),
        "Floor": b.op("Floor", x),
        "Celu": b.op("Celu", x, alpha=2.0),  # Relax does not know it; ONNX defines it by operators that it does
    }


def test_default_operators(compiled, builder):
    b = builder()
    made = compiled(b.model(*(outputs := every(b)).values()))
    made.check(*b.inputs.values())
    assert [r.op for r in made.plan.refusals] == list(outputs)
    reasons = {r.op: r.reason for r in made.plan.refusals}
    assert reasons["Tile"] == "there is no kernel of ours for Tile"
    assert reasons["Softmax"] == "axis 1 of 4 is not the last"
    assert reasons["MatMul"] == "the second operand has 3 axes, not 2"
    assert {s.op for s in made.plan.steps} == {"extern"}


def test_between_kernels_of_ours(compiled, builder):
    """Packed and unpacked once, however many read it."""
    b = builder()
    x = b.conv(b.input(2, 3, 6, 6), 3, 20)
    small = [b.op("LRN", x, size=n) for n in (3, 5)]
    y = b.op("Add", b.conv(small[0], 20, 8, (1, 1)), b.conv(small[0], 20, 8, (1, 1)))
    made = compiled(b.model(b.op("Relu", y), small[1]))
    made.check(*b.inputs.values())
    kinds = [s.op for s in made.plan.steps]
    assert (kinds.count("pack"), kinds.count("unpack")) == (1, 2)


def test_values_that_are_no_floats(compiled, builder):
    """Indices and truth values, computed at run time, as inputs and as outputs."""
    b = builder()
    x, index = b.input(3, 5, 4), b.input(2, dtype="int64", high=3)
    best = b.op("ArgMax", x, axis=1)
    large = b.op("Greater", x, b.constant(0.2))
    picked = b.op("Gather", x, index, axis=0)
    chosen = b.op("Where", large, x, b.constant(-1.0))
    whole = b.op("Cast", chosen, to=TensorProto.INT32)
    twice = b.op("Add", whole, b.constant(2, "int32"))
    made = compiled(b.model(best, large, picked, chosen, twice, b.op("Cast", twice, to=TensorProto.FLOAT)))
    made.check(*b.inputs.values())
    assert [(p.name, p.dtype) for p in made.plan.inputs] == [("x0", "float32"), ("x1", "int64")]
    assert [p.dtype for p in made.plan.outputs] == ["int64", "bool", "float32", "float32", "int32", "float32"]
    assert "'where" not in str(made.plan.refusals)
    assert ("Add", f"'{whole}' is int32, not float32") in [(r.op, r.reason) for r in made.plan.refusals]


def test_a_concat_of_any_number(compiled, builder):
    b = builder()
    x = b.input(1, 2, 5)
    parts = [b.op("Add", x, b.constant(float(i))) for i in range(20)]
    made = compiled(b.model(b.op("Concat", *parts, axis=2)))
    made.check(*b.inputs.values())
    assert [r.op for r in made.plan.refusals].count("Concat") == 1
    assert max(len(step.args) for step in made.plan.steps) == 21


def test_several_outputs(compiled, builder):
    b = builder()
    x = b.input(2, 5, 6)
    first, _, third = b.op("Split", x, ints(b, 1, 2, 3), outputs=3, axis=2)
    made = compiled(b.model(b.op("Softmax", third, axis=-1), first))
    made.check(*b.inputs.values())
    assert [r.reason for r in made.plan.refusals if r.op == "Split"] == ["splits axis 2 of 3, not the channels"]


def test_scratch_is_in_the_arena(compiled, builder):
    """Between the loops of one operator lies a tensor: as large as the image, and not on the stack."""
    b = builder()
    made = compiled(b.model(b.op("LRN", b.input(1, 64, 100, 100), size=5)))
    made.check(*b.inputs.values())
    assert made.plan.arena_bytes >= 4 * 64 * 100 * 100
    assert len(made.plan.steps) > 1


def test_independent_iterations_are_units(builder, target):
    b = builder()
    plan = lower(b.model(b.op("LRN", b.input(1, 8, 10, 12), size=5)), target)
    assert {kernel.units for kernel in plan.kernels.values()} & {8 * 10, 8 * 10 * 12}
    for shape, other, units in [
        ((1, 6, 5), (2, 5, 7), 2 * 6),
        ((1, 6, 5), (2, 5, 48), 2 * 2 * 3),
        ((1, 6, 5), (2, 5, 8), 2 * 2),
    ]:
        b = builder()
        plan = lower(b.model(b.op("MatMul", b.input(*shape), b.input(*other))), target)
        assert [k.units for k in plan.kernels.values() if getattr(k.spec, "function", "")] == [units]


def test_equal_nodes_share_kernels(builder, target):
    b = builder()
    x = b.input(1, 4, 6, 6)
    y = b.op("LRN", b.op("LRN", x, size=3), size=3)
    plan = lower(b.model(y), target)
    assert len(plan.kernels) * 2 == len(plan.steps)


def test_in_a_fresh_process(builder, target, tmp_path):
    """The importer is loaded only for a node that needs it. A kernel's name is its content's digest, so a function's text
    must not depend on hash seeds or addresses.
    """
    ours = builder()
    onnx.save(ours.model(ours.op("Tanh", ours.input(1, 16))), str(tmp_path / "ours.onnx"))
    b = builder()
    model = b.model(*every(b).values())
    onnx.save(model, str(tmp_path / "model.onnx"))
    code = f"""
import sys, onnx
from inception_deploy import targets
from inception_deploy.lower.lower import lower
target = targets.parse({target.name!r})
lower(onnx.load({str(tmp_path / "ours.onnx")!r}), target)
assert "tvm.relax.frontend.onnx" not in sys.modules
print(*lower(onnx.load({str(tmp_path / "model.onnx")!r}), target).kernels)"""
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == list(lower(model, target).kernels)


def test_constants_are_folded_on_the_way(compiled, builder):
    """What depends on constants alone becomes one; nothing of it is refused."""
    b = builder()
    x = b.input(2, 3, 4)
    size = b.op("Shape", x)
    last = b.op("Gather", size, ints(b, 2))
    flat = b.op("Reshape", x, b.op("Concat", ints(b, -1), last, axis=0))
    floor = b.op("Floor", b.constant([1.5, -0.5, 2.0, 3.7]))
    b.nodes.append(helper.make_node("Constant", [], ["two"], value_float=2.0, name="two"))
    made = compiled(b.model(b.op("Mul", b.op("Mul", flat, floor), "two")))
    made.check(*b.inputs.values())
    assert not made.plan.refusals


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda b: [b.op("NonZero", b.input(3, 3))], r"the shape of 'nonzero0_0' is not fixed|NonZero"),
        (lambda b: [b.op("Multinomial", b.input(1, 4), sample_size=2, dtype=6)], r"node 'Multinomial_0' \(Multinomial\) cannot be compiled"),
    ],
)  # fmt: skip
def test_what_nobody_can_do(builder, target, make, message):
    b = builder()
    outputs = make(b)
    with pytest.raises(DeployError, match=message) as caught:
        lower(b.model(*outputs), target)
    assert caught.value.exit_code == 1


def test_control_flow(builder, target):
    b = builder()
    x, condition = b.input(1, 4), b.input(1, dtype="bool", high=2)
    y = helper.make_tensor_value_info("y", 1, (1, 4))
    branches = [helper.make_graph([helper.make_node(op, [x], ["y"])], op, [], [y]) for op in ("Relu", "Tanh")]
    z = b.op("If", condition, then_branch=branches[0], else_branch=branches[1])
    with pytest.raises(DeployError, match=r"node 'If_0' \(If\) cannot be compiled"):
        lower(b.model(z), target)


def test_what_nobody_reads_is_not_compiled(builder, target):
    b = builder()
    x = b.input(1, 16)
    b.op("NonZero", x)
    plan = lower(b.model(b.op("Tanh", x)), target)
    assert [s.op for s in plan.steps] == ["tanh"]


def test_an_operator_of_another_domain(builder, target):
    b = builder()
    x = b.input(1, 4)
    node = helper.make_node("Frobnicate", [x], ["y"], domain="com.example", name="odd")
    graph = helper.make_graph(
        [node], "g", [helper.make_tensor_value_info(x, 1, (1, 4))], [helper.make_tensor_value_info("y", 1, (1, 4))]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20), helper.make_opsetid("com.example", 1)])
    with pytest.raises(DeployError, match=r"node 'odd' \('com.example.Frobnicate'\) cannot be compiled") as caught:
        lower(model, target)
    assert (caught.value.kind, caught.value.got) == ("operator", "Frobnicate")


def test_text_cannot_be_compiled(target):
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.STRING, (2,))],
        [helper.make_tensor_value_info("y", TensorProto.STRING, (2,))],
    )
    with pytest.raises(DeployError, match="'x' has a type that cannot be compiled: string"):
        lower(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), target)


def test_shapes_must_be_fixed(target):
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", 1, ("batch", 3))],
        [helper.make_tensor_value_info("y", 1, ("batch", 3))],
    )
    with pytest.raises(DeployError, match="the shape of 'x' is not fixed"):
        lower(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), target)


def test_all_that_nobody_can_do_is_listed(builder, target):
    b = builder()
    x = b.op("Multinomial", b.input(1, 4), sample_size=2, dtype=6)
    y = b.op("Abs", b.op("RandomNormalLike", b.op("Cast", x, to=1)))
    with pytest.raises(
        DeployError, match=r"node 'Multinomial_0' .*; nor can be: RandomNormalLike \(RandomNormalLike_2\)"
    ) as caught:
        lower(b.model(y), target)
    assert caught.value.got == ["Multinomial", "RandomNormalLike"]
