"""The QDQ model: valid, the same bytes each time, integer where it says so, and what onnxruntime computes is what it means."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
import pytest
from numpy.typing import NDArray

from inception_deploy.errors import DeployError, UsageError
from inception_deploy.graph.rewrite import constant, ints
from inception_deploy.ortsession import session_options
from inception_deploy.quantize import arith
from inception_deploy.quantize.insert import SCHEME_KEY, settle_ties
from inception_deploy.quantize.integer_network import IntegerNetwork, float_nodes, read, reference
from inception_deploy.quantize.integer_steps import IntegerStep
from inception_deploy.quantize.prepare import prepare
from inception_deploy.quantize.quantizer import QuantizedModel, quantize
from inception_deploy.quantize.scheme import SCHEMES, Choices, Params, scheme
from inception_deploy.quantize.share import share
from inception_deploy.quantize.structure import analyse
from inception_deploy.sources import capture
from inception_deploy.verify import bound, run_onnx

Make = Callable[..., NDArray[np.float32]]
NETWORKS = ("branchy", "tables", "depthwise", "gated")


def shape_of(model: onnx.ModelProto) -> tuple[int, ...]:
    return tuple(size.dim_value for size in model.graph.input[0].type.tensor_type.shape.dim)


@pytest.fixture(params=NETWORKS)
def network(request: pytest.FixtureRequest) -> onnx.ModelProto:
    return request.getfixturevalue(request.param)


def int8(model: onnx.ModelProto, inputs: Make, **changes: Any) -> QuantizedModel:
    return quantize(model, inputs(shape_of(model)[1:]), threads=1, **changes)


def watched(model: onnx.ModelProto, feed: NDArray[np.float32], *, optimised: bool) -> dict[str, NDArray[Any]]:
    """Every quantized tensor and the output, as onnxruntime computes them."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    types = {t.name: t.data_type for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            copy.graph.output.append(onnx.helper.make_tensor_value_info(node.output[0], types[node.input[2]], None))
    options = session_options(1)
    if not optimised:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(copy.SerializeToString(), options)
    names = [value.name for value in copy.graph.output]
    return dict(zip(names, session.run(names, {model.graph.input[0].name: feed}), strict=True))


def snr(reference: NDArray[Any], got: NDArray[Any]) -> float:
    return float(10 * np.log10((reference**2).sum() / ((reference - got) ** 2).sum()))


@pytest.mark.parametrize("name", sorted(SCHEMES))
def test_it_is_valid_and_near_and_has_the_same_bytes(name: str, network: onnx.ModelProto, inputs: Make) -> None:
    result = int8(network, inputs, scheme=name)
    onnx.checker.check_model(result.model, full_check=True)
    feed = inputs(shape_of(network)[1:], shape_of(network)[0], seed=5)
    expected = run_onnx(network, {"x": feed})[0]
    assert snr(expected, run_onnx(result.model, {"x": feed})[0]) > (20 if "tensor" not in name else 12)
    again = int8(network, inputs, scheme=name)
    assert result.model.SerializeToString(deterministic=True) == again.model.SerializeToString(deterministic=True)
    assert result.float_nodes == ()


def ties(step_kind: str) -> int:
    """How far a byte may be off where the sum before it was already one apart or at a tie."""
    return {"mean": 1, "table": 1, "mul": 1}.get(step_kind, 0)


def test_float_scale_means_what_onnxruntime_computes(network: onnx.ModelProto, inputs: Make) -> None:
    """Each step on onnxruntime's own bytes gives onnxruntime's own bytes. A mean of four is at a tie once in four, and
    there onnxruntime's float32 division falls to either side; no other operator may differ."""
    result = int8(network, inputs, scheme="float-scale")
    meaning = read(result.model)
    feed = inputs(shape_of(network)[1:], shape_of(network)[0], seed=6)
    for optimised in (False, True):
        seen = watched(result.model, feed, optimised=optimised)
        for step, got, expected in replay(meaning, seen, feed):
            difference = np.abs(got.astype(int) - expected.astype(int))
            assert difference.max() <= ties(step.kind), step.name


