"""What two manifests or more say differently, as rows that a person can read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_LEFT_OUT = frozenset({"files", "steps", "tensors", "memory"})
"""Digests of files, the words of the preprocessing, what is measured of every tensor: hundreds of rows that follow from
the others; and bytes, which `compare` has in its rows."""

_LONGEST, _ENTRIES = 80, 6


def differences(manifests: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The entries that are not the same in all `manifests`, in the order of the first one that has them.

    Returns:
        Rows of ``what`` (the entry's way, with dots) and ``values`` (one a manifest, None where it has none). Long
        lists are told by their count and texts are cut, but compared whole.
    """
    flat = [dict(_entries(manifest)) for manifest in manifests]
    names = dict.fromkeys(name for entries in flat for name in entries)
    rows = []
    for name in names:
        values = [entries.get(name) for entries in flat]
        if any(value != values[0] for value in values):
            told = [_told(value) for value in values]
            if all(one == told[0] for one in told):  # long lists, or texts that differ behind what is shown of them
                told = [f"{one}, number {index}" for index, one in enumerate(told, 1)]
            rows.append({"what": name, "values": told})
    return rows


def _entries(value: Any, way: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf of a document with its way."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key not in _LEFT_OUT:
                yield from _entries(inner, f"{way}.{key}" if way else str(key))
    elif isinstance(value, list) and 0 < len(value) <= _ENTRIES and all(isinstance(one, Mapping) for one in value):
        for index, one in enumerate(value):
            yield from _entries(one, f"{way}.{index}")
    elif way:
        yield way, value


def _told(value: Any) -> str | float | int | bool | None:
    """A leaf in few letters."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else f"{value[: _LONGEST - 1]}\u2026"
    if len(value) > _ENTRIES or any(isinstance(one, (Mapping, list)) for one in value):
        return f"{len(value)} entries"
    return _told(", ".join(map(str, value))) if value else "none"
