"""What of a search the network keeps."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inception_deploy.tuning import database, settle
from inception_deploy.tuning.database import Identity
from inception_deploy.tuning.search import Search
from inception_deploy.tuning.tuned import better, identity, load

from .conftest import Formula

NOISE = 0.02
"""Of a run, up and down."""


@given(ratio=st.floats(0.5, 1.5), noise=st.floats(0, 0.05), seed=st.integers(0, 99))
def test_only_what_is_clear_wins(ratio: float, noise: float, seed: int) -> None:
    random = np.random.default_rng(seed)
    found = settle.wins(list(ratio + random.uniform(-noise, noise, 30)))
    if ratio >= 1 + noise:
        assert not found
    if ratio < 1 - 2 * noise - 1e-9:
        assert found


class Contest:
    """Stands for networks that run: a task's time is 1, or what `gains` says where it has its choice.

    whole: what the network takes besides the sum of its tasks, tuned.
    """

    gains: ClassVar[dict[str, float]] = {}
    whole: ClassVar[float] = 0.0

    def __init__(self, _goal, plans, _threads, _watch) -> None:
        self.plans, self._random = plans, np.random.default_rng(0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    turns = settle.Contest.turns

    @property
    def models(self):
        return self.plans

    def tasks(self, name, of):
        chosen = self.plans[name]
        noisy = 1 + self._random.uniform(-NOISE, NOISE, len(of))
        return {key: n * (self.gains[key] if key in chosen else 1) for key, n in zip(of.values(), noisy, strict=True)}

    def seconds(self, name):
        return sum(self.tasks(name, {key: key for key in self.gains}).values()) + self.whole * bool(self.plans[name])


def settled(monkeypatch, gains: dict[str, float], whole: float = 0.0):
    monkeypatch.setattr(settle, "Contest", Contest)
    monkeypatch.setattr(Contest, "gains", gains)
    monkeypatch.setattr(Contest, "whole", whole)
    return settle.settle(None, frozenset(), lambda keys: keys, frozenset(gains), {key: key for key in gains}, 1, None)  # type: ignore[arg-type]


def test_a_task_keeps_what_wins_in_the_network(monkeypatch) -> None:
    kept, before, after = settled(monkeypatch, {"faster": 0.8, "equal": 1.0, "slower": 1.2})
    assert kept == {"faster"}
    assert after < before


def test_a_network_that_is_not_faster_keeps_its_defaults(monkeypatch) -> None:
    kept, before, after = settled(monkeypatch, {"faster": 0.9, "other": 1.0}, whole=0.3)
    assert (kept, after) == (frozenset(), before)
    kept, before, after = settled(monkeypatch, {"slower": 1.1})
    assert (kept, after) == (frozenset(), before)


def test_nothing_was_faster(monkeypatch) -> None:
    kept, before, after = settled(monkeypatch, {})
    assert (kept, after) == (frozenset(), before)


def test_a_step_of_winograds_is_of_its_layer() -> None:
    steps = [SimpleNamespace(output=name) for name in ("c:0:data", "c:0:products", "c", "d:data", "x:packed", "e")]
    times = [SimpleNamespace(ms=float(2**number)) for number in range(len(steps))]
    contest = object.__new__(settle.Contest)
    contest.plans = {"one": SimpleNamespace(steps=steps)}  # type: ignore[dict-item]
    contest.models = {"one": SimpleNamespace(profile=lambda: times)}  # type: ignore[dict-item]
    contest.inputs = []
    assert contest.tasks("one", {"c": "C", "d": "D", "e": "C"}) == {"C": 1.0 + 2 + 4 + 32, "D": 8.0}


def test_an_export_takes_what_was_kept(folder, tasks, target) -> None:
    owner = identity("net", target)
    with database.create(folder, owner) as opened:
        search = Search(tasks, opened, Formula(target), 2, lambda _what: None)
        search.measure_defaults()
        search.run(40)
        search.confirm()
        found = better(opened, target)
        assert len(found) >= 2
        unsettled = load(folder, "net", target)
        assert unsettled.choices.keys() == found.keys()
        assert "one layer at a time" in unsettled.note()
        first, *others = sorted(found)
        settle.write(opened, settle.Settled(opened.digest(), (first,), tuple(others), 2.0, 1.0))
        taken = load(folder, "net", target)
        assert set(taken.choices) == {first}
        assert f"{len(others)} choices that were faster alone" in taken.note()
        search.run(41)  # more was measured since
        assert load(folder, "net", target).choices.keys() >= {first}
        assert settle.read(opened) is None


@pytest.mark.parametrize("text", ["", "{}", "[1]", json.dumps({"digest": 1, "kept": 2})])
def test_a_damaged_settlement_counts_as_none(folder, tasks, text) -> None:
    with database.create(folder, Identity("net", "cpu:avx2", {}, "0")) as opened:
        (folder / settle.SETTLED).write_text(text)
        assert settle.read(opened) is None


def test_what_integers_were_tuned_is_known_by_the_target(target) -> None:
    assert identity("net", target).target == "cpu:avx2"
    assert identity("net", replace(target, precision=target.at("int8").precision)).target == "cpu:avx2 at int8"