def test_powers_of_two_differ_from_the_float_graph_at_ties_only(branchy: onnx.ModelProto, inputs: Make) -> None:
    """The graph in float32 rounds ties to even, a shift rounds them up: bytes differ by at most one, upwards."""
    result = int8(branchy, inputs, scheme="power-of-two")
    meaning = read(result.model)
    assert meaning.power_of_two
    feed = inputs((3, 12, 12), 1, seed=6)
    total = differing = 0
    for step, got, expected in replay(meaning, watched(result.model, feed, optimised=False), feed):
        difference = got.astype(int) - expected.astype(int)
        # A mean multiplies by a rounded 1 / count, which decides a tie either way.
        assert difference.min() >= (-1 if step.kind == "mean" else 0), step.name
        assert difference.max() <= 1, step.name
        total, differing = total + got.size, differing + int(np.count_nonzero(difference))
    assert differing < 0.1 * total


def replay(meaning: IntegerNetwork, seen: dict[str, NDArray[Any]], feed: NDArray[np.float32]) -> Any:
    """Every integer step computed from what onnxruntime had before it: (step, our bytes, onnxruntime's bytes)."""
    for step in meaning.steps:
        if step.kind in ("quantize", "dequantize") or step.output is None:
            continue
        values = {tensor.name: seen[tensor.name] for tensor in step.inputs}
        meaning.execute(step, values)
        yield step, values[step.output.name], seen[step.output.name]


def test_the_whole_integer_network_runs_and_is_near(branchy: onnx.ModelProto, inputs: Make) -> None:
    feed = inputs((3, 12, 12), 1, seed=8)
    for name in ("float-scale", "power-of-two"):
        result = int8(branchy, inputs, scheme=name)
        got = read(result.model).run({"x": feed})["y"]
        assert snr(run_onnx(branchy, {"x": feed})[0], got) > 20


def test_onnxruntime_has_no_float_operator_left(branchy: onnx.ModelProto, inputs: Make, tmp_path: Any) -> None:
    result = int8(branchy, inputs)
    options = ort.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 4
    ort.InferenceSession(result.model.SerializeToString(), options)
    left = [node.op_type for node in onnx.load(tmp_path / "optimised.onnx").graph.node]
    floating = {"Conv", "FusedConv", "Gemm", "Add", "Concat", "Relu", "AveragePool", "GlobalAveragePool"}
    assert floating.isdisjoint(left), left
    assert left.count("DequantizeLinear") == 0
    assert left.count("QuantizeLinear") == 1


def params_of(model: onnx.ModelProto) -> dict[str, Params]:
    steps = read(model).steps
    tensors = [tensor for step in steps for tensor in (*step.inputs, step.output) if tensor is not None]
    return {tensor.name.removesuffix("/q"): tensor.params for tensor in tensors}


@pytest.mark.parametrize("name", ["float-scale", "power-of-two"])
def test_what_must_share_a_scale_does(name: str, branchy: onnx.ModelProto, inputs: Make) -> None:
    shared = params_of(int8(branchy, inputs, scheme=name).model)
    assert shared["r1"] == shared["r2"] == shared["j"] == shared["m"]
    assert shared["ra"] == shared["p"]
    assert shared["g"] == shared["f"]
    assert shared["g"].scale < shared["p"].scale or name == "power-of-two"  # the mean over the map has a smaller range
    ratio = np.log2(shared["m"].scale / shared["c3"].scale)
    assert ratio == int(ratio) >= 0 or name == "power-of-two"
    own = params_of(int8(branchy, inputs, scheme=name, choices=Choices("own", "own", "own", "own")).model)
    assert len({own[value].scale for value in ("r1", "r2", "j", "m")}) > (1 if name == "float-scale" else 0)


def test_a_concat_that_shares_one_scale_moves_bytes_only(branchy: onnx.ModelProto, inputs: Make) -> None:
    values = read(int8(branchy, inputs).model).run({"x": inputs((3, 12, 12), 1)})
    np.testing.assert_array_equal(values["j/q"], np.concatenate([values["r1/q"], values["r2/q"]], axis=1))


