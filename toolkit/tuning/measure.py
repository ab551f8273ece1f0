"""MetaSchedule's builder and runners for trials. Both sides of a runner are here: what it asks, and the function that
its worker process runs.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from ..errors import DeployError
from ..lower.plan import GPU
from ..targets.base import Target
from ..targets.cuda import Cuda
from . import gpu_trial
from .database import FAILED, knobs_of, scheduled, task_of, workload
from .space import Choice, Space, choice_of, knobs
from .task import Task
from .trial import ROUNDS, Setting, build, chosen

NO_DEVICE = 11
"""ID_ERROR_DEVICE."""

TIMEOUT_S = 60
"""After which a trial counts as failed: a thousand times what one takes."""


@dataclass(frozen=True)
class Timing:
    """What a trial gave: seconds of the default and of the choice, in the order they alternated; or why it failed."""

    default: tuple[float, ...] = ()
    choice: tuple[float, ...] = ()
    error: str | None = None

    def seconds(self, reference: float | None = None) -> tuple[float, ...]:
        """The choice's seconds, each scaled to a default that takes `reference` (the median of this trial's own, where
        None): the machine's clock drifts, and the neighbours in a pair of samples drift together.
        """
        if self.error is not None:
            return (FAILED,)
        reference = median(self.default) if reference is None else reference
        return tuple(reference * own / other for own, other in zip(self.choice, self.default, strict=True))


def make_builder(target: Any, setting: Setting, folder: Path, *, programs: bool = False) -> Any:
    """A MetaSchedule builder: a module annotated with knobs becomes a trial's library in `folder`.

    It builds in this process. MetaSchedule's own starts a process a candidate and imports all of TVM's intrinsics
    there, which takes longer than its own time-out.

    Args:
        programs: trials are programs, not libraries.
    """
    from tvm import s_tir
    from tvm.ir.utils import derived_object
    from tvm.s_tir.meta_schedule.builder import BuilderResult, PyBuilder

    def one(module: Any) -> str:
        task = task_of(module)
        space = Space(task, target)
        choice = choice_of(knobs_of(s_tir.Schedule(module)), task, target)
        place = Path(tempfile.mkdtemp(dir=folder)) / "trial.so"
        if isinstance(target, Cuda):
            gpu_trial.build(task.spec, [space.default, choice], target, place)
        else:
            build(task.spec, [space.default, choice], target, setting, place, program=programs)
        return str(place)

    def result(module: Any) -> BuilderResult:
        try:
            return BuilderResult(one(module), None)
        except Exception as error:  # a candidate that TVM or the linker refuses is a result of the search
            return BuilderResult(None, f"{type(error).__name__}: {error}")

    @derived_object
    class TrialBuilder(PyBuilder):  # type: ignore[misc]
        """Builds trials."""

        def build(self, build_inputs: list[Any]) -> list[BuilderResult]:
            """One result an input."""
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                return list(pool.map(result, [given.mod for given in build_inputs]))

    return TrialBuilder()


# -- in the worker process -------------------------------------------------------------------------------------------
def no_arguments(*_ignored: Any) -> list[list[Any]]:
    """A trial's library has its own memory."""
    return [[]]


def time_trial(threads: int, module: Any, config: Any) -> list[float]:
    """Run a trial's library: the samples of `config.repeat` passes, as `trial.chosen` orders them."""
    measure, sample, finish = (module.get_function(name) for name in ("measure", "sample", "finish"))
    found: list[float] = []
    try:
        for _ in range(config.repeat):
            code = int(measure(threads))
            if code:
                what = ", there is no GPU that it was built for, or no driver" if code == NO_DEVICE else ""
                raise RuntimeError(f"the trial's library failed with code {code} of inception_deploy.h{what}")
            found += [float(sample(i)) for i in range(2 * ROUNDS)]
    finally:
        finish()
    return found


def time_here(threads: int, module: Any, _device: Any, config: Any, _arguments: Any) -> list[float]:
    """What `LocalRunner` calls."""
    return time_trial(threads, module, config)


