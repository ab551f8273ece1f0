"""A few tensors of 16 bits in networks that we quantize: which, what is written, and that it gains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from inception_deploy.errors import UsageError
from inception_deploy.quantize import effort
from inception_deploy.quantize.integer_network import reference, tensors
from inception_deploy.quantize.pictures import pictures
from inception_deploy.quantize.quantizer import Quantizer, Recipe
from inception_deploy.quantize.repair import Repairs
from inception_deploy.quantize.scheme import SCHEMES, Choices
from inception_deploy.quantize.sensitive import sensitive
from inception_deploy.quantize.share import share
from inception_deploy.verify import bound, run_onnx

Make = Callable[..., NDArray[np.float32]]
SHAPE = (3, 12, 12)


@pytest.fixture
def quantizer(branchy: onnx.ModelProto, inputs: Make) -> Quantizer:
    return Quantizer(branchy, inputs(SHAPE, 24), threads=1)


def snr(reference: NDArray[Any], got: NDArray[Any]) -> float:
    return float(10 * np.log10((reference**2).sum() / ((reference - got) ** 2).sum()))


@pytest.mark.parametrize(("scheme", "dtype"), [("float-scale", "uint16"), ("float-scale-int8", "int16")])
def test_a_tensor_of_16_bits_and_those_that_share_its_scale(
    scheme: str, dtype: str, quantizer: Quantizer, inputs: Make
) -> None:
    made = quantizer.quantize(Recipe(scheme, sixteen=frozenset({"r1", "a"})))
    assert made.sixteen == ("r1", "r2", "j", "m")  # "a" is nothing of its own: the sum's Relu is quantized
    kinds = {name: how.dtype for name, how in tensors(made.model).items()}
    assert {name for name, kind in kinds.items() if kind == dtype} == set(made.sixteen)
    assert len(set(kinds.values())) == 2
    assert next(entry.version for entry in made.model.opset_import if not entry.domain) == 21
    onnx.checker.check_model(made.model, full_check=True)
    found = share(made.model)
    assert found.sixteen == made.sixteen
    assert found.floats == ()
    assert {one.reason for one in share(made.model, sixteen=False).floats} == {
        "it has numbers of 16 bits, and the target no kernels of such"
    }
    x = inputs(SHAPE, 1, seed=9)
    (expected,) = run_onnx(made.model, {"x": x})
    (got,) = reference(made.model, {"x": x})
    assert np.abs(got - expected).max() <= bound("step") * np.abs(expected).max()


def test_without_any_the_file_is_what_it_was(quantizer: Quantizer) -> None:
    model = quantizer.quantize(Recipe()).model
    assert {how.dtype for how in tensors(model).values()} == {"uint8"}
    assert next(entry.version for entry in model.opset_import if not entry.domain) < 21


def test_all_of_them_leave_the_error_of_the_weights(
    branchy: onnx.ModelProto, quantizer: Quantizer, inputs: Make
) -> None:
    names = frozenset(value.name or "" for value in quantizer.structure().values)
    feed = inputs(SHAPE, 16, seed=99)
    expected = np.concatenate([run_onnx(branchy, {"x": x[None]})[0] for x in feed])

    def level(recipe: Recipe) -> float:
        model = quantizer.quantize(recipe).model
        return snr(expected, np.concatenate([reference(model, {"x": x[None]})[0] for x in feed]))

    repairs = Repairs(rounding=True, bias=True)
    assert level(Recipe(repairs=repairs, sixteen=names)) > level(Recipe(repairs=repairs)) + 3


@pytest.mark.parametrize("worst", ["r0", "ra", "x"])
def test_the_worst_tensor_comes_first(worst: str, branchy: onnx.ModelProto, quantizer: Quantizer, inputs: Make) -> None:
    """One whose steps are much too large."""
    model = quantizer.quantize(Recipe()).model
    for tensor in model.graph.initializer:
        if tensor.name == f"{worst}/scale":
            scale = onnx.numpy_helper.to_array(tensor) * np.float32(24)
            tensor.CopyFrom(onnx.numpy_helper.from_array(scale, tensor.name))
    judged = list(pictures(inputs(SHAPE, 4, seed=5), SHAPE))
    expected = [np.concatenate([run_onnx(branchy, {"x": one.pixels[None]})[0] for one in judged])]
    groups = [[value.name or "" for value in group] for group in quantizer.structure().groups(Choices())]
    ranked = sensitive(model, groups, judged, expected, threads=1)
    assert ranked[0] == worst
    assert sorted(ranked) == sorted(group[0] for group in groups)
    assert sorted(quantizer.sensitive(Recipe(), None, judged)) == sorted(ranked)


def test_effort_best_asks_and_keeps_what_gains(branchy: onnx.ModelProto, inputs: Make) -> None:
    pixels = inputs(SHAPE, 48)
    pixels[0, 0, 0, 0] = 3000.0
    rest, held = effort.split(branchy, pictures(pixels, SHAPE))
    fixed = frozenset({"method", "average", "bias", "concat", "equalise", "rounding"})
    for level, asked in (("normal", False), ("best", True)):
        quantizer = Quantizer(branchy, rest, threads=1)
        found = effort.choose(quantizer, Recipe(method="minmax"), effort.check(level), held, fixed=fixed, threads=1)
        assert any("16 bits" in trial.candidate for trial in found.trials) == asked
        assert bool(found.quantized.sixteen) == asked
    assert "x" in found.quantized.sixteen
    said = effort.choose(
        Quantizer(branchy, rest, threads=1), Recipe(method="minmax"), "best", held, fixed=fixed | {"sixteen"}, threads=1
    )
    assert not any("16 bits" in trial.candidate for trial in said.trials)


@pytest.mark.parametrize("scheme", ["power-of-two", "power-of-two-tensor"])
def test_powers_of_two_have_no_such_tensors(scheme: str) -> None:
    with pytest.raises(UsageError, match="a tensor of 16 bits is nothing that the scales of power-of-two") as refused:
        Recipe(scheme, sixteen=frozenset({"x"}))
    assert refused.value.allowed == [name for name, how in SCHEMES.items() if not how.power_of_two]
