"""Progress of long steps: a bar on stderr where a person is watching, one line a stage with its seconds elsewhere.

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
        """`done` of `total` parts of the current stage are finished; `what` names the part in work.

        `total` is 0 where nobody knows how many there are.
        """

    def note(self, text: str) -> None:
        """One line that the user should read, e.g. that the weights are untrained."""


class _Silent:
    def stage(self, name: str) -> None: ...

    def update(self, done: int, total: int, what: str = "") -> None: ...

    def note(self, text: str) -> None: ...


NONE: Progress = _Silent()


class _Lines:
    """Not a terminal: notes, and a line a stage with its seconds when it has ended; no control characters.

    Args:
        parts: what a stage is working on is a line, too.
    """

    def __init__(self, parts: bool) -> None:
        self._parts = parts
        self._stage, self._what, self._since = "", "", 0.0

    def stage(self, name: str) -> None:
        self.end()
        self._stage, self._what, self._since = name, "", time.perf_counter()

    def update(self, done: int, total: int, what: str = "") -> None:
        if self._parts and what and what != self._what:
            self._what = what
            print(f"  {what}", file=sys.stderr, flush=True)

    def note(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def end(self, how: str = "") -> None:
        """The current stage has ended."""
        if self._stage:
            print(f"{self._stage}{how}: {time.perf_counter() - self._since:.2f} s", file=sys.stderr, flush=True)
            self._stage = ""


class _Bar:
    def __init__(self, bar: RichProgress, parts: bool) -> None:
        self._bar, self._parts = bar, parts
        self._task: TaskID | None = None
        self._what = ""

    def stage(self, name: str) -> None:
        if self._task is not None:
            self._bar.update(self._task, total=1, completed=1, what="")
        self._task = self._bar.add_task(name, total=None, what="")

    def update(self, done: int, total: int, what: str = "") -> None:
        if self._task is None:
            return
        # rich takes a total of 0 for "finished"; None makes the bar move until somebody knows.
        self._bar.update(self._task, completed=done, total=total or None, what=what)
        if self._parts and what and what != self._what:
            self._what = what
            self.note(f"  {what}")

    def note(self, text: str) -> None:
        self._bar.console.print(text, markup=False, highlight=False)


@contextmanager
def terminal(verbosity: int = 0) -> Iterator[Progress]:
    """The command line's progress, on stderr.

    Args:
        verbosity: -1: nothing; 0: notes, and a bar a stage on a terminal, else a line; 1: what a stage is working on,
            too.
    """
    if verbosity < 0:
        yield NONE
        return
    if not sys.stderr.isatty():
        lines = _Lines(parts=verbosity > 0)
        try:
            yield lines
        except BaseException:
            lines.end(" failed after")
            raise
        lines.end()
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
        yield _Bar(bar, parts=verbosity > 0)


class Stopwatch:
    """Passes everything on to another `Progress` and keeps the seconds each stage took, and the notes."""

    def __init__(self, inner: Progress = NONE) -> None:
        self._inner = inner
        self._name: str | None = None
        self._since = 0.0
        self._seconds: dict[str, float] = {}
        self.notes: list[str] = []

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
        self.notes.append(text)
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
