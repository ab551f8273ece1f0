"""Bytes of pictures are normalised in one step: the numbers stay, whatever is written for it and wherever it ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from inception_deploy.graph.driver import optimise
from inception_deploy.targets import parse
from inception_deploy.verify import bound

from ..cases.build import Net
from .conftest import Compiled

PLANES = [0, 3, 1, 2]


def channel(net: Net, *values: float) -> str:
    return net.constant(np.reshape(values, (1, len(values), 1, 1)))


def usual(net: Net, x: str) -> str:
    x = net.op("Cast", net.op("Transpose", x, perm=PLANES), to=1)
    return net.op("Add", net.op("Mul", x, channel(net, 0.02, 0.017, 0.03)), channel(net, -2.0, -1.8, 1.0))


def others(net: Net, x: str) -> str:
    """Of TensorFlow's: one number for all channels, and a division."""
    x = net.op("Cast", net.op("Transpose", x, perm=PLANES), to=1)
    return net.op("Div", net.op("Sub", x, net.constant(127.5)), net.constant([127.5]))


def bare(net: Net, x: str) -> str:
    return net.op("Cast", net.op("Transpose", x, perm=PLANES), to=1)


def planes(net: Net, x: str) -> str:
    """NCHW as it comes."""
    return net.op("Mul", net.constant(np.reshape([0.5, 2.0, -1.0], (3, 1, 1))), net.op("Cast", x, to=1))


def read_twice(net: Net, x: str) -> str:
    """What lies between is read by another node too."""
    x = net.op("Mul", net.op("Cast", net.op("Transpose", x, perm=PLANES), to=1), net.constant(0.01))
    return net.op("Add", net.op("Add", x, channel(net, 1.0, 2.0, 3.0)), net.op("Relu", x))


def the_other_way(net: Net, x: str) -> str:
    """The constant is what is subtracted from, and another has a value for each pixel."""
    x = net.op("Sub", net.constant(255.0), bare(net, x))
    return net.op("Add", x, net.constant(np.arange(35).reshape(1, 1, 5, 7)))


@pytest.mark.parametrize(
    ("chain", "steps"),
    [(usual, 1), (others, 1), (bare, 1), (planes, 1), (read_twice, 4), (the_other_way, 3)],
    ids=lambda value: getattr(value, "__name__", None),
)
@pytest.mark.parametrize("batch", [1, 3])
def test_bytes(tmp_path, chain: Callable[[Net, str], str], steps: int, batch: int) -> None:
    net = Net(opset=17)
    x = net.input(batch, *((3, 5, 7) if chain is planes else (5, 7, 3)), dtype="uint8")
    net.inputs[x] = net.random.integers(0, 256, net.inputs[x].shape).astype(np.uint8)
    y = net.op("Conv", chain(net, x), net.weight(8, 3, 3, 3), pads=[1] * 4, kernel_shape=[3, 3])
    case = net.case(chain.__name__, y)
    model, _ = optimise(case.model, verify=False)
    made = Compiled(model, parse("cpu:avx2"), tmp_path / "net.so")
    assert made.ops[0] == "normalise"
    assert len(made.ops) <= steps + 1
    assert not [refusal for refusal in made.plan.refusals if refusal.op in ("Cast", "Transpose")]
    (got,), (want,) = made.run(*case.inputs.values()), case.right()
    np.testing.assert_allclose(got, want, rtol=0, atol=bound("kernel") * float(np.abs(want).max()))


def test_they_may_be_given_out(tmp_path) -> None:
    """Behind the step nothing is computed."""
    net = Net(opset=17)
    x = net.input(1, 4, 6, 3, dtype="uint8")
    case = net.case("out", usual(net, x))
    made: Any = Compiled(optimise(case.model, verify=False)[0], parse("cpu:avx2"), tmp_path / "net.so")
    assert made.ops == ["normalise"]
    np.testing.assert_allclose(
        made.run(*case.inputs.values())[0], case.right()[0], rtol=bound("kernel"), atol=bound("rounding")
    )
