"""Winograd's algorithm in networks of bytes: every bit is the reference's, whatever tile, scheme and end a layer has."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from inception_deploy import targets
from inception_deploy.kernels.bytes import winograd
from inception_deploy.kernels.spec import Conv, applies
from inception_deploy.lower import by_winograd
from inception_deploy.quantize import quantize
from inception_deploy.quantize.scheme import Choices
from inception_deploy.targets.cpu import Cpu

from .conftest import Builder, Compiled
from .test_integers import averaged, branches, check, model_of, residual, signed

TARGET = targets.parse("cpu:avx2").at("int8")


def edges(b: Builder, x: str) -> str:
    """Zero points that padding reads, on one side only too, and a map that no tile divides."""
    y = b.conv(signed(b, x), 16, 20, (1, 3), pads=[0, 1, 0, 1])
    y = b.conv(y, 20, 16, (3, 1), pads=[1, 0, 0, 0])
    return b.conv(b.op("Relu", b.conv(y, 16, 33, pads=[1, 0, 2, 1])), 33, 17)


def sums(b: Builder, x: str) -> str:
    """A residual add with its Relu behind the way back, and a result that leaves as float."""
    y = b.op("Relu", signed(b, x))
    return b.conv(b.op("Relu", b.op("Add", b.conv(y, 16, 16, pads=[1, 1, 1, 1]), y)), 16, 8, pads=[1, 1, 1, 1])


def halves(b: Builder, x: str) -> str:
    """Stride 2, on maps of odd and of even sizes."""
    y = b.op("Relu", b.conv(signed(b, x), 16, 20, pads=[1, 1, 1, 1], strides=[2, 2]))
    return b.conv(b.conv(y, 20, 16, pads=[1, 1, 1, 1]), 16, 8, pads=[0, 1, 1, 0], strides=[2, 2])


@pytest.fixture
def always(monkeypatch: pytest.MonkeyPatch) -> Callable[[tuple[int, int]], None]:
    """A function: from now on every layer that can is done in tiles of so many outputs, as far as its kernel goes."""

    def set_(outputs: tuple[int, int]) -> None:
        def pays(spec: Conv, isa: Any) -> tuple[int, int] | None:
            wanted = [m if taps > 1 else 1 for m, taps in zip(outputs, spec.kernel, strict=True)]
            return next((found for found in winograd.options(spec, isa) if list(found) == wanted), None)

        monkeypatch.setattr(winograd, "pays", pays)

    return set_


def compiled(make: Any, scheme: str, folder: Path, **how: Any) -> tuple[Any, Any, Compiled]:
    if reason := TARGET.missing():
        pytest.skip(reason)
    model, pictures = model_of(make)
    quantized = quantize(model, list(pictures), scheme=scheme, choices=Choices(**how)).model
    return quantized, pictures, Compiled(quantized, TARGET, folder / "network.so")


CASES = [
    (edges, "float-scale", (4, 4), {}),
    (edges, "power-of-two", (3, 2), {}),
    (edges, "float-scale-int8", (2, 3), {}),
    (sums, "float-scale", (3, 3), {}),
    (sums, "power-of-two", (4, 4), {}),
    (halves, "float-scale", (2, 2), {}),
    (halves, "power-of-two", (4, 3), {}),
    (branches, "float-scale", (2, 2), {}),
    (residual, "power-of-two", (4, 4), {"add": "accumulator"}),
    (averaged(1), "power-of-two", (4, 3), {"average": "summed"}),
]


@pytest.mark.parametrize(("make", "scheme", "outputs", "how"), CASES)
def test_every_bit_is_the_references(make, scheme, outputs, how, always, tmp_path) -> None:
    always(outputs)
    quantized, pictures, made = compiled(make, scheme, tmp_path, **how)
    ops = [step.op for step in made.plan.steps]
    assert ops.count("winograd_in") == ops.count("winograd_out") > 0
    left = [kernel.spec for kernel in made.plan.kernels.values() if isinstance(kernel.spec, Conv)]
    assert not [spec for spec in left if spec.quantized and applies(spec) and set(spec.kernel) <= {1, 3}]
    check(quantized, pictures, made)


def test_bands(always, monkeypatch, tmp_path) -> None:
    """A few tile rows at a time, in the same memory."""
    monkeypatch.setattr(by_winograd, "BAND_BYTES", 1)
    always((2, 2))
    quantized, pictures, made = compiled(sums, "float-scale", tmp_path)
    assert [step.op for step in made.plan.steps].count("winograd_out") > 3
    check(quantized, pictures, made)


def test_a_target_that_multiplies_bytes_does_without(tmp_path) -> None:
    """Its instructions do more bytes at once than Winograd's algorithm would spare."""
    spec = Conv(1, 64, 56, 56, 64, 56, 56, (3, 3), pad=(1, 1), in_element="uint8")
    for name, wanted in (("cpu:avx2", (4, 4)), ("cpu:avx512-vnni", None), ("arm:cortex-a72", None)):
        target = targets.parse(name)
        assert isinstance(target, Cpu)
        assert target.winograd(spec) == wanted