@pytest.mark.parametrize(
    "choice", [{"concat": "own"}, {"add": "own"}, {"average": "input"}, {"average": "own"}, {"moves": "own"}]
)
@pytest.mark.parametrize("name", ["float-scale", "power-of-two"])
def test_every_switch_gives_a_model_that_runs_in_integers(
    choice: dict[str, Any], name: str, branchy: onnx.ModelProto, inputs: Make
) -> None:
    result = int8(branchy, inputs, scheme=name, choices=Choices(**choice))
    feed = inputs((3, 12, 12), 1, seed=8)
    expected = run_onnx(branchy, {"x": feed})[0]
    assert snr(expected, run_onnx(result.model, {"x": feed})[0]) > 20
    assert snr(expected, read(result.model).run({"x": feed})["y"]) > 20


def test_powers_of_two_never_shift_left(branchy: onnx.ModelProto, inputs: Make) -> None:
    for step in read(int8(branchy, inputs, scheme="power-of-two").model).steps:
        if step.kind == "linear" and step.output is not None:
            assert step.linear is not None
            exponents = np.log2(step.linear.scale)
            shifts = step.output.params.exponent - step.inputs[0].params.exponent - exponents
            assert ((shifts >= 0) & (shifts <= 24) & (shifts == np.round(shifts))).all()


RESIDUAL = """(float[1,4,6,6] x, float[8,4,1,1] w0, float[8] b0, float[8,8,1,1] w1, float[8] b1, float[3,8] fc)
=> (float[1,3] y) { c0 = Conv(x, w0, b0) c1 = Conv(c0, w1, b1) a = Add(c0, c1) r = Relu(a)
g = GlobalAveragePool(r) f = Flatten(g) y = Gemm<transB=1>(f, fc) }"""


@pytest.mark.parametrize("shift", [0, 1, 2])
def test_the_mean_of_ties_that_go_up_is_taken_from_the_bias_before(shift: int, build: Any) -> None:
    model = prepare(build(RESIDUAL))
    structure = analyse(model)
    exponents = {"c0": -5, "c1": -6, "r": -6 + shift}
    params = {v: Params(2.0 ** exponents.get(v.name or "", -4), 0, "int8") for v in structure.values}
    biases = [constant(layer.nodes[0].inputs[2]) for layer in structure.layers[:2]]
    assert settle_ties(structure, params) == (1 if shift else 0)
    sums = np.arange(-64, 64)
    excess = float((arith.requantize_shift(sums, shift) - sums / 2**shift).mean())  # what arith does, in steps
    first, second = (constant(layer.nodes[0].inputs[2]) for layer in structure.layers[:2])
    np.testing.assert_array_equal(first, biases[0])  # two read its result
    np.testing.assert_allclose(second, biases[1] - excess * 2.0 ** exponents["r"], rtol=bound("rounding"))
    assert (excess > 0) == (shift > 0)


BOTH = """(float[1,4,6,6] x, float[8,4,1,1] w0, float[8] b0, float[8,4,1,1] w1, float[8] b1, float[6,8,3,3] w2,
float[6,8,1,1] w3, float[3,6] fc) => (float[1,3] y) { c0 = Conv(x, w0, b0) r0 = Relu(c0) c1 = Conv(x, w1, b1)
p = MaxPool<kernel_shape=[3,3], pads=[1,1,1,1]>(r0) a = Add(c1, p) r = Relu(a) c2 = Conv<pads=[1,1,1,1]>(r, w2)
c3 = Conv(r, w3) s = Add(c2, c3) t = Relu(s) g = GlobalAveragePool(t) f = Flatten(g) y = Gemm<transB=1>(f, fc) }"""


