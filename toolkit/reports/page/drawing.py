"""What every picture is drawn with: the frame, scales, axes. Colours are classes, so that a theme may choose them.

SVG written here and no plotting library's: the page must follow the reader's theme, carry its numbers as text that can
be read out and searched, and stay small. A library's SVG has its colours and letters drawn in, and the library weighs
more than the rest of the page's code together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .markup import Child, Markup, tag


def picture(width: float, height: float, label: str, *content: Child, class_: str | None = None) -> Markup:
    """An SVG that scales with its frame; `label` is what is read out in its place."""
    box = f"0 0 {width:.0f} {height:.0f}"
    size = {"width": f"{width:.0f}", "height": f"{height:.0f}"}
    return tag("svg", *content, viewBox=box, role="img", aria_label=label, class_=class_, **size)


def hover(*lines: str) -> Markup:
    """What a pointer that rests on an element is told."""
    return tag("title", "\n".join(lines))


def rect(x: float, y: float, width: float, height: float, class_: str, *content: Child, rx: float = 0) -> Markup:
    """A rectangle."""
    return tag("rect", *content, x=x, y=y, width=width, height=height, class_=class_, rx=rx or None)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """A straight line."""
    return tag("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def text(x: float, y: float, content: str, class_: str = "", anchor: str = "start") -> Markup:
    """A line of text; `anchor` is start, middle or end."""
    return tag("text", content, x=x, y=y, class_=class_ or None, text_anchor=None if anchor == "start" else anchor)


def shortened(name: str, letters: int) -> str:
    """The end of a name, which tells it from its neighbours."""
    return name if len(name) <= letters else f"\u2026{name[1 - letters :]}" if letters > 1 else ""


@dataclass(frozen=True)
class Scale:
    """From values to places: ``scale(value)``.

    Attributes:
        first, last: the values at the ends.
        start, end: their places.
        log: equal steps are equal factors.
        whole: values count something.
    """

    first: float
    last: float
    start: float
    end: float
    log: bool = False
    whole: bool = False

    def __call__(self, value: float) -> float:
        """The place of a value; of one outside, the end that is nearer."""
        of: Callable[[float], float] = math.log if self.log else float
        value = min(max(value, min(self.first, self.last)), max(self.first, self.last))
        span = of(self.last) - of(self.first)
        part = (of(value) - of(self.first)) / span if span else 0.0
        return self.start + part * (self.end - self.start)

    def ticks(self, count: int = 5) -> list[float]:
        """Round values from the first to the last, about so many."""
        if self.log:
            low, high = math.floor(math.log10(self.first)), math.ceil(math.log10(self.last))
            steps = (1, 2, 5) if high - low <= 3 else (1,)
            found = [step * 10.0**power for power in range(low, high + 1) for step in steps]
        else:
            step = round_step((self.last - self.first) / count)
            step = max(1.0, step) if self.whole else step
            begin = math.ceil(self.first / step)
            found = [step * index for index in range(begin, begin + 10 * count) if step * index <= self.last]
        return [value for value in found if self.first <= value <= self.last]


def round_step(step: float) -> float:
    """The next 1, 2 or 5 times a power of ten."""
    if step <= 0 or not math.isfinite(step):
        return 1.0
    power = 10.0 ** math.floor(math.log10(step))
    return next(each * power for each in (1, 2, 5, 10) if each * power >= step * 0.999)


def axes(
    x: Scale | None, y: Scale, left: float, right: float, bottom: float, *, across: str = "", up: str = ""
) -> list[Markup]:
    """Grid lines and their numbers.

    Args:
        x: None for an axis without numbers.
        left, right, bottom: where the frame's sides are.
        across, up: what the axes are of.
    """
    drawn = []
    for value in y.ticks():
        drawn += [
            line(left, y(value), right, y(value), "grid"),
            text(left - 6, y(value) + 4, plain(value), "tick", "end"),
        ]
    for value, place in [(value, x(value)) for value in x.ticks(8)] if x else ():
        drawn += [line(place, bottom, place, bottom + 4, "axis"),
                  text(place, bottom + 17, plain(value), "tick", "middle")]  # fmt: skip
    drawn.append(line(left, bottom, right, bottom, "axis"))
    if up:
        drawn.append(text(left - 44, 12, up, "tick"))
    if across:
        drawn.append(text((left + right) / 2, bottom + 34, across, "tick", "middle"))
    return drawn


def plain(value: float) -> str:
    """A tick's number."""
    return f"{value:,.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def path(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """Straight lines from point to point."""
    steps = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return tag("polyline", points=steps, class_=class_)


def below(x: Scale, bottom: float) -> list[list[Markup]]:
    """The ticks of an axis along the lower end of a picture."""
    return [
        [
            line(x(value), bottom, x(value), bottom + 4, "axis"),
            text(x(value), bottom + 17, plain(value), "tick", "middle"),
        ]
        for value in x.ticks(10)
    ]
