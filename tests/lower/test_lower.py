"""Lowering is a list: what each pass may rely on is its place in it, and what it did is a diff of two texts."""

from __future__ import annotations

import difflib

import pytest

from inception_deploy import targets
from inception_deploy.lower.lower import CHOSEN, PASSES, layers_for, lower


def dumps(model, target) -> dict[str, str]:
    found: dict[str, str] = {}
    lower(model, target, dump=found.__setitem__)
    return found


@pytest.fixture
def residual(builder):
    made = builder()
    x = made.input(1, 32, 12, 12)
    y = made.conv(x, 32, 32, pads=[1] * 4)
    y = made.op("Relu", made.op("Add", made.conv(y, 32, 32, pads=[1] * 4), y))
    return made.model(made.op("Concat", y, made.conv(y, 32, 16, (1, 1)), axis=1))


def test_every_pass_says_why_it_stands_where_it_does() -> None:
    names = [entry.name for entry in PASSES]
    assert len(set(names)) == len(names)
    assert all(entry.why_here and entry.condition for entry in PASSES)
    assert names.index("on_tiles") < names.index("elements") < names.index("siblings")
    assert names.index(CHOSEN) < names.index("waves") < names.index("place") < names.index("strides")


def test_a_dump_after_each_pass_that_is_on(residual) -> None:
    vectors, tiles = targets.parse("cpu:avx512"), targets.parse("cpu:avx512-amx").at("bf16")
    on = [[entry.name for entry in PASSES if entry.on(target)] for target in (vectors, tiles)]
    assert [[name[3:] for name in dumps(residual, target)][1:] for target in (vectors, tiles)] == on
    assert "by_winograd" in on[0]
    assert "on_tiles" in on[1]
    assert not {"by_winograd", "siblings"} <= set(on[0])


def test_a_diff_of_two_dumps_shows_what_the_pass_did(residual) -> None:
    found = {name[3:]: text for name, text in dumps(residual, targets.parse("cpu:avx512")).items()}
    names = list(found)
    before, after = found[names[names.index("waves") - 1]], found["waves"]
    assert " wave " not in before
    assert after.count("  wave ") == after.count("  writes ")
    changed = [line for line in difflib.ndiff(before.splitlines(), after.splitlines()) if line.startswith("+ ")]
    assert len(changed) == after.count("  writes ")
    placed = found["place"]
    assert " at 0" in placed
    assert "arena " in placed
    assert " at 0" not in found["share_adds"]


def test_the_same_network_gives_the_same_text(residual) -> None:
    target = targets.parse("cpu:avx512")
    assert dumps(residual, target) == dumps(residual, target)


def test_tuning_sees_the_layers_before_its_choices(residual) -> None:
    network = layers_for(residual, targets.parse("cpu:avx512"))
    assert {layer.op for layer in network.layers} <= {"pack", "conv", "copy", "unpack"}
    assert all(layer.wave < 0 for layer in network.layers)