@pytest.mark.parametrize("name", ["power-of-two", "power-of-two-tensor"])
@pytest.mark.parametrize("text", [RESIDUAL, BOTH])
def test_an_add_in_the_accumulator_rounds_once(name: str, text: str, build: Any, inputs: Make) -> None:
    model = build(text)
    result = int8(model, inputs, scheme=name, choices=Choices(add="accumulator"))
    meaning = read(result.model)
    fused = [step for step in meaning.steps if step.shortcut is not None]
    assert [step.name for step in fused] == (["conv1"] if text is RESIDUAL else ["conv2", "conv7"])
    assert "add" not in [step.kind for step in meaning.steps]
    assert meaning.float_nodes == []
    for step in fused:  # the shortcut is there before the sum is
        assert [node.op_type for node in step.nodes] == ["Conv", "Add", "Relu"]
        assert step.shortcut_shifts.min() >= 0
    feed = inputs((4, 6, 6), 1, seed=8)
    values = meaning.run({"x": feed})
    step = fused[-1]
    assert step.output is not None
    acc = arith.convolve(values[step.inputs[0].name], step.linear.weight, step.linear.bias, pads=pads_of(step))
    total = acc + (values[step.inputs[1].name].astype(int) << step.shortcut_shifts.reshape(-1, 1, 1))
    half = (1 << step.shifts.astype(int) >> 1).reshape(-1, 1, 1)
    expected = np.clip((total + half) >> step.shifts.reshape(-1, 1, 1), 0, 127)
    np.testing.assert_array_equal(values[step.output.name], expected)
    assert snr(run_onnx(model, {"x": feed})[0], values["y"]) > (20 if name == "power-of-two" else 12)
    for one, got, seen in replay(meaning, watched(result.model, feed, optimised=True), feed):
        difference = got.astype(int) - seen.astype(int)
        assert np.abs(difference).max() <= 1, one.name


def pooled_text(first: str, counted: int, bias: bool, pads: int = 1, activation: str = "Relu") -> str:
    given = ", float[6] b" if bias else ""
    conv, pool = (
        f"Conv({{}}, w{', b' if bias else ''})",
        (f"AveragePool<kernel_shape=[3,3], pads=[{pads},{pads},{pads},{pads}], count_include_pad={counted}>({{}})"),
    )
    one, two = (pool, conv) if first == "pool" else (conv, pool)
    return (
        f"(float[1,3,7,6] x, float[10,3,3,3] w0, float[10] b0, float[6,10,1,1] w{given}, float[3,6] fc) => (float[1,3] y)"
        f"{{ c0 = Conv<pads=[1,1,1,1]>(x, w0, b0) r0 = Relu(c0) m = {one.format('r0')} p = {two.format('m')}"
        f" a = {activation}(p) g = GlobalAveragePool(a) f = Flatten(g) y = Gemm<transB=1>(f, fc) }}"
    )


POOLED = [("pool", 0, True), ("pool", 1, True), ("conv", 0, True), ("conv", 1, False), ("pool", 0, False)]


@pytest.mark.parametrize("name", ["power-of-two", "power-of-two-tensor"])
@pytest.mark.parametrize(("first", "counted", "bias"), POOLED)
def test_an_average_is_summed_behind_its_convolution(
    name: str, first: str, counted: int, bias: bool, build: Any, inputs: Make
) -> None:
    model = build(pooled_text(first, counted, bias))
    result = int8(model, inputs, scheme=name, choices=Choices(average="summed"))
    meaning = read(result.model)
    (step,) = (step for step in meaning.steps if step.kind == "pooled")
    assert [node.op_type for node in step.nodes] == ["AveragePool", "Conv", "Relu"]
    assert meaning.float_nodes == []
    assert step.output is not None
    assert step.linear is not None
    feed = inputs((3, 7, 6), 1, seed=8)
    values = meaning.run({"x": feed})
    # each window by itself, in whole numbers
    x = np.pad(values[step.inputs[0].name].astype(int), ((0, 0), (0, 0), (1, 1), (1, 1)))
    weight = step.linear.weight[:, :, 0, 0].astype(int)
    total = np.zeros(weight.shape[0], int) if step.linear.bias is None else step.linear.bias.astype(int)
    for i, j in np.ndindex(7, 6):
        count = 9 if counted else (3 - (i in (0, 6))) * (3 - (j in (0, 5)))
        times, bits = {9: (1, 0), 6: (3, 1), 4: (9, 2)}[count]
        acc = times * (weight @ x[0, :, i : i + 3, j : j + 3].sum((1, 2))) + total * 2**bits
        shift = step.shifts.astype(int) + bits
        expected = np.clip((acc + (1 << shift >> 1)) >> shift, 0, 127)
        np.testing.assert_array_equal(values[step.output.name][0, :, i, j], expected)
    assert snr(run_onnx(model, {"x": feed})[0], values["y"]) > (20 if name == "power-of-two" else 12)
    for one, got, seen in replay(meaning, watched(result.model, feed, optimised=True), feed):
        assert np.abs(got.astype(int) - seen.astype(int)).max() <= 1, one.name


