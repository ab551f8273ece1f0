"""Which of a file's names is which of a network's: the same up to what wrappers put before names, or between them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

WRAPPING = frozenset(
    (
        "module",
        "_orig_mod",
        "model",
        "net",
        "network",
        "backbone",
        "encoder",
        "ema",
        "model_ema",
        "ema_model",
    )
)
"""What DataParallel, torch.compile, Lightning and people put around a module; any of them, anywhere in a name."""

COUNTERS = re.compile(r"(^|\.)(num_batches_tracked|total_ops|total_params|n_averaged)$")
"""What normalisation, profilers and averaging count; it changes no result."""


@dataclass(frozen=True)
class Match:
    """The names of a file beside those that are wanted.

    Attributes:
        pairs: a wanted name -> the file's.
        left: the file's names that are nobody's.
        changed: what had to be left out of the file's names, and what put into them.
    """

    pairs: Mapping[str, str]
    left: tuple[str, ...]
    changed: str


def match(wanted: Iterable[str], found: Iterable[str]) -> Match:
    """Pair the names of a network with those of a file.

    Two names may be a pair where they are equal without the words of `WRAPPING`. Of several, the pair that has the
    longest common end is taken; where that does not decide, none is.
    """
    wanted, found = list(wanted), list(found)
    if set(wanted) <= set(found):
        return Match({name: name for name in wanted}, tuple(name for name in found if name not in set(wanted)), "")
    groups: dict[str, list[str]] = {}
    for name in found:
        groups.setdefault(_bare(name), []).append(name)
    rivals: dict[str, list[str]] = {}
    for name in wanted:
        rivals.setdefault(_bare(name), []).append(name)
    pairs: dict[str, str] = {}
    taken: set[str] = set()
    for bare, names in rivals.items():
        candidates = sorted(
            ((-_common_end(ours, theirs), ours, theirs) for ours in names for theirs in groups.get(bare, ())),
            key=lambda candidate: candidate[0],
        )
        for score, ours, theirs in candidates:
            free = ours not in pairs and theirs not in taken
            same = [pair for pair in candidates if pair[0] == score and (pair[1] == ours) != (pair[2] == theirs)]
            if free and not any(a not in pairs and b not in taken for _, a, b in same):
                pairs[ours] = theirs
                taken.add(theirs)
    return Match(pairs, tuple(name for name in found if name not in taken), _changed(pairs))


def unwrapped(name: str) -> str:
    """A name without the words of `WRAPPING` at its beginning."""
    head, dot, tail = name.partition(".")
    return unwrapped(tail) if dot and head in WRAPPING else name


def _bare(name: str) -> str:
    return ".".join(word for word in name.split(".") if word not in WRAPPING)


def _common_end(one: str, other: str) -> int:
    """How many words two names have in common at their ends."""
    words = zip(reversed(one.split(".")), reversed(other.split(".")), strict=False)
    count = 0
    for a, b in words:
        if a != b:
            break
        count += 1
    return count


def _changed(pairs: Mapping[str, str]) -> str:
    """``left out of its names: module, _orig_mod``, and the same for what was put in."""
    out: dict[str, None] = {}
    put: dict[str, None] = {}
    for ours, theirs in pairs.items():
        mine, other = ours.split("."), theirs.split(".")
        out |= dict.fromkeys(word for word in other if other.count(word) > mine.count(word))
        put |= dict.fromkeys(word for word in mine if mine.count(word) > other.count(word))
    parts = [
        f"left out of its names: {', '.join(out)}" if out else "",
        f"put into them: {', '.join(put)}" if put else "",
    ]
    return "; ".join(filter(None, parts))
