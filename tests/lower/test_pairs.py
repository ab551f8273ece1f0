"""Which layers' weights fit 16 bits two by two is decided by where their channels lie, and no bit depends on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from inception_deploy import targets
from inception_deploy.kernels.dots import VPMADDUBSW
from inception_deploy.kernels.spec import Conv
from inception_deploy.lower import pairs
from inception_deploy.lower.lower import layers_for
from inception_deploy.quantize import quantize

from .conftest import Builder, Compiled
from .test_integers import check, model_of, signed

TARGET = targets.parse("cpu:avx2").at("int8")


def odd(b: Builder, x: str) -> str:
    """A concat of odd numbers of channels, each in blocks of its own: neighbours of the file are none there."""
    y = b.op("Relu", signed(b, x))
    y = b.op("Concat", *[b.op("Relu", b.conv(y, 16, count)) for count in (3, 5, 7)], axis=1)
    return b.conv(b.op("Relu", b.conv(y, 15, 33)), 33, 16)


def test_channels_count_where_they_lie(tmp_path: Path) -> None:
    if reason := TARGET.missing():
        pytest.skip(reason)
    model, pictures = model_of(odd)
    quantized = quantize(model, pictures, scheme="float-scale-reduced").model
    made = Compiled(quantized, TARGET, tmp_path / "network.so")
    check(quantized, pictures, made)


def test_a_layer_that_does_not_fit_takes_the_slower_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """One with two large neighbours among the weights as they lie, and none else."""
    model, pictures = model_of(odd)
    seen: list[np.ndarray] = []
    right = VPMADDUBSW.pairs_fit
    monkeypatch.setattr(pairs, "in_slots", lambda *given, real=pairs.in_slots: seen.append(real(*given)) or seen[-1])
    for scheme in ("float-scale", "float-scale-reduced"):
        seen.clear()
        network = layers_for(quantize(model, pictures, scheme=scheme).model, TARGET)
        fits = [la.spec.pairs_fit for la in network.layers if isinstance(la.spec, Conv) and la.spec.quantized]
        assert fits == [right(weight) for weight in seen]
        assert any(fits) if scheme == "float-scale-reduced" else not all(fits)
