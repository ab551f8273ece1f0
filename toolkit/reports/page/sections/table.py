"""The sections in the order of a reader's questions. A new one is a file beside this one, and a line here."""

from __future__ import annotations

from . import accelerated, decided, int8, memory, speed, where, works
from .base import Section

SECTIONS: tuple[Section, ...] = (
    works.SECTION,
    speed.SECTION,
    where.SECTION,
    accelerated.SECTION,
    memory.SECTION,
    int8.SECTION,
    decided.SECTION,
)
