"""Other libraries' names for our parameters, as data: each family's file holds its own `KEYS`, `weights.load` reads
them.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

Rule = tuple[str, str | Callable[[re.Match[str]], str]]


@dataclass(frozen=True)
class KeyMap:
    """How one library names what we name.

    Attributes:
        library: whose names these are.
        rules: regular expression and replacement, applied one after the other to OUR key; the result is theirs.
        ignore: regular expression of their keys that have no counterpart here (auxiliary heads that were not built).
        networks: the networks it is for; empty: all of the family.
    """

    library: str
    rules: tuple[Rule, ...]
    ignore: str = r"(?!)"
    networks: tuple[str, ...] = ()

    def theirs(self, ours: str) -> str:
        """Their name for our parameter or buffer."""
        for pattern, replacement in self.rules:
            ours = re.sub(pattern, replacement, ours)
        return ours

    def ignores(self, theirs: str) -> bool:
        """Whether one of their keys may be left over."""
        return re.search(self.ignore, theirs) is not None

    def covers(self, network: str) -> bool:
        return not self.networks or network in self.networks


def numbered(prefix: str, first: int) -> Callable[[re.Match[str]], str]:
    """A replacement that puts ``prefix`` and the matched index, counted from `first`, in place of the match."""
    return lambda match: f"{prefix}{first + int(match[1])}."
