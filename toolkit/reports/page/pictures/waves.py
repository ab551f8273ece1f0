"""Waves over threads: the kernel calls of a wave run side by side, and each has its part of the threads.

A kernel call that takes t alone on all threads takes its part of them for as long as its wave lasts: areas are work.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from .. import drawing
from ..markup import Markup, tag
from ..pieces import ms, several

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 1100, 190, 56, 1090, 20, 150


def waves(steps: Sequence[Mapping[str, Any]], threads: int) -> Markup:
    """The picture, from steps that were timed."""
    total = sum(step["ms"] for step in steps) or 1.0
    x = drawing.Scale(0, total, _LEFT, _RIGHT)
    y = drawing.Scale(0, threads, _BOTTOM, _TOP, whole=True)
    at, count, drawn = 0.0, 0, []
    for wave, run in groupby(steps, key=lambda step: step.get("wave") or 0):
        together = list(run)
        lasts = sum(step["ms"] for step in together)
        low = 0.0
        for number, step in enumerate(together):
            part = threads * step["ms"] / lasts if lasts else 0.0
            told = [step["layer"], step["op"], f"wave {wave} with {several(len(together), 'kernel call')}",
                    f"{ms(step['ms'])} alone on {several(threads, 'thread')}"]  # fmt: skip
            box = drawing.rect(x(at), y(low + part), max(x(at + lasts) - x(at), 0.3), y(low) - y(low + part),
                               f"cell kind{number % 6}", drawing.hover(*told))  # fmt: skip
            drawn.append(box)
            low += part
        at += lasts
        count += 1
    parts = several(count, "wave"), several(len(steps), "kernel call"), several(threads, "thread"), ms(total)
    label = "{} of {} over {}, {}".format(*parts)
    frame = drawing.axes(x, y, _LEFT, _RIGHT, _BOTTOM, across="ms, from kernel calls timed alone", up="threads")
    return drawing.picture(_WIDTH, _HEIGHT, label, frame, tag("g", drawn))
