"""How to quantize is found by measuring, on pictures that nothing else looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from inception_deploy.errors import UsageError
from inception_deploy.quantize import effort
from inception_deploy.quantize.integer_network import read
from inception_deploy.quantize.pictures import Picture, Pictures, pictures
from inception_deploy.quantize.quantizer import Quantizer, Recipe
from inception_deploy.quantize.repair import Repairs
from inception_deploy.quantize.scheme import Choices
from inception_deploy.verify import run_onnx

Make = Callable[..., NDArray[np.float32]]


def snr(reference: NDArray[Any], got: NDArray[Any]) -> float:
    return float(10 * np.log10((reference**2).sum() / ((reference - got) ** 2).sum()))


@pytest.mark.parametrize("count", [7, 8, 24, 300])
def test_one_picture_of_four_is_held_back(count: int, branchy: onnx.ModelProto, inputs: Make) -> None:
    given = pictures(inputs((3, 12, 12), count), (3, 12, 12))
    rest, held = effort.split(branchy, given)
    named, kept = [picture.name for picture in held], [picture.name for picture in rest]
    assert sorted(named + kept) == sorted(picture.name for picture in given)
    assert len(held) == (0 if count < 8 else min(count // 4, effort.MOST))
    assert [picture.name for picture in rest.read(5)] == kept[5:]
    assert (rest.fingerprint == given.fingerprint) == (count < 8)


def test_pictures_of_one_colour_judge_nothing(branchy: onnx.ModelProto) -> None:
    flat = np.full((3, 12, 12), 0.5, np.float32)
    given = Pictures("flat", 20, "flat", lambda start: (Picture(f"{i}", flat) for i in range(start, 20)))
    assert effort.split(branchy, given) == (given, [])


def test_a_large_network_is_judged_on_fewer(
    branchy: onnx.ModelProto, inputs: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(effort, "WORK", 1.0)
    _, held = effort.split(branchy, pictures(inputs((3, 12, 12), 300), (3, 12, 12)))
    assert len(held) == 8


def chosen(model: onnx.ModelProto, inputs: Make, level: effort.Effort, base: Recipe, **more: Any) -> effort.Chosen:
    rest, held = effort.split(model, pictures(inputs((3, 12, 12), 48), (3, 12, 12)))
    return effort.choose(Quantizer(model, rest, threads=1), base, level, held, threads=1, **more)


@pytest.mark.parametrize("scheme", ["float-scale", "power-of-two"])
def test_what_gains_is_kept_and_told(scheme: str, branchy: onnx.ModelProto, inputs: Make) -> None:
    found = chosen(branchy, inputs, "best", Recipe(scheme))
    fast = chosen(branchy, inputs, "fast", Recipe(scheme))
    assert fast.trials == ()
    feed = inputs((3, 12, 12), 16, seed=99)
    expected = np.concatenate([run_onnx(branchy, {"x": x[None]})[0] for x in feed])

    def level(one: effort.Chosen) -> float:
        return snr(expected, np.concatenate([run_onnx(one.quantized.model, {"x": x[None]})[0] for x in feed]))

    assert level(found) > level(fast) + 0.5  # on pictures that were never seen
    kept = [trial.sqnr_db for trial in found.trials if trial.kept]
    assert kept == sorted(kept)
    assert found.trials[0].candidate == "as it is"
    assert found.trials[-1].candidate == "reconstruction"
    assert found.held_back == 12


def test_what_the_user_said_is_not_asked(branchy: onnx.ModelProto, inputs: Make) -> None:
    base = Recipe(method="minmax", choices=Choices(average="input"), repairs=Repairs(bias=True))
    fixed = frozenset({"method", "average", "bias", "concat", "equalise", "sixteen"})
    found = chosen(branchy, inputs, "best", base, fixed=fixed)
    assert [trial.candidate for trial in found.trials] == ["as it is", "adaptive rounding, bias correction"]
    assert replace(found.recipe, repairs=base.repairs) == base
    assert found.recipe.repairs.bias


@pytest.mark.parametrize("scheme", ["float-scale", "power-of-two", "power-of-two-tensor"])
@pytest.mark.parametrize("choices", [Choices(), Choices(add="accumulator", average="summed")])
def test_reconstruction_is_exact_integers_and_gains(
    scheme: str, choices: Choices, branchy: onnx.ModelProto, inputs: Make
) -> None:
    if scheme == "float-scale" and choices != Choices():
        pytest.skip("float scales have no sums in accumulators")
    quantizer = Quantizer(branchy, inputs((3, 12, 12), 32), threads=1)
    plain = quantizer.quantize(Recipe(scheme, choices=choices))
    result = quantizer.quantize(Recipe(scheme, choices=choices, repairs=Repairs(reconstruct=True, images=32)))
    feed = inputs((3, 12, 12), 16, seed=99)
    expected = np.concatenate([run_onnx(branchy, {"x": x[None]})[0] for x in feed])

    def level(model: onnx.ModelProto) -> float:
        network = read(model)
        assert network.float_nodes == []
        return snr(expected, np.concatenate([network.run({"x": x[None]})["y"] for x in feed]))

    assert level(result.model) > level(plain.model)
    again = quantizer.quantize(Recipe(scheme, choices=choices, repairs=Repairs(reconstruct=True, images=32)))
    assert again.model.SerializeToString(deterministic=True) == result.model.SerializeToString(deterministic=True)


def test_an_unknown_effort_is_refused() -> None:
    assert effort.check("best") == "best"
    with pytest.raises(UsageError, match="did you mean normal"):
        effort.check("normel")
