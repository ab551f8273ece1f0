"""Protocol buffers' text format, as far as configurations need it.

A message is a list of fields, in order: (name, value) or (name, value, comment). A value is a number, a truth value,
text, a `Word` (the name of an enum's value), a message, or a list of values: a repeated field.
https://protobuf.dev/reference/protobuf/textformat-spec
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

Message: TypeAlias = "tuple[Field, ...]"
Field: TypeAlias = "tuple[str, Any] | tuple[str, Any, str]"


class Word(str):
    """The name of an enum's value, which stands without quotes."""


def text(message: Message, indent: str = "") -> str:
    """A message as text, a line a field; a comment stands in the line above its field."""
    lines = []
    for name, value, *comment in message:
        lines += [f"{indent}# {line}" for told in comment for line in told.splitlines()]
        lines += _field(name, value, indent)
    return "\n".join(lines) + ("" if indent else "\n")


def _field(name: str, value: Any, indent: str) -> list[str]:
    if isinstance(value, tuple):
        return [f"{indent}{name} {{", text(value, indent + "  "), f"{indent}}}"]
    if isinstance(value, list) and value and isinstance(value[0], tuple):
        return [line for one in value for line in _field(name, one, indent)]
    return [f"{indent}{name}: {_scalar(value)}"]


def _scalar(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_scalar, value))}]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str) and not isinstance(value, Word):
        return quoted(value)
    return str(value)


def quoted(value: str) -> str:
    """Text as a string of the format: bytes of UTF-8 that are no printable ASCII in octal."""
    escaped = (
        chr(byte) if 32 <= byte < 127 and chr(byte) not in "\"\\'" else f"\\{byte:03o}"
        for byte in value.encode("utf-8")
    )
    return f'"{"".join(escaped)}"'


def shape(sizes: Sequence[int]) -> list[int]:
    """Sizes as a repeated field; a network's scalar has one element."""
    return list(sizes) or [1]
