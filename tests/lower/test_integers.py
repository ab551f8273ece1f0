"""Integer kernels against `quantize.arith`: every bit of every output, for each scheme."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from inception_deploy import targets
from inception_deploy.graph.driver import optimise
from inception_deploy.kernels.spec import Map
from inception_deploy.quantize import integer_network, quantize
from inception_deploy.quantize.scheme import SCHEMES, Choices
from inception_deploy.sources import capture
from inception_deploy.targets.cpu import host_features
from inception_deploy.verify import tolerance

from ..cases.int8_files import NEAREST, weights
from .conftest import Builder, Compiled

SIZE = (2, 3, 13, 11)


def signed(b: Builder, x: str) -> str:
    """A stem whose result has both signs, so that its zero point is not 0."""
    return b.conv(x, 3, 16, pads=[1, 1, 1, 1])


def plain(b: Builder, x: str) -> str:
    return b.op("Relu", b.conv(b.op("Relu", signed(b, x)), 16, 24, strides=[2, 2]))


def padded(b: Builder, x: str) -> str:
    """Zero points and padding: every edge has a bias of its own."""
    y = b.conv(signed(b, x), 16, 20, (1, 7), pads=[0, 3, 0, 3])
    y = b.conv(y, 20, 16, (7, 1), pads=[3, 0, 3, 0])
    return b.conv(y, 16, 33, (5, 5), pads=[2, 2, 2, 2], strides=[2, 2])


def dilated(b: Builder, x: str) -> str:
    return b.conv(
        b.conv(signed(b, x), 16, 16, dilations=[2, 3], pads=[2, 3, 2, 3]), 16, 16, strides=[3, 1], pads=[2, 0, 0, 1]
    )


def grouped(b: Builder, x: str) -> str:
    y = b.conv(signed(b, x), 16, 32, group=4, pads=[1, 1, 1, 1])
    return b.conv(y, 32, 64, (1, 1), group=2)


def depthwise(b: Builder, x: str) -> str:
    y = b.op("Clip", b.conv(signed(b, x), 16, 16, group=16, pads=[1, 1, 1, 1]), b.constant(-1.0), b.constant(2.0))
    y = b.op("Relu", b.conv(y, 16, 16, (5, 3), group=16, strides=[2, 2], pads=[2, 1, 2, 1]))
    return b.conv(y, 16, 8, (1, 1))


def pools(b: Builder, x: str) -> str:
    y = b.op("MaxPool", signed(b, x), kernel_shape=[3, 3], strides=[2, 2], ceil_mode=1)
    a = b.op("AveragePool", y, kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    c = b.op("AveragePool", y, kernel_shape=[3, 3], pads=[1, 1, 1, 1], count_include_pad=1)
    return b.conv(b.op("Concat", a, c, y, axis=1), 48, 8, (1, 1))


def branches(b: Builder, x: str) -> str:
    """Widths that are no multiples of 16, a concat inside of a concat, a residual add behind it."""
    y = b.op("Relu", signed(b, x))
    one = b.op("Relu", b.conv(y, 16, 10, (1, 1)))
    two = b.op("Relu", b.conv(b.conv(y, 16, 7, (1, 1)), 7, 6, pads=[1, 1, 1, 1]))
    inner = b.op("Concat", one, two, axis=1)
    joined = b.op("Concat", inner, y, axis=1)
    up = b.conv(joined, 32, 16, (1, 1))
    return b.op("Relu", b.op("Add", y, up))


def deep(b: Builder, x: str) -> str:
    """So many channels that fp32 would do some of them at a time; an odd number of vectors."""
    y = b.op("MaxPool", b.conv(x, 3, 1040, (1, 1)), kernel_shape=[3, 3], strides=[3, 3])
    return b.conv(y, 1040, 48, (1, 1))


def whole_blocks(b: Builder, x: str) -> str:
    """Every second of 64 channels, which are whole blocks when they are moved together."""
    y = b.op("Relu", b.conv(signed(b, x), 16, 64, (1, 1)))
    cut = (b.constant([1], "int64"), b.constant([64], "int64"), b.constant([1], "int64"), b.constant([2], "int64"))
    return b.conv(b.op("Add", b.op("Slice", y, *cut), b.conv(y, 64, 32, (1, 1))), 32, 8)


def slots(b: Builder, x: str) -> str:
    """Both sides of an add are concats of odd widths, in different slots."""
    y = signed(b, x)
    left = b.op("Concat", b.conv(y, 16, 5, (1, 1)), b.conv(y, 16, 11, (1, 1)), axis=1)
    right = b.op("Concat", b.conv(y, 16, 9, (1, 1)), b.conv(y, 16, 7, (1, 1)), axis=1)
    return b.conv(b.op("Add", left, right), 16, 8, (1, 1))


def twice(b: Builder, x: str) -> str:
    """A tensor added to itself, and one that an add and a convolution both read."""
    y = b.conv(signed(b, x), 16, 16, (1, 1))
    z = b.op("Add", y, b.op("Add", y, y))
    return b.op("Add", z, b.conv(z, 16, 16, (1, 1)))


def tables(b: Builder, x: str) -> str:
    y = b.op("Mul", b.op("Tanh", signed(b, x)), b.constant(1.7))
    return b.conv(b.op("Sigmoid", b.conv(y, 16, 9, (1, 1))), 9, 5, (1, 1))


def islands(b: Builder, x: str) -> str:
    """What stays float in the middle: a difference of two maps, of which one is a part of what a split gives."""
    y = b.conv(signed(b, x), 16, 20, (1, 1))
    left, right = b.op("Split", y, outputs=2, axis=1, num_outputs=2)
    z = b.op("Sub", left, b.op("Tanh", right))
    return b.conv(b.op("Concat", right, z, axis=1), 20, 8)


def gates(b: Builder, x: str) -> str:
    """Squeeze and excite, with a gate in other slots than its map, and on either side; products of maps of both signs."""
    y = signed(b, x)
    z = b.op("Concat", b.conv(y, 16, 5, (1, 1)), b.conv(y, 16, 13, (1, 1)), axis=1)
    gate = b.op("Sigmoid", b.conv(b.op("Relu", b.conv(b.op("GlobalAveragePool", z), 18, 4, (1, 1))), 4, 18, (1, 1)))
    one = b.op("Mul", z, gate)
    two = b.op("Mul", b.op("HardSigmoid", b.conv(b.op("GlobalMaxPool", one), 18, 18, (1, 1))), one)
    return b.conv(b.op("Relu", b.op("Mul", b.conv(two, 18, 18, (1, 1)), z)), 18, 9, (1, 1))


def gated(b: Builder, x: str) -> str:
    """x * sigmoid(x), hard swish, and how older exporters spell it; on maps and on vectors."""
    y = signed(b, x)
    y = b.op("Mul", y, b.op("Sigmoid", y))
    y = b.conv(y, 16, 12, (1, 1))
    six = b.op("Clip", b.op("Add", y, b.constant(3.0)), b.constant(0.0), b.constant(6.0))
    y = b.conv(b.op("Div", b.op("Mul", y, six), b.constant(6.0)), 12, 10, (1, 1))
    y = b.op("Flatten", b.op("GlobalAveragePool", y))
    return b.op("HardSwish", b.op("Gemm", y, b.weight(20, 10), b.weight(20), transB=1))


def normalised(b: Builder, x: str) -> str:
    """What a batch norm before its Relu leaves: a scale and a shift for each channel; a channel that is switched off."""
    y = b.op("Concat", signed(b, x), b.conv(x, 3, 5, pads=[1, 1, 1, 1]), axis=1)
    scale = b.random.standard_normal((1, 21, 1, 1))
    scale[0, 7] = 0
    y = b.op("Add", b.op("Mul", y, b.constant(scale)), b.weight(21, 1, 1))
    return b.conv(b.op("Relu", y), 21, 9, pads=[1, 1, 1, 1])


def places(b: Builder, x: str) -> str:
    """Values that move: padding of every mode, nearest resizes, pixels with a step."""
    y = signed(b, x)
    y = b.op("Pad", y, b.constant([0, 0, 1, 0, 0, 0, 2, 1], "int64"), b.constant(0.5))
    y = b.conv(
        b.op("Pad", y, b.constant([2, 1, 0, 3], "int64"), "", b.constant([2, 3], "int64"), mode="reflect"), 16, 7
    )
    y = b.op("Resize", y, "", b.constant([1.0, 1.0, 2.0, 1.6]), **NEAREST)
    y = b.op(
        "Slice",
        y,
        b.constant([1, -1], "int64"),
        b.constant([22, 0], "int64"),
        b.constant([2, 3], "int64"),
        b.constant([2, -2], "int64"),
    )
    return b.conv(b.op("Pad", y, b.constant([0, 2, -1, 0, 0, 1, 1, 1], "int64")), 10, 20)


def shuffled(b: Builder, x: str) -> str:
    """Channels that move: splits, a shuffle, a gather that takes one twice, slices; behind them whatever reads slots."""
    y = b.op("Relu", b.conv(signed(b, x), 16, 40, (1, 1)))
    left, right = b.op("Split", y, outputs=2, axis=1, num_outputs=2)
    z = b.conv(b.op("Relu", b.conv(right, 20, 20, group=20, pads=[1, 1, 1, 1])), 20, 20, (1, 1))
    y = b.op("Concat", left, z, axis=1)
    y = b.op("Reshape", y, b.constant([SIZE[0], 2, 20, *SIZE[2:]], "int64"))
    y = b.op("Reshape", b.op("Transpose", y, perm=[0, 2, 1, 3, 4]), b.constant([SIZE[0], 40, *SIZE[2:]], "int64"))
    one = b.op(
        "Slice",
        y,
        b.constant([3], "int64"),
        b.constant([40], "int64"),
        b.constant([1], "int64"),
        b.constant([5], "int64"),
    )
    two = b.op("Gather", y, b.constant([39, 2, 2, 7, 11, 30, 0, 1], "int64"), axis=1)
    z = b.conv(b.op("Add", one, two), 8, 40, (1, 1))
    return b.conv(b.op("Add", y, z), 40, 8, (1, 1))


def reshaped(b: Builder, x: str) -> str:
    """A map that becomes another map: its channels are no longer where they were."""
    y = b.op("Relu", b.conv(signed(b, x), 16, 8, (1, 1)))
    shape = b.constant([SIZE[0], 4, 2 * SIZE[2], SIZE[3]], "int64")
    return b.conv(b.op("Reshape", y, shape), 4, 16, pads=[1, 1, 1, 1])


def joined_flat(b: Builder, x: str) -> str:
    """Flattened maps, joined: their channels do not lie as the result wants them."""
    y = b.op("Relu", b.conv(signed(b, x), 16, 5, strides=[4, 4]))
    z = b.op("Relu", b.conv(signed(b, x), 16, 3, strides=[6, 6]))
    return b.op("Concat", b.op("Flatten", y), b.op("Flatten", z), axis=1)


NETWORKS = (
    plain, padded, dilated, grouped, depthwise, deep, pools, branches, slots, twice, tables, islands, reshaped, joined_flat,
    gates, gated, normalised, places, shuffled, whole_blocks,
)  # fmt: skip


def model_of(make: Callable[[Builder, str], str]) -> tuple[onnx.ModelProto, np.ndarray]:
    """The network between an input of `SIZE` and a fully connected layer, and random pictures for it."""
    b = Builder(3)
    x = b.input(*SIZE)
    y = make(b, x)
    if make is not joined_flat:
        y = b.op("Flatten", b.op("GlobalAveragePool", y) if make in (plain, pools) else y)
    sizes = onnx.shape_inference.infer_shapes(b.model(y)).graph.output[0].type.tensor_type.shape.dim
    y = b.op("Gemm", y, b.weight(5, sizes[1].dim_value), b.weight(5), transB=1)
    smooth = np.random.default_rng(1).standard_normal((16, *SIZE[1:])).cumsum(-1) / 4
    return b.model(y), smooth.astype(np.float32)


@pytest.fixture(scope="session")
def integers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[onnx.ModelProto], Compiled]:
    target = targets.parse("cpu:avx512-vnni").at("int8")
    if reason := target.missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("kernels")
    number = itertools.count()
    return lambda model: Compiled(model, target, folder / f"{next(number)}.so")


def check(model: onnx.ModelProto, pictures: np.ndarray, made: Compiled) -> None:
    """Every output, on pictures inside and outside of the calibrated range."""
    for scale in (1.0, 4.0):
        x = pictures[: SIZE[0]] * np.float32(scale)
        (expected,) = integer_network.reference(model, {model.graph.input[0].name: x})
        for side in ("begin", "end"):
            (got,) = made.run(x, side=side)
            np.testing.assert_array_equal(got, expected)
    assert np.ptp(expected) > 0


CASES = [(make, scheme) for scheme in ("float-scale", "power-of-two") for make in NETWORKS]
CASES += [(make, scheme) for scheme in SCHEMES for make in (padded, branches) if (make, scheme) not in CASES]


@pytest.mark.parametrize(("make", "scheme"), CASES, ids=[f"{make.__name__}-{scheme}" for make, scheme in CASES])
def test_every_bit_is_the_references(make: Any, scheme: str, integers: Any) -> None:
    model, pictures = model_of(make)
    quantized = quantize(model, list(pictures), scheme=scheme).model
    made = integers(quantized)
    check(quantized, pictures, made)
    if make is not islands:
        specs = [made.plan.kernels[step.kernel].spec for step in made.plan.steps]
        assert not [spec for spec in specs if isinstance(spec, Map) and not spec.quantized]


OTHER = {"avx2": {"vpmaddwd", "vpmaddubsw"}, "avx-vnni": {"vpdpbusd (VEX)"}}
"""Other instruction sets that multiply bytes, and with what."""

ENCODINGS = {"avx-vnni": ("avx512_vnni", ("+avx512vnni", "+avx512vl"))}
"""Where a machine lacks one: a feature for which the same instructions have another encoding."""


@pytest.mark.parametrize("isa", OTHER)
@pytest.mark.parametrize(
    ("make", "scheme"),
    [(padded, "float-scale"), (dilated, "power-of-two"), (grouped, "float-scale"), (branches, "power-of-two"),
     (pools, "float-scale"), (depthwise, "power-of-two"),
     (gates, "power-of-two"), (places, "float-scale"), (gated, "float-scale"), (padded, "float-scale-reduced"),
     (dilated, "float-scale-reduced"), (grouped, "float-scale-reduced"), (pools, "float-scale-reduced")],
    ids=lambda case: getattr(case, "__name__", case),
)  # fmt: skip
def test_every_bit_by_other_instructions(make: Any, scheme: str, isa: str, tmp_path: Path) -> None:
    target = targets.parse(f"cpu:{isa}").at("int8")
    feature, attributes = ENCODINGS.get(isa, ("", ()))
    if target.missing() and feature in host_features():
        target = replace(target, isa=replace(target.isa, mattr=attributes))
    elif reason := target.missing():
        pytest.skip(reason)
    model, pictures = model_of(make)
    quantized = quantize(model, list(pictures), scheme=scheme).model
    made = Compiled(quantized, target, tmp_path / "network.so")
    check(quantized, pictures, made)
    found = {getattr(kernel.schedule, "dot", None) for kernel in made.plan.kernels.values()} - {None}
    assert found
    assert found <= OTHER[isa]
    if isa == "avx2":
        assert ("vpmaddubsw" in found) >= (scheme == "float-scale-reduced")


def test_weights_of_9_bits_by_widened_bytes(tmp_path: Path) -> None:
    target = targets.parse("cpu:avx2").at("int8")
    if reason := target.missing():
        pytest.skip(reason)
    file = next(file for file in weights() if file.name == "weights-of-9-bits")
    onnx.save(file.model, str(tmp_path / "model.onnx"))
    model, _ = optimise(capture.load_onnx(tmp_path / "model.onnx"), verify=False)
    (expected,) = integer_network.reference(model, {"x": file.x})
    (got,) = Compiled(model, target, tmp_path / "network.so").run(file.x)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    "choices",
    [Choices(concat="own"), Choices(add="own"), Choices(average="own"), Choices(moves="own")],
    ids=["concat", "add", "average", "moves"],
)
@pytest.mark.parametrize("make", [pools, branches], ids=lambda make: make.__name__)
def test_scales_of_their_own(make: Any, choices: Choices, integers: Any) -> None:
    model, pictures = model_of(make)
    quantized = quantize(model, list(pictures), choices=choices).model
    check(quantized, pictures, integers(quantized))


def residual(b: Builder, x: str) -> str:
    """Sums in accumulators: of another convolution, of a concat in slots of its own, of what a convolution reads, and of
    what is made behind the convolution.
    """
    y = b.op("Relu", signed(b, x))
    joined = b.op("Concat", b.conv(y, 16, 9, (1, 1)), b.conv(y, 16, 7, (1, 1)), axis=1)
    z = b.op("Relu", b.op("Add", b.conv(y, 16, 16, pads=[1, 1, 1, 1]), joined))
    z = b.op("Add", z, b.conv(z, 16, 16, (1, 1)))
    late = b.conv(z, 16, 24, (1, 1))
    pooled = b.op("MaxPool", b.op("Relu", b.conv(z, 16, 24, (1, 1))), kernel_shape=[3, 3], pads=[1, 1, 1, 1])
    return b.op("Clip", b.op("Add", pooled, late), b.constant(-0.5), b.constant(2.0))


def from_the_input(b: Builder, x: str) -> str:
    """The shortcut is the network's own input, which nothing has quantized in blocks before."""
    return b.conv(b.op("Add", b.conv(x, 3, 3, (1, 1)), x), 3, 8)


