"""What a section is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..facts import Facts
from ..markup import Markup


@dataclass(frozen=True)
class Section:
    """One question of the reader, and its answer.

    Attributes:
        name: what links to it say.
        title: the question.
        content: pieces of the answer; none where it is no question of this bundle.
    """

    name: str
    title: str
    content: Callable[[Facts], Iterable[Markup]]
