"""Documents from outside, checked once where they are read: what follows may trust their types.

A schema is written as the document looks: a type, a list of one schema, a dict of schemas by key, and the few helpers
below. Keys that it does not name are let through, because newer programs add some. (Not msgspec or pydantic: a machine
that only runs bundles installs numpy, Pillow and rich, and this is shorter than a dependency.)
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_NUMBER = 2**53
"""The largest whole number that JSON's readers agree on."""

Schema = Any


@dataclass(frozen=True)
class Maybe:
    """A key that may be missing, or hold null."""

    schema: Schema


@dataclass(frozen=True)
class Missing:
    """A key that may be missing, but does not hold null."""

    schema: Schema


@dataclass(frozen=True)
class Nullable:
    """A value that may be null, but is there."""

    schema: Schema


@dataclass(frozen=True)
class MapOf:
    """An object of any keys."""

    schema: Schema


@dataclass(frozen=True)
class OneOf:
    """One of these values."""

    values: tuple[object, ...]


@dataclass(frozen=True)
class Whole:
    """A whole number."""

    least: int = 0
    most: int = MAX_NUMBER


@dataclass(frozen=True)
class NotEmpty:
    """A list of at least one."""

    schema: Schema


class Mismatch(ValueError):
    """What is wrong, where: ``field 'inputs[0].shape' is missing``."""


def check(value: object, schema: Schema, where: str = "") -> None:
    """Hold `value` to `schema`.

    Raises:
        Mismatch: names the field, what it is, and what it should be.
    """
    if isinstance(schema, (Maybe, Nullable)):
        if value is not None:
            check(value, schema.schema, where)
    elif isinstance(schema, OneOf):
        _require(value in schema.values, value, " or ".join(map(repr, schema.values)), where)
    elif isinstance(schema, Whole):
        good = isinstance(value, int) and not isinstance(value, bool) and schema.least <= value <= schema.most
        _require(good, value, f"a whole number from {schema.least} to {schema.most}", where)
    elif schema is float:
        good = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= MAX_NUMBER
        _require(good and math.isfinite(value), value, "a number", where)  # type: ignore[arg-type]
    elif isinstance(schema, (list, NotEmpty)):
        _require(isinstance(value, list), value, "a list", where)
        assert isinstance(value, list)
        if isinstance(schema, NotEmpty):
            _require(bool(value), value, "at least one", where)
        inner = schema.schema if isinstance(schema, NotEmpty) else schema[0]
        for index, item in enumerate(value):
            check(item, inner, f"{where}[{index}]")
    elif isinstance(schema, (dict, MapOf)):
        _require(isinstance(value, Mapping), value, "an object", where)
        assert isinstance(value, Mapping)
        keys = value if isinstance(schema, MapOf) else schema
        for key in keys:
            inner = schema.schema if isinstance(schema, MapOf) else schema[key]
            name = f"{where}.{key}".lstrip(".")
            if key in value:
                check(value[key], inner.schema if isinstance(inner, Missing) else inner, name)
            elif not isinstance(inner, (Maybe, Missing)):
                raise Mismatch(f"field '{name}' is missing")
    else:
        good = isinstance(value, schema) and (schema is bool or not isinstance(value, bool))
        _require(good, value, {str: "a text", bool: "true or false", dict: "an object"}.get(schema, str(schema)), where)


def _require(good: bool, value: object, allowed: str, where: str) -> None:
    if not good:
        got = repr(value)
        raise Mismatch(f"field '{where}' is {got[:60]}{'...' if len(got) > 60 else ''}, not {allowed}")