def test_a_shortcut_that_is_the_input(integers: Any) -> None:
    model, pictures = model_of(from_the_input)
    quantized = quantize(model, list(pictures), scheme="power-of-two", choices=Choices(add="accumulator")).model
    assert any(step.shortcut is not None for step in integer_network.read(quantized).steps)
    check(quantized, pictures, integers(quantized))


@pytest.mark.parametrize("scheme", ["power-of-two", "power-of-two-tensor"])
def test_a_shortcut_in_the_accumulator(scheme: str, integers: Any) -> None:
    model, pictures = model_of(residual)
    quantized = quantize(model, list(pictures), scheme=scheme, choices=Choices(add="accumulator")).model
    steps = integer_network.read(quantized).steps
    assert sum(step.shortcut is not None for step in steps) == 3
    made = integers(quantized)
    check(quantized, pictures, made)
    assert {step.op for step in made.plan.steps} <= {"quantize", "conv", "dense", "copy", "max_pool", "unpack"}


def averaged(counted: int, *, tiny: bool = False) -> Callable[[Builder, str], str]:
    def network(b: Builder, x: str) -> str:
        y = b.op("Relu", signed(b, x))
        y = b.op("MaxPool", y, kernel_shape=[*SIZE[2:]]) if tiny else y
        how = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": counted}
        one = b.op("Relu", b.conv(b.op("AveragePool", y, **how), 16, 20, (1, 1)))
        return b.conv(b.op("Concat", one, y, axis=1), 36, 8, (1, 1))

    return network