@pytest.mark.parametrize("counted", [0, 1])
def test_where_windows_count_alike_they_are_summed(counted: int, build: Any, inputs: Make) -> None:
    model = build(pooled_text("pool", counted, True))
    alike, summed, window = (
        int8(model, inputs, scheme="power-of-two", choices=Choices(average=average)).model
        for average in ("alike", "summed", "window")
    )
    assert alike.graph == (summed if counted else window).graph


@pytest.mark.parametrize("counted", [0, 1])
def test_what_a_target_cannot_weigh_is_told_as_float(counted: int, build: Any, inputs: Make) -> None:
    model = build(pooled_text("pool", counted, True))
    made = int8(model, inputs, scheme="power-of-two", choices=Choices(average="summed")).model
    assert share(made).floats == ()
    without = share(made, borders=False)
    assert [one.op for one in without.floats] == ([] if counted else ["AveragePool", "Conv", "Relu"])
    assert (without.percent < 100) == (not counted)


@pytest.mark.parametrize(
    "text",
    [
        pooled_text("conv", 1, True),  # a bias that counted padding would take with it
        pooled_text("conv", 0, True, activation="Tanh"),  # what is between has a name of its own
        pooled_text("pool", 0, True).replace("kernel_shape=[3,3], pads=[1,1,1,1]", "kernel_shape=[5,5], pads=[2,2,2,2]"),
        pooled_text("pool", 0, True).replace("pads=[1,1,1,1], count", "pads=[1,1,1,1], strides=[2,2], count"),
    ],
    ids=["bias", "tanh", "fifths", "stride"],
)  # fmt: skip
def test_an_average_that_cannot_be_summed_so_is_pooled_as_ever(text: str, build: Any, inputs: Make) -> None:
    model = build(text)
    plain = int8(model, inputs, scheme="power-of-two").model
    summed = int8(model, inputs, scheme="power-of-two", choices=Choices(average="summed")).model
    assert summed.SerializeToString(deterministic=True) == plain.SerializeToString(deterministic=True)


def test_sums_of_windows_stay_inside_int32(build: Any, inputs: Make) -> None:
    model = build(
        pooled_text("pool", 0, True),
        w=np.full((6, 10, 1, 1), 1e-6, np.float32),
        b=np.array([0, 1e4, -1e4, 1e-3, 5, -5], np.float32),
    )
    result = int8(model, inputs, scheme="power-of-two", choices=Choices(average="summed"))
    feed = inputs((3, 7, 6), 1, seed=3)
    assert snr(run_onnx(model, {"x": feed})[0], read(result.model).run({"x": feed})["y"]) > 30


def pads_of(step: IntegerStep) -> list[int]:
    return ints(step.nodes[0], "pads", [0] * 4)


def test_a_shortcut_finer_than_the_accumulators_is_added_as_ever(build: Any, inputs: Make) -> None:
    tiny = {"w0": np.full((8, 4, 1, 1), 1e-4, np.float32), "b0": np.zeros(8, np.float32)}
    large = {"w1": np.full((8, 8, 1, 1), 1e5, np.float32)}
    model = build(RESIDUAL, **tiny, **large)
    result = int8(model, inputs, scheme="power-of-two", choices=Choices(add="accumulator"))
    kinds = [step.kind for step in read(result.model).steps]
    assert kinds.count("add") == 1
    assert result.model.SerializeToString(deterministic=True) == int8(
        model, inputs, scheme="power-of-two"
    ).model.SerializeToString(deterministic=True)


