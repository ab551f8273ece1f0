"""Where things lie: rectangles of accumulators, what of an input these see, and the contexts of SRAM."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ..spec.vta import Term


@dataclass(frozen=True)
class Area:
    """Accumulators ``[blocks][rows][columns]`` from `base` on."""

    base: int
    blocks: int
    rows: int
    columns: int

    @property
    def size(self) -> int:
        """Of all."""
        return self.blocks * self.rows * self.columns

    @property
    def plane(self) -> int:
        """Of one block."""
        return self.rows * self.columns


@dataclass(frozen=True)
class Rect:
    """Rows and columns of an area: from, and behind."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def rows(self) -> int:
        return self.bottom - self.top

    @property
    def columns(self) -> int:
        return self.right - self.left

    @property
    def empty(self) -> bool:
        return self.rows <= 0 or self.columns <= 0


@dataclass(frozen=True)
class Tap:
    """A tap of a window: its number, the pixels that it is inside of the input for, and where the first one reads."""

    number: int
    part: Rect
    src: int


def seen_by(term: Term, real: Rect, origin: tuple[int, int]) -> Rect:
    """The rows and columns of the input that some tap of some pixel reads."""
    ends = []
    for axis, (low, high, size) in enumerate(
        ((real.top, real.bottom, term.height), (real.left, real.right, term.width))
    ):
        first = (origin[axis] + low) * term.stride[axis] - term.pad[axis]
        last = (origin[axis] + high - 1) * term.stride[axis] - term.pad[axis]
        ends += [max(0, first), min(size, last + (term.kernel[axis] - 1) * term.dilation[axis] + 1)]
    return Rect(*ends)


def taps_of(term: Term, real: Rect, origin: tuple[int, int], frame: Rect) -> Iterator[Tap]:
    """Each tap with the pixels that it is inside of the input for, and where the first of these reads."""
    for r in range(term.kernel[0]):
        for s in range(term.kernel[1]):
            ends = []
            for axis, (tap, low, high, size) in enumerate(
                ((r, real.top, real.bottom, term.height), (s, real.left, real.right, term.width))
            ):
                stride, far = term.stride[axis], tap * term.dilation[axis] - term.pad[axis]
                ends += [max(low, -(far // stride) - origin[axis]),
                         min(high, (size - 1 - far) // stride + 1 - origin[axis])]  # fmt: skip
            part = Rect(*ends)
            y = (origin[0] + part.top) * term.stride[0] + r * term.dilation[0] - term.pad[0] - frame.top
            x = (origin[1] + part.left) * term.stride[1] + s * term.dilation[1] - term.pad[1] - frame.left
            yield Tap(r * term.kernel[1] + s, part, y * frame.columns + x)


class Slots:
    """The contexts of a memory (two halves, or the whole), and what is in them."""

    def __init__(self, first: int, count: int) -> None:
        self.count, self.next = count, first % count
        self.holds: list[object] = [None] * count

    @property
    def last(self) -> int:
        """The one that was taken last."""
        return (self.next - 1) % self.count

    def take(self, key: object) -> tuple[int, bool]:
        """A context for something, and whether it is there already; the other one is the next one's."""
        there = key in self.holds
        slot = self.holds.index(key) if there else self.next
        self.holds[slot] = key
        self.next = (slot + 1) % self.count
        return slot, there

    def borrow(self, key: object, slot: int) -> tuple[int, bool]:
        """The same in a certain context, out of turn."""
        there = self.holds[slot] == key
        self.holds[slot] = key
        return slot, there