def time_there(threads: int, _session: Any, module: Any, _device: Any, config: Any, _arguments: Any) -> list[float]:
    """What `RPCRunner` calls."""
    return time_trial(threads, module, config)


# -- in ours ---------------------------------------------------------------------------------------------------------
class Runners:
    """MetaSchedule's runners for trials: one for each number of passes, made when it is first asked for.

    Args:
        make: a runner for an evaluator's configuration; it has a pool of processes, as both of MetaSchedule's have.

    Attributes:
        programs: they run programs, not libraries.
    """

    programs = False

    def __init__(self, make: Callable[[Any], Any]) -> None:
        self._make = make
        self._made: dict[int, Any] = {}

    def __call__(self, passes: int) -> Any:
        from tvm.s_tir.meta_schedule.runner import EvaluatorConfig

        if passes not in self._made:
            self._made[passes] = self._make(EvaluatorConfig(number=1, repeat=passes, min_repeat_ms=0))
        return self._made[passes]

    def close(self) -> None:
        """End their processes."""
        for runner in self._made.values():
            runner.pool.shutdown()
        self._made.clear()


def local_runners(threads: int) -> Runners:
    """On this machine, in a process of its own."""

    def make(config: Any) -> Any:
        from tvm.s_tir.meta_schedule.runner import LocalRunner

        return LocalRunner(
            timeout_sec=TIMEOUT_S,
            evaluator_config=config,
            f_alloc_argument=no_arguments,
            f_run_evaluator=partial(time_here, threads),
        )

    return Runners(make)


class Meter:
    """Builds and runs trials of one target."""

    def __init__(self, target: Target, setting: Setting, runners: Runners) -> None:
        self.target = target
        self._folder = Path(tempfile.mkdtemp(prefix="inception-deploy-tune-"))
        self._builder = make_builder(target, setting, self._folder, programs=runners.programs)
        self._runners = runners

    def close(self) -> None:
        """End the runners' processes and remove the libraries."""
        self._runners.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def time(self, trials: Sequence[tuple[Task, Space, Choice]], repeat: int = 2) -> list[Timing]:
        """Time each choice next to its task's default, in `repeat` passes over its trial."""
        import tvm
        from tvm.s_tir.meta_schedule.builder import BuilderInput
        from tvm.s_tir.meta_schedule.runner import RunnerInput

        goal = tvm.target.Target(self.target.tvm_target())
        gpu = self.target.device == GPU
        modules = [
            scheduled(workload(task, gpu=gpu), knobs(choice), _domains(space, choice)).mod
            for task, space, choice in trials
        ]
        built = self._builder.build([BuilderInput(module, goal) for module in modules])
        runnable = [RunnerInput(str(b.artifact_path), "cpu", []) for b in built if b.error_msg is None]
        futures = iter(self._runners(repeat).run(runnable))
        timings = [
            _timing(next(futures).result()) if b.error_msg is None else Timing(error=str(b.error_msg)) for b in built
        ]
        for entry in built:
            if entry.artifact_path is not None:
                shutil.rmtree(Path(str(entry.artifact_path)).parent, ignore_errors=True)
        return timings


def _domains(space: Space, choice: Choice) -> dict[str, list[int]]:
    """The space's, with the choice's own values."""
    domains = space.domains()
    return {name: sorted({*domains[name], value}) for name, value in knobs(choice).items()}


def _timing(result: Any) -> Timing:
    if result.error_msg is not None or result.run_secs is None:
        return Timing(error=str(result.error_msg).strip())
    samples = [float(value) for value in result.run_secs]
    ways = [chosen(number % (2 * ROUNDS), 2) for number in range(len(samples))]
    default, choice = (tuple(s for s, way in zip(samples, ways, strict=True) if way == which) for which in (0, 1))
    if not default or min(samples) < 0:
        return Timing(error="the trial's library gave no samples")
    return Timing(default, choice)


def require(timing: Timing, what: str) -> Timing:
    """The timing, where there is one. DeployError ``tune`` where the default itself cannot be run."""
    if timing.error is not None:
        reason = timing.error.splitlines()[-1]
        raise DeployError(f"{what} cannot be timed: {reason}", kind="tune", got=timing.error)
    return timing
