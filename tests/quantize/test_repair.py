"""Each repair does what it says: the same function in float, a smaller error in int8."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from inception_deploy.errors import DeployError
from inception_deploy.graph.rewrite import constant
from inception_deploy.quantize import repair
from inception_deploy.quantize.assign import assign
from inception_deploy.quantize.culprit import LayerError, first_fall, layer_errors
from inception_deploy.quantize.insert import weight_scales
from inception_deploy.quantize.integer_weights import round_weight
from inception_deploy.quantize.pictures import pictures
from inception_deploy.quantize.prepare import prepare
from inception_deploy.quantize.quantizer import Quantizer, Recipe, quantize
from inception_deploy.quantize.ratio import Ratio
from inception_deploy.quantize.repair import Repairs
from inception_deploy.quantize.scheme import SCHEMES, Choices
from inception_deploy.quantize.search import accuracy, gate
from inception_deploy.quantize.structure import analyse
from inception_deploy.verify import compare, run_onnx

Make = Callable[..., NDArray[np.float32]]
CHAIN = """(float[1,4,8,8] x, float[8,4,3,3] w0, float[8] b0, float[8,1,3,3] w1, float[8] b1, float[6,8,1,1] w2, float[6] b2,
float[4,6] fc, float[4] fb) => (float[1,4] y) {
    c0 = Conv(x, w0, b0)
    r0 = Relu(c0)
    c1 = Conv<group=8>(r0, w1, b1)
    r1 = Relu(c1)
    c2 = Conv(r1, w2, b2)
    r2 = Relu(c2)
    g = GlobalAveragePool(r2)
    f = Flatten(g)
    y = Gemm<transB=1>(f, fc, fb)
}"""


@pytest.fixture(scope="module")
def uneven(build: Any) -> onnx.ModelProto:
    """A chain whose channels differ thirtyfold in size, which one scale a tensor cannot hold."""
    random = np.random.default_rng(3)
    factors = np.geomspace(0.2, 6, 8).astype(np.float32)
    w0 = random.standard_normal((8, 4, 3, 3)).astype(np.float32) / 6 * factors[:, None, None, None]
    w1 = random.standard_normal((8, 1, 3, 3)).astype(np.float32) / 3 / factors[:, None, None, None]
    b0 = random.standard_normal(8).astype(np.float32) * factors
    return build(CHAIN, w0=w0, w1=w1, b0=b0)


def error(model: onnx.ModelProto, quantized: onnx.ModelProto, inputs: Make) -> NDArray[np.float64]:
    """(pictures, outputs): int8 minus float."""
    rows = [
        run_onnx(quantized, {"x": x[None]})[0][0] - run_onnx(model, {"x": x[None]})[0][0]
        for x in inputs((4, 8, 8), 40, seed=9)
    ]
    return np.array(rows, np.float64)


def test_equalising_changes_nothing_in_float_and_helps_one_scale_a_tensor(
    uneven: onnx.ModelProto, inputs: Make
) -> None:
    model = prepare(uneven)
    assert repair.equalise(model, analyse(model)) == 2
    feed = inputs((4, 8, 8), 1)
    row = compare(run_onnx(uneven, {"x": feed})[0], run_onnx(ir.to_proto(model), {"x": feed})[0], "optimised")
    assert row["ok"], row
    data = inputs((4, 8, 8), 24)
    plain = quantize(uneven, data, scheme="power-of-two-tensor", threads=1)
    better = quantize(uneven, data, scheme="power-of-two-tensor", repairs=Repairs(equalise=True), threads=1)
    assert (error(uneven, better.model, inputs) ** 2).mean() < 0.5 * (error(uneven, plain.model, inputs) ** 2).mean()


def test_equalising_leaves_a_clip_and_a_second_reader_alone(
    depthwise: onnx.ModelProto, branchy: onnx.ModelProto
) -> None:
    for model, pairs in ((depthwise, 0), (branchy, 0)):
        prepared = prepare(model)
        before = ir.to_proto(prepared).SerializeToString(deterministic=True)
        assert repair.equalise(prepared, analyse(prepared)) == pairs
        assert ir.to_proto(prepared).SerializeToString(deterministic=True) == before


@pytest.fixture(scope="module")
def single(build: Any) -> onnx.ModelProto:
    """One layer on inputs with a mean: what the repairs promise holds exactly where nothing comes before."""
    return build("(float[1,64] x, float[8,64] fc, float[8] fb) => (float[1,8] y) { y = Gemm<transB=1>(x, fc, fb) }")


@pytest.fixture(scope="module")
def correlated() -> NDArray[np.float32]:
    random = np.random.default_rng(5)
    factors = random.standard_normal((64, 6))
    return (np.abs(random.standard_normal((200, 6)) @ factors.T) + 1).astype(np.float32)


def residual(model: onnx.ModelProto, data: NDArray[np.float32], **repairs: bool) -> NDArray[np.float64]:
    how = Repairs(images=100, **repairs)
    made = quantize(model, data[:100], scheme="power-of-two-tensor", repairs=how, threads=1)
    rows = [run_onnx(made.model, {"x": x[None]})[0] - run_onnx(model, {"x": x[None]})[0] for x in data[100:]]
    return np.concatenate(rows).astype(np.float64)


def test_bias_correction_takes_the_mean_error_away(single: onnx.ModelProto, correlated: NDArray[np.float32]) -> None:
    plain, corrected = residual(single, correlated), residual(single, correlated, bias=True)
    assert np.abs(corrected.mean(axis=0)).max() < 0.3 * np.abs(plain.mean(axis=0)).max()


@pytest.mark.parametrize("network", ["single", "uneven"])
def test_adaptive_rounding_makes_the_error_of_the_weights_smaller(
    network: str, inputs: Make, correlated: NDArray[np.float32], request: pytest.FixtureRequest
) -> None:
    """``E |(W_q - W) x|^2`` on inputs that the rounding has not seen, every layer, depthwise ones too."""
    model = request.getfixturevalue(network)
    data = correlated if network == "single" else inputs((4, 8, 8), 40)
    scheme = SCHEMES["power-of-two-tensor"]
    quantizer = Quantizer(model, data[: len(data) // 2], threads=1)
    structure = quantizer.structure()
    made = quantizer.quantize(Recipe(scheme)).ranges
    params = assign(structure, made.ends, scheme, Choices())
    how = Repairs(rounding=True, images=20)
    assert quantizer.source is not None
    seen = repair.inputs_of(quantizer.prepared, structure, quantizer.source, how, threads=1)
    other = pictures(data[len(data) // 2 :], data.shape[1:])
    unseen = repair.inputs_of(quantizer.prepared, structure, other, how, threads=1)
    rounded = repair.round_adaptively(structure, params, scheme, seen)
    layers = [layer for layer in structure.layers if layer.kind == "linear"]
    assert sorted(rounded) == sorted(layer.name for layer in layers)
    for layer in layers:
        weight = np.asarray(constant(layer.nodes[0].inputs[1]), np.float64)
        scale = weight_scales(layer, params, scheme)
        moments = unseen[layer.name].moments
        assert moments is not None

        def cost(q: NDArray[np.int8], weight: Any = weight, scale: Any = scale, moments: Any = moments) -> float:
            error = q * scale.reshape(-1, *[1] * (weight.ndim - 1)) - weight
            rows = error.reshape(len(moments), -1, moments.shape[1])
            return float(np.einsum("gok,gkl,gol->", rows, moments, rows))

        nearest, adapted = cost(round_weight(weight, scale, scheme)), cost(rounded[layer.name])
        assert adapted < (0.5 if network == "single" else 1.02) * nearest, layer.name


# -- the gate and the culprit -----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def labelled(tables: onnx.ModelProto, inputs: Make, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Pictures whose class is what the float model says, by a hair: its own top-1 is 100 %."""
    data = inputs((1, 8, 8), 400, seed=2)
    scores = np.concatenate([run_onnx(tables, {"x": x[None]})[0] for x in data])
    margin = np.diff(np.sort(scores, axis=1)[:, -2:], axis=1)[:, 0]
    chosen = np.argsort(margin)[:50]
    data, classes = data[chosen], scores[chosen].argmax(axis=1)
    path = tmp_path_factory.mktemp("labelled") / "x.npz"
    np.savez(path, x=data, y=classes)
    return pictures(path, (1, 8, 8))


