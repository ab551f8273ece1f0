"""How busy the engines of a VTA are, over the time of an inference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .. import drawing
from ..markup import Markup, tag
from ..pieces import percent

_WIDTH, _ROW, _LEFT, _TOP = 1100, 26, 70, 4


def timeline(busy: Mapping[str, Sequence[float]], total_ms: float) -> Markup:
    """The picture: a row an engine, a cell a part of the time."""
    x = drawing.Scale(0, total_ms or 1.0, _LEFT, _WIDTH - 2)
    bottom = _TOP + len(busy) * _ROW
    rows, names = [], []
    for number, (engine, shares) in enumerate(busy.items()):
        top = _TOP + number * _ROW
        names.append(drawing.text(_LEFT - 6, top + 17, engine, "tick", "end"))
        width = (_WIDTH - 2 - _LEFT) / max(1, len(shares))
        rows += [
            drawing.rect(_LEFT + at * width, top, width, _ROW - 3, f"cell h{_level(share)}", drawing.hover(
                f"{engine}, {at * total_ms / len(shares):.3g} ms", f"busy {percent(share)}"))
            for at, share in enumerate(shares)
        ]  # fmt: skip
    ticks = drawing.below(x, bottom)
    unit = drawing.text((_LEFT + _WIDTH) / 2, bottom + 33, "ms, estimated", "tick", "middle")
    means = ", ".join(f"{engine} {percent(sum(shares) / max(1, len(shares)))}" for engine, shares in busy.items())
    return drawing.picture(_WIDTH, bottom + 38, f"Busy over time: {means}.", names, tag("g", rows), ticks, unit)


def _level(share: float) -> int:
    """1 for idle to 4 for busy all the time."""
    return 1 + min(3, int(share * 4))
