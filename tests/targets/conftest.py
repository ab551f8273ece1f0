"""Small plans of hand-written kernels, built into libraries."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from inception_deploy.lower.plan import Kernel, Plan, Port, Ref, Step, memories
from inception_deploy.targets import cpu_library, library, link

COUNT = 4096
BYTES = 4 * COUNT
C = Path(__file__).parent / "c"
POINTERS = {"t_gather": 3, "t_copy": 2, "t_count": 1, "t_fail": 2, "t_wait": 2, "t_sum20": 21, "t_tvm": 2}
TRIPLES = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu", "armv7l": "arm-linux-gnueabihf"}


class Tiny:
    """Makes plans over arrays of 4096 floats, and libraries of them.

    Values are named by number: `at(n)` is the n-th array of the arena.
    """

    triple = TRIPLES.get(platform.machine(), "")
    input = Ref("input:0", 0)
    output = Ref("output:0", 0)
    weight = Ref("weights", 0)

    def at(self, number: int) -> Ref:
        return Ref("arena", number * BYTES)

    def step(self, kernel: str, wave: int, *args: Ref, macs: int = 10_000_000, name: str = "") -> Step:
        return Step(kernel, args, wave, (name or f"{kernel}_{wave}",), kernel[2:], f"{kernel}_{wave}:0", macs)

    def plan(self, *steps: Step, weights: bytes | None = None, arrays: int = 0, outputs: int = 1) -> Plan:
        weights = np.arange(COUNT, dtype="<f4").tobytes() if weights is None else weights
        taken, given = (Port("pixels", (1, COUNT)),), tuple(Port(f"out{i}", (COUNT,)) for i in range(outputs))
        return Plan(
            target="cpu",
            inputs=taken,
            outputs=given,
            kernels={name: Kernel(name, None, None, count, COUNT // 16) for name, count in POINTERS.items()},
            steps=steps,
            weights=weights,
            memories=memories(taken, given, arena=max(arrays, 1) * BYTES, weights=len(weights)),
        )

    def chain(self, length: int, *, macs: int = 10_000_000) -> Plan:
        """`length` gathers, one after the other."""
        steps = []
        for i in range(length):
            source = self.input if i == 0 else self.at(i % 2)
            goal = self.output if i == length - 1 else self.at((i + 1) % 2)
            steps.append(self.step("t_gather", i, source, self.weight, goal, macs=macs))
        return self.plan(*steps, arrays=2)

    def chained(self, x: np.ndarray, length: int) -> np.ndarray:
        """What `chain` computes, in numpy."""
        value, index = x.reshape(-1), np.arange(COUNT)
        for _ in range(length):
            value = value[(5 * index + 3) % COUNT] + index.astype(np.float32)
        return value

    def classifier(self, shape: tuple[int, int]) -> Plan:
        """The input as it is, as an output of this shape."""
        plan = self.plan(self.step("t_copy", 0, self.input, self.output))
        return replace(plan, outputs=(Port("out0", shape),))

    def objects(self, triple: str = "") -> Mapping[str, bytes]:
        data = link.compile_c((C / "kernels.c").read_text(), "kernels.c", triple or self.triple)
        return dict.fromkeys(POINTERS, data)

    def write(self, plan: Plan, folder: Path, features: tuple[str, ...] = ()) -> list[str]:
        parts = [cpu_library.part(plan, self.objects())]
        return library.write_library(plan, parts, folder, triple=self.triple, features=features)


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    if not Tiny.triple:
        pytest.skip(f"the C runtime is not built for {platform.machine()}")
    return Tiny()


@pytest.fixture
def build(tiny: Tiny, tmp_path: Path) -> Callable[..., Path]:
    """Build a plan into a fresh folder."""

    def build_one(plan: Plan, features: tuple[str, ...] = ()) -> Path:
        folder = tmp_path / f"model{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        tiny.write(plan, folder, features)
        return folder

    return build_one


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(7).integers(0, 9, (1, COUNT)).astype(np.float32)
