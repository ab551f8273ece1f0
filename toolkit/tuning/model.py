"""The learned cost model: a Gaussian process over how a choice differs from its task's default.

It predicts `y = log(time / default's time)` with a standard deviation. A part of the process is shared by all tasks,
so that what was learnt on one (say, that unrolling does not pay on this machine) is expected of the others until they
say otherwise; another part is each task's own. Sizes follow Rasmussen and Williams, "Gaussian Processes for Machine
Learning" (2006), algorithm 2.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

SHARED, OWN, LINEAR = 0.20**2, 0.15**2, 0.05**2
"""Variances of `y`: of the shared part, of each task's own, and of a slope along one feature."""

LENGTH = 2.5
"""How far apart, in features, two choices have little to do with each other."""

NOISE = 0.03**2
"""Variance of a measurement of `y`."""

CAUTION = 0.15
"""`y` of choices far from the default before anything is known: they are slower more often than not."""


def _process(a: np.ndarray, tasks_a: np.ndarray, b: np.ndarray, tasks_b: np.ndarray) -> np.ndarray:
    """Covariances, (len(a), len(b)). Zero for the default, which is the origin: its `y` is 0 by definition."""

    def near(left: np.ndarray, right: np.ndarray) -> np.ndarray:
        squares = (left**2).sum(1)[:, None] + (right**2).sum(1)[None] - 2 * left @ right.T
        return np.asarray(np.exp(-np.maximum(squares, 0) / (2 * LENGTH**2)))

    origin = np.zeros((1, a.shape[1]))
    tied = near(a, b) - near(a, origin) @ near(origin, b)
    same = tasks_a[:, None] == tasks_b[None]
    return np.asarray(tied * (SHARED + OWN * same) + LINEAR * (a @ b.T))


def _expected(x: np.ndarray) -> np.ndarray:
    return np.asarray(CAUTION * (1 - np.exp(-(x**2).sum(1) / (2 * LENGTH**2))))


class Model:
    """Fitted to measurements.

    Args:
        x: (n, features), the differences from the default's features.
        tasks: (n,), a number a task.
        y: (n,), log(time / default's time).
    """

    def __init__(self, x: np.ndarray, tasks: Sequence[int], y: np.ndarray) -> None:
        self._x, self._tasks = x, np.asarray(tasks, np.int64)
        self._whiten: np.ndarray = np.zeros((0, 0))
        self._weights: np.ndarray = np.zeros(0)
        if len(x):
            covariance = _process(x, self._tasks, x, self._tasks) + NOISE * np.eye(len(x))
            self._whiten = np.linalg.inv(np.linalg.cholesky(covariance))
            self._weights = self._whiten.T @ (self._whiten @ (y - _expected(x)))

    def predict(self, x: np.ndarray, task: int) -> tuple[np.ndarray, np.ndarray]:
        """Mean and standard deviation of `y` for choices (m, features) of one task."""
        tasks = np.full(len(x), task)
        near = np.exp(-(x**2).sum(1) / (2 * LENGTH**2))
        variance = (1 - near**2) * (SHARED + OWN) + LINEAR * (x**2).sum(1)
        if not len(self._x):
            return _expected(x), np.sqrt(np.maximum(variance, 0))
        covariance = _process(x, tasks, self._x, self._tasks)
        half = self._whiten @ covariance.T
        return _expected(x) + covariance @ self._weights, np.sqrt(np.maximum(variance - (half**2).sum(0), 1e-12))


def expected_gain(mean: np.ndarray, deviation: np.ndarray, best: float) -> np.ndarray:
    """How much lower than `best` a choice's `y` is expected to be, counting nothing where it is higher. A choice that
    no feature tells from the default has no deviation, and nothing to gain.
    """
    deviation = np.maximum(deviation, 1e-6)
    z = (best - mean) / deviation
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return np.asarray((best - mean) * _normal(z) + deviation * density)


def _normal(z: np.ndarray) -> np.ndarray:
    """The normal distribution function, to 1e-5: Abramowitz and Stegun 26.2.17 with fewer terms would do."""
    t = 1 / (1 + 0.2316419 * np.abs(z))
    series = t * (0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))))
    tail = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi) * series
    return np.asarray(np.where(z > 0, 1 - tail, tail))
