"""A small network's tasks, and a meter that computes times instead of measuring them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from inception_deploy import targets
from inception_deploy.kernels.elements import PAIR, WIDE
from inception_deploy.kernels.spec import Conv, Output, Window, WindowOp
from inception_deploy.targets.cpu import Cpu
from inception_deploy.tuning.measure import Timing
from inception_deploy.tuning.space import Choice, Space
from inception_deploy.tuning.task import Task

RELU = (0.0, math.inf)


@pytest.fixture(scope="session")
def target() -> Cpu:
    found = targets.parse("cpu:avx2")
    assert isinstance(found, Cpu)
    return found


@pytest.fixture(scope="session")
def tasks() -> list[Task]:
    """A 3x3 convolution that eight layers share, a 1x1 and a strided one."""
    return [
        Task(Conv(1, 32, 17, 17, 64, 17, 17, (3, 3), pad=(1, 1), activation=RELU), True, 8, ("a", "b")),
        Task(Conv(1, 64, 17, 17, 96, 17, 17, (1, 1), add=True), True, 1, ("c",)),
        Task(Conv(1, 32, 17, 17, 32, 8, 8, (3, 3), (2, 2), activation=RELU), True, 1, ("d",)),
    ]


@pytest.fixture(scope="session")
def tiled() -> list[Task]:
    """For matrix tiles: an unpadded 3x3 whose output has a frame, a 1x1 with a residual, the network's own input, a
    pool between pairs and fp32, three siblings, groups of four channels by vectors.
    """
    kept = {"in_element": PAIR, "add_element": PAIR, "out_element": PAIR}
    mixed = {"in_element": WIDE, "out_element": PAIR}
    none = (0, 0, 0, 0)
    siblings = (
        Output(32, RELU, none, 0, PAIR),
        Output(64, None, (1, 1, 1, 1), 0, PAIR),
        Output(96, RELU, none, 0, WIDE),
    )
    specs = [
        Conv(1, 64, 19, 19, 96, 17, 17, (3, 3), activation=RELU, frame=(0, 3, 0, 3), **kept),
        Conv(1, 96, 17, 17, 64, 17, 17, (1, 1), add=True, **kept | {"add_element": WIDE}),
        Conv(1, 4, 35, 35, 32, 17, 17, (3, 3), (2, 2), planar=True, **kept | {"out_element": WIDE}),
        Window(WindowOp.MAX, 1, 3, 17, 17, 8, 8, (3, 3), (2, 2), (0,) * 4, **mixed),
        Conv(1, 64, 17, 17, 192, 17, 17, (1, 1), split=siblings, **kept),
        Window(WindowOp.DEPTHWISE, 1, 2, 9, 9, 9, 9, (3, 3), (1, 1), (1,) * 4, frame=(1, 2, 3, 4), group=4, **mixed),
    ]
    return [Task(spec, False, 1, (str(number),)) for number, spec in enumerate(specs)]


class Formula:
    """Stands for `measure.Meter`: a choice's time is a function of its knobs, with the same noise every time.

    broken: choices with so many pixels in a tile fail.
    """

    def __init__(self, target: Cpu, broken: int = 0) -> None:
        self.target, self.broken = target, broken
        self.asked: list[tuple[str, Choice]] = []

    def time(self, trials: Sequence[tuple[Task, Space, Choice]], repeat: int = 2) -> list[Timing]:
        found = []
        for task, space, choice in trials:
            self.asked.append((task.key, choice))
            if choice.schedule.pixels == self.broken and choice != space.default:
                found.append(Timing(error="illegal instruction"))
                continue
            default = self.seconds(space.default, space.default)
            noise = [1 + 0.01 * math.sin(7.3 * len(self.asked) + i) for i in range(8 * repeat)]
            own = self.seconds(choice, space.default)
            found.append(Timing(tuple(default for _ in noise), tuple(own * n for n in noise)))
        return found

    @staticmethod
    def seconds(choice: Choice, default: Choice) -> float:
        """Fastest with two lanes unrolled and no weights fetched; everything else only ever costs time."""
        factor = 1.0 if choice.outputs == default.outputs else 1.2
        factor *= 0.9 ** (choice.schedule.unroll == 2) * 0.92 ** (choice.schedule.fetch == 0)
        factor *= 1 + 0.05 * abs(choice.schedule.pixels - default.schedule.pixels)
        return 1e-3 * factor * (1.1 if choice.schedule.k_block else 1.0)


@pytest.fixture
def formula(target: Cpu) -> Formula:
    return Formula(target)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "found.db"
