"""Progress of long steps: a bar on stderr where a person is watching, nothing where nobody is.

Library functions take a `Progress` and call it; `NONE` is silent, `terminal()` gives the one the command line uses.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


class Progress(Protocol):
    """What a long step reports to."""

    def stage(self, name: str) -> None:
        """A new stage begins, e.g. ``"optimise"``; the one before it has ended."""

    def update(self, done: int, total: int, what: str = "") -> None:
        """`done` of `total` parts of the current stage are finished; `what` names the part in work."""

    def note(self, text: str) -> None:
        """One line that the user should read, e.g. that the weights are untrained."""


class _Silent:
    def stage(self, name: str) -> None: ...

    def update(self, done: int, total: int, what: str = "") -> None: ...

    def note(self, text: str) -> None: ...


NONE: Progress = _Silent()


class _Notes(_Silent):
    """Not a terminal: notes only, no bar and no control characters."""

    def note(self, text: str) -> None:
        print(text, file=sys.stderr)


class _Bar:
    def __init__(self, bar: RichProgress) -> None:
        self._bar = bar
        self._task: TaskID | None = None

    def stage(self, name: str) -> None:
        if self._task is not None:
            self._bar.update(self._task, total=1, completed=1, what="")
        self._task = self._bar.add_task(name, total=None, what="")

    def update(self, done: int, total: int, what: str = "") -> None:
        if self._task is not None:
            self._bar.update(self._task, completed=done, total=total, what=what)

    def note(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False)


@contextmanager
def terminal() -> Iterator[Progress]:
    """The command line's progress: a rich bar a stage on stderr if that is a terminal, else notes only."""
    if not sys.stderr.isatty():
        yield _Notes()
        return
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as RichProgress

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TimeElapsedColumn(),
        TextColumn("[dim]{task.fields[what]}"),
    )
    with RichProgress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield _Bar(bar)


class Stopwatch:
    """Passes everything on to another `Progress` and keeps the seconds each stage took."""

    def __init__(self, inner: Progress = NONE) -> None:
        self._inner = inner
        self._name: str | None = None
        self._since = 0.0
        self._seconds: dict[str, float] = {}

    def stage(self, name: str) -> None:
        """See `Progress.stage`."""
        self._close()
        self._name, self._since = name, time.perf_counter()
        self._inner.stage(name)

    def update(self, done: int, total: int, what: str = "") -> None:
        """See `Progress.update`."""
        self._inner.update(done, total, what)

    def note(self, text: str) -> None:
        """See `Progress.note`."""
        self._inner.note(text)

    def seconds(self) -> dict[str, float]:
        """Seconds of every stage so far, to the millisecond, in the order they ran; the current one ends here."""
        self._close()
        return {name: round(value, 3) for name, value in self._seconds.items()}

    def _close(self) -> None:
        if self._name is not None:
            spent = time.perf_counter() - self._since
            self._seconds[self._name] = self._seconds.get(self._name, 0.0) + spent
            self._name = None
