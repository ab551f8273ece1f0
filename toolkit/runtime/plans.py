"""One network compiled for several numbers of images: which plans compute a number of rows, and the plans, opened when
they are first needed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

from numpy.typing import NDArray

from ..errors import DeployError


class Runnable(Protocol):
    """A network of one number of images."""

    def run(self, *arrays: NDArray[Any]) -> Sequence[NDArray[Any]]:
        """The outputs for one array an input, of exact shapes."""


R = TypeVar("R", bound=Runnable)


def cut(rows: int, batches: Sequence[int]) -> list[int]:
    """The batches that compute a number of rows, in order: the largest one as often as it is full, then the next
    smaller. Rows that do not fill the smallest one are a batch of it, filled up.

    >>> cut(13, [1, 8, 32]), cut(13, [8, 32])
    ([8, 1, 1, 1, 1, 1], [8, 8])
    """
    found: list[int] = []
    for batch in sorted(batches, reverse=True):
        found += [batch] * (rows // batch)
        rows %= batch
    return found + [min(batches)] * (rows > 0)


class Plans(Generic[R]):
    """The plans of a bundle behind one `run`, which takes the shapes of any of them.

    Attributes:
        batches: the numbers of images, by the plan's number.
    """

    def __init__(self, batches: Sequence[int], make: Callable[[int], R]) -> None:
        """`make` opens the plan of a number; the first is opened at once, because that shows what is wrong."""
        self.batches = tuple(batches)
        self._make = make
        self._lock = threading.Lock()
        self._opened = {0: make(0)}

    def open_all(self) -> Plans[R]:
        """Open every plan now: none is opened in the middle of work, or when the bundle's files have gone."""
        for number in range(len(self.batches)):
            self.plan(number)
        return self

    def plan(self, number: int) -> R:
        """The plan of that number."""
        with self._lock:
            if number not in self._opened:
                self._opened[number] = self._make(number)
            return self._opened[number]

    def run(self, *arrays: NDArray[Any]) -> Sequence[NDArray[Any]]:
        """One inference by the plan for so many rows.

        Raises:
            DeployError: (kind ``input``) there is none; as the plan's `run`.
        """
        if len(self.batches) == 1:  # also of networks whose first axis is no batch
            return self.plan(0).run(*arrays)
        rows = len(arrays[0]) if arrays and arrays[0].ndim else 0
        if rows not in self.batches:
            allowed = ", ".join(map(str, self.batches))
            raise DeployError(f"there is no plan for {rows} rows", kind="input", got=rows, allowed=allowed)
        return self.plan(self.batches.index(rows)).run(*arrays)

    def close(self) -> None:
        """Close the plans that can be closed."""
        for opened in self._opened.values():
            getattr(opened, "close", lambda: None)()