@pytest.mark.parametrize("scheme", ["power-of-two", "power-of-two-tensor"])
def test_an_average_of_whole_windows_summed(scheme: str, integers: Any) -> None:
    model, pictures = model_of(averaged(1))
    quantized = quantize(model, list(pictures), scheme=scheme, choices=Choices(average="summed")).model
    assert "pooled" in [step.kind for step in integer_network.read(quantized).steps]
    made = integers(quantized)
    check(quantized, pictures, made)
    assert {step.op for step in made.plan.steps} <= {"quantize", "conv", "dense", "copy", "unpack"}


@pytest.mark.parametrize("tiny", [False, True])  # a window of which one place counts counts whole
def test_an_average_summed_over_less_at_the_border_is_float(tiny: bool, integers: Any) -> None:
    model, pictures = model_of(averaged(0, tiny=tiny))
    quantized = quantize(model, list(pictures), scheme="power-of-two", choices=Choices(average="summed")).model
    assert "pooled" in [step.kind for step in integer_network.read(quantized).steps]
    x = pictures[: SIZE[0]]
    (expected,) = integer_network.reference(quantized, {model.graph.input[0].name: x})
    (got,) = integers(quantized).run(x)
    assert np.abs(got - expected).max() <= tolerance("emulated-int8").max_rel * np.abs(expected).max()


def test_a_layer_that_stays_float(integers: Any) -> None:
    model, pictures = model_of(branches)
    name = [node.name for node in model.graph.node if node.op_type == "Conv"][2]
    quantized = quantize(model, list(pictures), keep_float=frozenset({name})).model
    made = integers(quantized)
    x = pictures[: SIZE[0]]
    (expected,) = integer_network.reference(quantized, {model.graph.input[0].name: x})
    (got,) = made.run(x)
    assert np.abs(got - expected).max() <= tolerance("emulated-int8").max_rel * np.abs(expected).max()
    assert name in integer_network.float_nodes(quantized)


def test_an_add_ends_the_convolution_before_it(integers: Any) -> None:
    model, pictures = model_of(branches)
    made = integers(quantize(model, list(pictures)).model)
    assert not [step for step in made.plan.steps if step.op == "add"]
    assert [step for step in made.plan.steps if step.op == "conv" and any("Add" in layer for layer in step.layers)]


def test_a_concat_of_integers_moves_nothing(integers: Any) -> None:
    model, pictures = model_of(branches)
    made = integers(quantize(model, list(pictures)).model)
    assert {step.op for step in made.plan.steps} <= {"quantize", "conv", "dense", "copy", "unpack"}
