"""The arena: who lives at which bytes, from which wave to which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .. import drawing
from ..markup import Markup, tag
from ..pieces import size

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 1000, 420, 56, 990, 20, 370


@dataclass(frozen=True)
class Life:
    """A value in the arena.

    Attributes:
        kind: ``own`` memory; a ``slice`` of what it shares; ``inplace``, all of what another value had before it; or
            ``root``, the memory that others share, which is no value of its own.
        low, high: its first byte, and the one behind its last.
        first, last: the wave that writes it, and the last that reads it.
        shares: whose memory it lies in.
    """

    value: str
    kind: str
    low: int
    high: int
    first: int
    last: int
    shares: str = ""


def lives(placements: Sequence[Mapping[str, Any]]) -> list[Life]:
    """Everybody who lives in the arena; the memory that several share comes before them.

    A plan lists the parts of a shared memory, and not that memory: it reaches as far as they do.
    """
    rows = [Life(row["value"], "own", row["offset"], row["offset"] + row["bytes"], max(0, row.get("first_wave") or 0),
                 max(0, row.get("last_wave") or 0), row["shares"] or "") for row in placements]  # fmt: skip
    groups: dict[str, list[Life]] = {}
    for row in rows:
        if row.shares:
            groups.setdefault(row.shares, []).append(row)
    found = []
    for name, parts in groups.items():
        own = [row for row in rows if row.value == name and not row.shares]
        low, high = min(row.low for row in (*own, *parts)), max(row.high for row in (*own, *parts))
        first, last = min(row.first for row in (*own, *parts)), max(row.last for row in (*own, *parts))
        if not own:
            found.append(Life(name, "root", low, high, first, last))
        for row in parts:
            whole = (row.low, row.high) == (low, high) and row.first > first
            found.append(replace(row, kind="inplace" if whole else "slice"))
    return [*(row for row in rows if not row.shares), *found]


def live(rows: Sequence[Life]) -> list[int]:
    """Bytes in use, by wave."""
    waves = [0] * (1 + max((row.last for row in rows), default=-1))
    for row in rows:
        if row.kind in ("own", "root"):
            for wave in range(row.first, row.last + 1):
                waves[wave] += row.high - row.low
    return waves


def arena(rows: Sequence[Life], total: int) -> Markup:
    """The picture."""
    each, unit = (1e6, "MB") if total >= 1e6 else (1e3, "kB")
    x = drawing.Scale(0, 1 + max(row.last for row in rows), _LEFT, _RIGHT, whole=True)
    y = drawing.Scale(0, total / each, _BOTTOM, _TOP)
    drawn: dict[str, list[Markup]] = {"own": [], "root": [], "slice": [], "inplace": []}
    for number, row in enumerate(rows):
        what = {"own": "", "root": ", shared by parts", "slice": f", a slice of {row.shares}",
                "inplace": f", over what was in the memory of {row.shares}"}[row.kind]  # fmt: skip
        told = [row.value, f"{size(row.high - row.low)} at byte {row.low}{what}", f"waves {row.first} to {row.last}"]
        width = max(x(row.last + 1) - x(row.first), 0.5)
        height = max(y(row.low / each) - y(row.high / each), 0.5)
        colour = f" kind{number % 6}" if row.kind in ("own", "root") else ""
        box = drawing.rect(
            x(row.first), y(row.high / each), width, height, f"life {row.kind}{colour}", drawing.hover(*told)
        )
        drawn[row.kind].append(box)
    label = f"The arena of {size(total)}: {len(rows)} places in it over {x.last:.0f} waves. The table has them all."
    frame = drawing.axes(x, y, _LEFT, _RIGHT, _BOTTOM, across="wave", up=unit)
    return drawing.picture(_WIDTH, _HEIGHT, label, frame, [tag("g", group) for group in drawn.values()])
