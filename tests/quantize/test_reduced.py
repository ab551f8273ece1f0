"""Weights that no instruction saturates by: neighbours of one sign come to 128 at most, however they were rounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import numpy_helper

from inception_deploy import targets
from inception_deploy.quantize import effort
from inception_deploy.quantize.integer_weights import fit_pairs, neighbours, round_weight, scales
from inception_deploy.quantize.pictures import pictures
from inception_deploy.quantize.quantizer import Quantizer, Recipe
from inception_deploy.quantize.repair import Repairs
from inception_deploy.quantize.scheme import PAIR, SCHEMES, Params

Make = Callable[..., NDArray[np.float32]]

SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 7), st.integers(1, 2), st.integers(1, 3))


@given(data=st.data())
def test_the_nearest_integers_fit(data: st.DataObject) -> None:
    weight = data.draw(arrays(np.float64, SHAPES, elements=st.floats(-4, 4, width=16)))
    reduced = SCHEMES["float-scale-reduced"]
    scale = scales(weight, None, Params(0.1, 128, "uint8"), reduced)
    assert neighbours(round_weight(weight, scale, reduced).astype(int)).max() <= PAIR
    whole = scales(weight, None, Params(0.1, 128, "uint8"), SCHEMES["float-scale"])
    assert (scale >= whole).all()
    assert (scale <= whole * 2.01).all()  # never more than the one bit that 7-bit weights lose


@given(q=arrays(np.int8, SHAPES, elements=st.one_of(st.sampled_from([-127, 127, 64, -64, 65]), st.integers(-127, 127))))
def test_integers_are_made_to_fit_and_left_where_they_do(q: NDArray[np.int8]) -> None:
    made = fit_pairs(q)
    assert neighbours(made.astype(int)).max() <= PAIR
    assert (np.abs(made.astype(int)) <= np.abs(q.astype(int))).all()
    over = neighbours(q.astype(int)).max() > PAIR
    assert bool((made != q).any()) == over


def weights(model: onnx.ModelProto) -> list[NDArray[Any]]:
    """Integer weights of layers, as the file has them."""
    found = [numpy_helper.to_array(constant) for constant in model.graph.initializer]
    return [array.astype(int) for array in found if array.dtype == np.int8 and array.ndim > 1]


@pytest.mark.parametrize("repairs", [Repairs(), Repairs(rounding=True), Repairs(reconstruct=True, images=16)])
def test_every_layer_of_a_network(repairs: Repairs, branchy: onnx.ModelProto, inputs: Make) -> None:
    quantizer = Quantizer(branchy, inputs((3, 12, 12), 32), threads=1)
    made = weights(quantizer.quantize(Recipe("float-scale-reduced", repairs=repairs)).model)
    assert made
    assert max(neighbours(q).max() for q in made) <= PAIR
    whole = weights(quantizer.quantize(Recipe("float-scale", repairs=repairs)).model)
    assert max(neighbours(q).max() for q in whole) > PAIR


def test_the_whole_range_is_asked_for_where_the_scheme_gives_some_up(branchy: onnx.ModelProto, inputs: Make) -> None:
    rest, held = effort.split(branchy, pictures(inputs((3, 12, 12), 48), (3, 12, 12)))
    words = "the whole range of weights"
    for name, fixed, asked in [
        ("float-scale-reduced", frozenset[str](), True),
        ("float-scale-reduced", frozenset({"scheme"}), False),
        ("float-scale", frozenset[str](), False),
    ]:
        quantizer = Quantizer(branchy, rest, threads=1)
        found = effort.choose(quantizer, Recipe(name), "normal", held, fixed=fixed, threads=1)
        trials = {trial.candidate: trial for trial in found.trials}
        assert (words in trials) == asked
        kept = asked and trials[words].kept
        assert found.recipe.scheme == found.quantized.scheme.name == ("float-scale" if kept else name)


def test_it_is_the_default_where_sums_of_bytes_saturate() -> None:
    found = {name: targets.parse(name).scheme_by_default for name in ("cpu:avx2", "cpu:avx-vnni", "cpu:avx512-vnni")}
    assert found == {"cpu:avx2": "float-scale-reduced", "cpu:avx-vnni": "float-scale", "cpu:avx512-vnni": "float-scale"}
    assert targets.parse("arm:cortex-a72").scheme_by_default == "float-scale"
