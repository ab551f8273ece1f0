"""Who does a depthwise or grouped convolution: a VTA, or its host."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from inception_deploy import targets
from inception_deploy.kernels.vta.accelerator import DEPTHWISE, Accelerator
from inception_deploy.kernels.vta.boards import BOARDS
from inception_deploy.kernels.vta.config import Config
from inception_deploy.kernels.vta.hosts import HANDED_OVER_MS, Host
from inception_deploy.lower.lower import lower
from inception_deploy.lower.plan import Plan
from inception_deploy.targets.vta_target import VtaTarget

from .test_integers import depthwise, grouped, model_of, plain
from .test_on_vta import quantized
from .vta import Executed


def planned(make: Any, board: Any = BOARDS["pynq"], who: str = "faster") -> Plan:
    model, pictures = model_of(make)
    target = targets.parse("vta:sim").at("int8")
    assert isinstance(target, VtaTarget)
    target = replace(target, vta=Accelerator("it", Config(), board, depthwise=who))
    return lower(quantized(model, pictures, "power-of-two"), target)


@pytest.mark.parametrize("make", [depthwise, grouped])
def test_the_faster_of_both(make: Any) -> None:
    """What is small is not worth a stream more, whoever multiplies faster; a host that takes no time has all of it."""
    here = planned(make)
    assert here.compared
    assert {row.device for row in here.compared} == {"vta"}
    assert all(row.vta < row.host + row.crossing for row in here.compared)
    assert min(row.crossing for row in here.compared) > HANDED_OVER_MS
    slow = replace(BOARDS["pynq"], mhz=1.0, host=Host(64, 5000, 1e6, 4, 4))
    there = planned(make, slow)
    assert {row.device for row in there.compared} == {"cpu"}
    assert all(row.vta > row.host + row.crossing for row in there.compared)
    reasons = {row.node: row.reason for row in there.kept}
    for row in there.compared:
        assert reasons[row.node].startswith(
            f"{row.host:.2f} ms and {row.crossing:.2f} to hand it over, {row.vta:.2f} on the"
        )


def test_other_layers_are_not_compared() -> None:
    assert not planned(plain, who="host").compared


@pytest.mark.parametrize("who", DEPTHWISE)
@pytest.mark.parametrize("make", [depthwise, grouped])
def test_whoever_does_it_computes_the_same(make: Any, who: str) -> None:
    model, pictures = model_of(make)
    accelerator = Accelerator("pynq", Config(), BOARDS["pynq"], depthwise=who)
    made = Executed(quantized(model, pictures, "power-of-two"), pictures[:2], accelerator)
    assert made.compared
    assert not made.wrong
    assert {row.device for row in made.network.compared} == {"cpu" if who == "host" else "vta"}
    assert bool(made.network.kept) == (who == "host")
    assert all(row.reason.startswith("asked for by depthwise=host: ") for row in made.network.kept)


def test_a_host_that_does_nothing_and_somebody_who_is_nobody() -> None:
    with pytest.raises(ValueError, match="does nothing"):
        Host(0, 650, 2100, 0.4, 1.3)
    with pytest.raises(ValueError, match="'gpu' is none of faster, vta, host"):
        Accelerator("it", Config(), BOARDS["pynq"], depthwise="gpu")
