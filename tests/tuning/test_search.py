"""What the search measures, and what it makes of it."""

from __future__ import annotations

import pytest

from inception_deploy.errors import DeployError
from inception_deploy.tuning import database
from inception_deploy.tuning.database import Identity
from inception_deploy.tuning.measure import Timing
from inception_deploy.tuning.search import Search
from inception_deploy.tuning.space import Space, main_spec
from inception_deploy.tuning.tuned import better, with_choices
from inception_deploy.verify import bound

from .conftest import Formula

OWNER = Identity("net", "cpu:avx2", {"mcpu": "x86-64-v3"}, "0.27.0")


def searched(folder, tasks, meter, trials: int, create: bool = True) -> Search:
    opened = database.create(folder, OWNER) if create else database.resume(folder, OWNER)[0]
    with opened:
        search = Search(tasks, opened, meter, 2, lambda _what: None)
        search.measure_defaults()
        search.run(trials)
        search.confirm()
        return search


def test_it_finds_what_there_is_to_find(folder, tasks, target, formula) -> None:
    search = searched(folder, tasks, formula, 48)
    assert search.trials == 48
    first = search.states[0]
    assert first.ratio < 0.9
    assert (first.best.schedule.unroll == 2) + (first.best.schedule.fetch == 0) >= 1
    counts = [len(state.ratios) for state in search.states]
    assert counts[0] > max(counts[1:]), "eight layers of ten are worth the most trials"


def test_the_default_is_trial_zero_and_is_not_counted(folder, tasks, formula) -> None:
    search = searched(folder, tasks, formula, 1)
    assert [choice for _, choice in formula.asked[:3]] == [state.space.default for state in search.states]
    assert search.trials == 1
    assert [state.seconds for state in search.states] == pytest.approx([1e-3] * 3, rel=bound("timing"))


def test_it_goes_on_where_it_stopped(folder, tasks, formula, target) -> None:
    searched(folder, tasks, formula, 6)
    before = list(formula.asked)
    meter = Formula(target)
    search = searched(folder, tasks, meter, 10, create=False)
    assert search.trials == 10
    fresh = [choice for choice in meter.asked if choice not in before]
    assert len(fresh) == 4, "what was measured is not measured again"


def test_failures_count_and_are_never_chosen(folder, tasks, target) -> None:
    meter = Formula(target, broken=Space(tasks[0], target).default.schedule.pixels)
    with database.create(folder, OWNER) as opened:
        search = Search(tasks[:1], opened, meter, 2, lambda _what: None)
        search.measure_defaults()
        search.run(30)
        search.confirm()
        assert search.trials == 30
        assert float("inf") in search.states[0].ratios.values()
        assert all(found.choice.schedule.pixels != meter.broken for found in better(opened, target).values())


def test_a_default_that_cannot_be_timed(folder, tasks, target) -> None:
    class Dead(Formula):
        def time(self, trials, repeat=2):
            return [Timing(error="Traceback\nOSError: no such device") for _ in trials]

    with pytest.raises(DeployError, match=r"default of layer b .* cannot be timed: OSError: no such device"):
        searched(folder, tasks, Dead(target), 4)


def test_only_confirmed_choices_are_used(folder, tasks, target, formula) -> None:
    with database.create(folder, OWNER) as opened:
        search = Search(tasks, opened, formula, 2, lambda _what: None)
        search.measure_defaults()
        search.run(40)
        assert search.states[0].ratio < 0.95
        assert better(opened, target) == {}
        search.confirm()
        found = better(opened, target)
        assert found[tasks[0].key].ratio == pytest.approx(search.states[0].ratio)
        assert all(one.ratio < 0.98 for one in found.values())


def test_the_same_database_gives_the_same_choices(folder, tasks, target, formula) -> None:
    searched(folder, tasks, formula, 30)
    one, other = (better(database.read(folder, OWNER), target) for _ in range(2))
    assert one == other != {}


def test_what_a_bundle_says_of_it(folder, tasks, target, formula) -> None:
    searched(folder, tasks, formula, 30)
    opened = database.read(folder, OWNER)
    tuned = with_choices(target, better(opened, target), opened.digest())
    choice = tuned.choices[tasks[0].key].choice
    assert tuned.winograd(tasks[0].spec) == choice.outputs
    assert "no record" in tuned.note()
    assert tuned.schedule(main_spec(tasks[0].spec, choice.outputs)) == choice.schedule
    assert tuned.note() == "1 kernels take their schedules from the database"
    (row,) = tuned.manifest()["kernels"]
    assert row["layer"] == "32-64 3x3 @17x17"
    assert row["knobs"]["unroll"] == choice.schedule.unroll
    assert tuned.manifest()["database_sha256"] == opened.digest()


def test_samples_are_paired() -> None:
    """A slow moment that hits a pair of samples cancels out."""
    timing = Timing(default=(1.0, 3.0, 1.0), choice=(0.5, 1.5, 0.5))
    assert timing.seconds() == (0.5, 0.5, 0.5)
    assert timing.seconds(2.0) == (1.0, 1.0, 1.0)
    assert Timing(error="no").seconds() == (1e10,)