def test_the_gate_moves_layers_to_float_until_it_holds(tables: onnx.ModelProto, inputs: Make, labelled: Any) -> None:
    quantizer = Quantizer(tables, inputs((1, 8, 8), 8), threads=1)
    recipe = Recipe("power-of-two-tensor", "minmax")
    assert accuracy(quantizer.prepared, labelled).percent == 100
    loose = gate(quantizer, recipe, labelled, 100.0)
    assert len(loose.steps) == 1
    lost = loose.drop_points
    assert lost > 0, "the network must lose something for this test to say anything"
    tight = gate(quantizer, recipe, labelled, 0.0)
    assert tight.drop_points <= 0
    assert len(tight.steps) > 1
    assert set(tight.steps[-1].float_layers) <= set(tight.quantized.float_nodes)
    assert tight.int8 == accuracy(tight.quantized.model, labelled)
    with pytest.raises(DeployError, match="with every layer in float"):
        gate(quantizer, recipe, labelled, -1.0)


def test_the_gate_gives_tensors_16_bits_before_layers_go_back_to_float(
    tables: onnx.ModelProto, inputs: Make, labelled: Any
) -> None:
    quantizer = Quantizer(tables, inputs((1, 8, 8), 8), threads=1)
    recipe = Recipe("float-scale", "minmax")
    steps = gate(quantizer, recipe, labelled, 0.0).steps
    assert len(steps) > 1, "the network must lose something for this test to say anything"
    assert [bool(step.wide_layers) for step in steps[1:]] == [number % 2 == 0 for number in range(len(steps) - 1)]
    assert steps[1].wide_layers
    assert not any(step.wide_layers for step in gate(quantizer, recipe, labelled, 0.0, widen=False).steps)


