"""The learned cost model: certain of the default, and of what it was told; careful elsewhere."""

from __future__ import annotations

import numpy as np
import pytest

from inception_deploy.tuning.model import CAUTION, Model, expected_gain
from inception_deploy.verify import bound

NOTHING = Model(np.zeros((0, 3)), [], np.zeros(0))


def test_before_any_measurement() -> None:
    mean, deviation = NOTHING.predict(np.array([[0.0, 0, 0], [0.1, 0, 0], [9, 0, 0]]), 0)
    assert mean[0] == deviation[0] == 0
    assert 0 < deviation[1] < deviation[2]
    assert expected_gain(mean, deviation, 0.0)[0] == pytest.approx(0, abs=bound("rounding"))
    assert mean[2] == pytest.approx(CAUTION, abs=bound("expected-gain"))


def test_it_believes_what_it_sees() -> None:
    x = np.array([[1.0, 0, 0], [0, 2, 0], [0, 0, 3]])
    y = np.array([-0.3, 0.2, 0.0])
    mean, deviation = Model(x, [0, 0, 0], y).predict(x, 0)
    assert mean == pytest.approx(y, abs=bound("predicted"))
    assert (deviation < bound("timing")).all()


def test_one_task_learns_from_another_and_trusts_itself_more() -> None:
    x, y = np.array([[1.0, 1, 0]]), np.array([-0.4])
    model = Model(x, [0], y)
    own, other = (float(model.predict(x, task)[0][0]) for task in (0, 1))
    untold = float(NOTHING.predict(x, 1)[0][0])
    assert own < other < untold


def test_it_finds_a_slope_in_noise() -> None:
    random = np.random.default_rng(0)
    x = random.uniform(-2, 2, (60, 3))
    y = 0.1 * x[:, 0] + 0.02 * random.standard_normal(60)
    model = Model(x, [0] * 60, y)
    fresh = random.uniform(-2, 2, (40, 3))
    mean, _ = model.predict(fresh, 0)
    assert np.abs(mean - 0.1 * fresh[:, 0]).mean() < bound("predicted")


def test_expected_gain() -> None:
    gains = expected_gain(np.array([0.0, -0.1, 0.5]), np.array([0.1, 0.1, 1e-6]), -0.0)
    assert gains[0] == pytest.approx(0.1 * 0.39894, rel=bound("expected-gain"))
    assert gains[1] == pytest.approx(0.10833, rel=bound("expected-gain"))  # 0.1 * (Phi(1) + phi(1))
    assert 0 <= gains[2] < bound("float64")