@pytest.mark.parametrize("choice", [{"add": "accumulator"}, {"average": "summed"}])
def test_float_scales_have_no_sums_that_shifts_align(choice: Any, branchy: onnx.ModelProto, inputs: Make) -> None:
    with pytest.raises(UsageError, match=r"shifts 32-bit sums, .* float-scale"):
        int8(branchy, inputs, choices=Choices(**choice))


def test_a_dead_layer_and_an_enormous_bias_stay_inside_int32(build: Any, inputs: Make) -> None:
    model = build(
        "(float[1,2,4,4] x, float[3,2,1,1] w0, float[3] b0, float[2,3] fc) => (float[1,2] y) {"
        "c = Conv(x, w0, b0) r = Relu(c) g = GlobalAveragePool(r) f = Flatten(g) y = Gemm<transB=1>(f, fc) }",
        w0=np.array([[0, 0], [1e-9, 0], [1, -1]], np.float32).reshape(3, 2, 1, 1),
        b0=np.array([-5, 3, 1e4], np.float32),
    )
    for name in SCHEMES:
        result = int8(model, inputs, scheme=name)
        feed = inputs((2, 4, 4), 1, seed=3)
        expected = run_onnx(model, {"x": feed})[0]
        assert snr(expected, read(result.model).run({"x": feed})["y"]) > 30


def test_layers_that_stay_float_are_listed(branchy: onnx.ModelProto, inputs: Make) -> None:
    result = int8(branchy, inputs, keep_float=frozenset(["conv4"]))
    assert result.float_nodes == ("conv4", "relu5")
    feed = inputs((3, 12, 12), 1, seed=8)
    expected = run_onnx(result.model, {"x": feed})[0]
    got = read(result.model).run({"x": feed})["y"]
    np.testing.assert_allclose(got, expected, atol=float(np.abs(expected).max()) * bound("int8-layers"))


def test_an_operator_without_an_integer_meaning_stays_float(build: Any, inputs: Make) -> None:
    model = build(
        "(float[1,4,6,6] x, float[4,4,3,3] w0, float[2,64] fc) => (float[1,2] y) {"
        "c = Conv(x, w0) l = LRN<size=3>(c) f = Flatten(l) s = Gemm<transB=1>(f, fc) y = Softmax<axis=1>(s) }"
    )
    result = int8(model, inputs)
    assert result.float_nodes == ("lrn1", "softmax4")
    feed = inputs((4, 6, 6), 1)
    np.testing.assert_allclose(
        read(result.model).run({"x": feed})["y"], run_onnx(result.model, {"x": feed})[0], atol=bound("int8-scores")
    )


def test_the_bias_after_a_pool_that_counts_its_padding_goes_back_into_the_convolution(build: Any, inputs: Make) -> None:
    model = build(
        "(float[1,6,5,5] x, float[3,6,1,1] w0, float[3,1,1] b, float[2,75] fc) => (float[1,2] y) {"
        "c = Conv(x, w0) p = AveragePool<kernel_shape=[3,3], pads=[1,1,1,1], count_include_pad=1>(c)"
        "a = Add(p, b) r = Relu(a) f = Flatten(r) y = Gemm<transB=1>(f, fc) }",
        b=np.array([0.5, 1, -0.5], np.float32).reshape(3, 1, 1),
    )
    result = int8(model, inputs)
    assert [node.op_type for node in result.model.graph.node if "Linear" not in node.op_type] == [
        "AveragePool", "Conv", "Relu", "Flatten", "Gemm",
    ]  # fmt: skip
    feed = inputs((6, 5, 5), 1)
    assert snr(run_onnx(model, {"x": feed})[0], run_onnx(result.model, {"x": feed})[0]) > 20


