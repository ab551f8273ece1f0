"""Trials on another machine over ssh: each is a program that needs nothing there, copied, run and read.

Nothing but a shell has to be on the device, and nothing is left behind there (`bundles.device`).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ..bundles import device as devices
from ..targets.cpu import Cpu
from .measure import Runners

TRIAL = "trial"
"""The program's name on the device."""


class OverSsh(Runners):
    """Runs trials on a device, one after the other.

    Args:
        url: ``ssh://[user@]host[:port]``.
        goal: what the trials are built for.
        threads: that run them; every processor of the device where None.

    Raises:
        UsageError: the url is none.
        DeployError: (kind ``device``) it cannot be reached, then or later, is full, or another kind of machine.
    """

    programs = True

    def __init__(self, url: str, goal: Cpu, threads: int | None) -> None:
        super().__init__(lambda config: _Runner(self, config.repeat))
        with ExitStack() as stack:
            self.device = stack.enter_context(devices.connected(url))
            devices.refuse_other(self.device, goal.isa.machine, f"trials of {goal.name} are for {{}}")
            facts = self.device.facts()
            self.told, self.threads = facts.describe(), threads or facts.count or 1
            self._stack = stack.pop_all()

    def close(self) -> None:
        """End the connection; the folder on the device goes."""
        self._made.clear()
        self._stack.close()

    def run(self, program: Path, passes: int) -> tuple[list[float] | None, str | None]:
        """A trial's samples, or why there are none."""
        self.device.put(program, TRIAL)
        said = self.device.shell(f"chmod 700 {TRIAL}; ./{TRIAL} {self.threads} {passes} 2>&1 || echo failed: status $?")
        lines = said.decode(errors="replace").splitlines()
        try:
            return [float(line) for line in lines], None
        except ValueError:
            return None, "; ".join(lines[-2:])


class _Runner:
    """What MetaSchedule has for a runner, without its processes."""

    def __init__(self, owner: OverSsh, passes: int) -> None:
        self._owner, self._passes = owner, passes

    def run(self, inputs: Sequence[Any]) -> list[Any]:
        """A future a trial; each is over."""
        from tvm.s_tir.meta_schedule.runner import LocalRunnerFuture

        found = [self._owner.run(Path(str(given.artifact_path)), self._passes) for given in inputs]
        return [LocalRunnerFuture(samples, reason) for samples, reason in found]