def test_the_gate_does_not_judge_what_says_nothing(tables: onnx.ModelProto, inputs: Make, tmp_path: Path) -> None:
    quantizer = Quantizer(tables, inputs((1, 8, 8), 8), threads=1)
    data = inputs((1, 8, 8), 50, seed=2)
    wrong = [int(run_onnx(tables, {"x": x[None]})[0].argmin()) for x in data]
    for count, told in ((49, "49 labelled pictures in .* are too few"), (50, "0 % top-1 on the 50 pictures")):
        np.savez(tmp_path / "x.npz", x=data[:count], y=wrong[:count])
        with pytest.raises(DeployError, match=told) as caught:
            gate(quantizer, Recipe(), pictures(tmp_path / "x.npz", (1, 8, 8)), 100.0)
        assert caught.value.kind == "evaluate"


def test_a_drop_that_is_made_good_is_no_fall() -> None:
    def row(layer: str, sqnr: float, before: float) -> LayerError:
        return LayerError(layer, "linear", "Conv", sqnr, 1.0, 40.0, before)

    lost = [row("a", 40, 41), row("b", 20, 40), row("c", 22, 20)]
    fall = first_fall(lost)
    assert fall is not None
    assert fall.layer == "b"
    assert first_fall([*lost, row("pool", 38, 22)]) is None


def test_evaluation_needs_classes(uneven: onnx.ModelProto, inputs: Make) -> None:
    with pytest.raises(DeployError, match="no class that the network knows"):
        accuracy(uneven, pictures(inputs((4, 8, 8), 1), (4, 8, 8)))
    with pytest.raises(DeployError, match="no picture to evaluate"):
        accuracy(uneven, [])


def test_the_culprit_is_the_layer_whose_weights_were_spoilt(branchy: onnx.ModelProto, inputs: Make) -> None:
    data = inputs((3, 12, 12), 16)
    quantizer = Quantizer(branchy, data, threads=1)
    good = quantizer.quantize(Recipe())
    source = pictures(data, (3, 12, 12))
    rows = layer_errors(quantizer, good, source, limit=3)
    assert [row.layer for row in rows] == [
        "conv0", "conv2", "conv4", "concat6", "maxpool7", "conv8", "add9", "averagepool11", "globalaveragepool12",
        "flatten13", "gemm14",
    ]  # fmt: skip
    assert first_fall(rows) is None
    assert all(row.sqnr_db > 25 and row.own_db > 25 and row.cosine > 0.99 for row in rows)
    spoilt = onnx.ModelProto()
    spoilt.CopyFrom(good.model)
    weight = next(t for t in spoilt.graph.initializer if t.name == "conv4/weight_q")
    array = onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.numpy_helper.from_array(np.roll(array, 1, axis=0), weight.name))
    from dataclasses import replace

    bad = layer_errors(quantizer, replace(good, model=spoilt), source, limit=3)
    fall = first_fall(bad)
    assert fall is not None
    assert fall.layer == "conv4"
    own = {row.layer: row.own_db for row in bad}
    assert own["conv4"] < 10 < min(value for layer, value in own.items() if layer != "conv4")
    assert json_able(bad[0].as_dict())


def json_able(document: dict[str, Any]) -> bool:
    import json

    return bool(json.dumps(document, allow_nan=False))


def test_ratios_of_nothing() -> None:
    ratio = Ratio()
    ratio.add(np.zeros(3), np.zeros(3))
    assert (ratio.db, ratio.cosine) == (200.0, 1.0)
    ratio.add(np.zeros(3), np.ones(3))
    assert (ratio.db, ratio.cosine) == (-200.0, 0.0)