def test_what_scales_each_channel_is_a_convolution(build: Any, inputs: Make) -> None:
    """A chain of affine maps is one; a number for all channels is none, nor what divides by channels."""
    model = build(
        "(float[1,6,5,5] x, float[6,6,1,1] w0, float[1,6,1,1] s, float[6,1,1] t, float k, float[4,6,1,1] w1) => (float[1,4,5,5] y) {"
        "c = Conv(x, w0) r = Relu(c) d = Div(r, s) m = Sub(d, t) u = Sub(t, m) v = Relu(u) h = Mul(v, k) z = Tanh(h) y = Conv(z, w1) }",
        s=1 + np.arange(6).reshape(1, 6, 1, 1),
    )
    prepared = ir.to_proto(prepare(model))
    assert [node.op_type for node in prepared.graph.node] == ["Conv", "Relu", "Conv", "Relu", "Mul", "Tanh", "Conv"]
    feed = inputs((6, 5, 5), 1)
    expected = run_onnx(model, {"x": feed})[0]
    np.testing.assert_allclose(run_onnx(prepared, {"x": feed})[0], expected, atol=bound("rounding"))
    result = int8(model, inputs)
    assert result.float_nodes == ()
    assert snr(expected, run_onnx(result.model, {"x": feed})[0]) > 20


def test_a_file_keeps_its_scheme_when_it_is_loaded(branchy: onnx.ModelProto, inputs: Make, tmp_path: Any) -> None:
    result = int8(branchy, inputs, scheme="power-of-two", choices=Choices(add="accumulator"))
    result.model.metadata_props.add(key="a tool of others", value="what differs from machine to machine")
    onnx.save(result.model, str(tmp_path / "int8.onnx"))
    loaded = capture.load_onnx(tmp_path / "int8.onnx")
    assert [entry.key for entry in loaded.metadata_props] == [SCHEME_KEY]
    assert [step.kind for step in read(loaded).steps] == [step.kind for step in read(result.model).steps]
    feed = {"x": inputs((3, 12, 12), 1, seed=8)}
    np.testing.assert_array_equal(reference(loaded, feed)[0], reference(result.model, feed)[0])


def test_bad_models_are_refused_in_one_sentence(branchy: onnx.ModelProto, build: Any, inputs: Make) -> None:
    quantized = int8(branchy, inputs).model
    with pytest.raises(DeployError, match="quantized already"):
        quantize(quantized, inputs((3, 12, 12)))
    without = build("(float[1,3,4,4] x) => (float[1,3,4,4] y) { y = Relu(x) }")
    with pytest.raises(DeployError, match="no convolution"):
        quantize(without, inputs((3, 4, 4)))
    with pytest.raises(UsageError, match="did you mean power-of-two"):
        quantize(branchy, inputs((3, 12, 12)), scheme="power-of-tow")
    with pytest.raises(UsageError, match="nothing says what range"):
        quantize(branchy)
    with pytest.raises(UsageError, match="choice concat"):
        Choices(concat="some")  # type: ignore[arg-type]
    assert scheme(SCHEMES["float-scale"]) is SCHEMES["float-scale"]


def test_impossible_schemes_cannot_be_made() -> None:
    from dataclasses import replace

    with pytest.raises(ValueError, match="symmetric"):
        replace(SCHEMES["float-scale"], power_of_two=True)
    with pytest.raises(ValueError, match="signed"):
        replace(SCHEMES["float-scale"], symmetric=True)
    for params in ({"scale": 0.0, "zero": 0}, {"scale": 1.0, "zero": 256}, {"scale": float("nan"), "zero": 0}):
        with pytest.raises(ValueError, match="impossible"):
            Params(**params, dtype="uint8")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no power of two"):
        _ = Params(0.3, 0, "int8").exponent


def test_an_older_opset_is_brought_up(branchy: onnx.ModelProto, inputs: Make) -> None:
    older = onnx.ModelProto()
    older.CopyFrom(branchy)
    older.opset_import[0].version = 18
    result = int8(older, inputs)
    assert result.model.opset_import[0].version >= 19
    assert float_nodes(result.model) == []
