"""HTML and SVG as nested function calls. Text is escaped here and nowhere else: what is no `Markup` is text."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable
from typing import TypeAlias

Child: TypeAlias = "str | int | float | Markup | Iterable[Child] | None"

_VOID = frozenset({"meta", "img", "br", "col"})
_UNSEEN = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]|[\u202a-\u202e\u2066-\u2069]")
"""What no HTML may hold, and what turns the direction of the text after it."""


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


def escape(text: object) -> Markup:
    """`text` as HTML shows it, in elements and in attributes; characters that no page may hold become U+FFFD."""
    return Markup(html.escape(_UNSEEN.sub("\ufffd", str(text)), quote=True))


def tag(name: str, /, *children: Child, **attributes: str | float | bool | None) -> Markup:
    """An element.

    Args:
        children: strings are escaped, numbers printed, None left out, iterables taken apart.
        attributes: a trailing underscore is dropped (``class_``), others become hyphens (``aria_label``); None and
            False leave an attribute out, True gives it without a value, floats are rounded to a hundredth.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Child) -> Markup:
    """`children` one after the other."""
    if children is None:
        return Markup()
    if isinstance(children, Markup):
        return children
    if isinstance(children, str):
        return escape(children)
    if isinstance(children, (int, float)):
        return Markup(_number(children))
    return Markup("".join(map(join, children)))


def _attribute(key: str, value: str | float | bool | None) -> str:
    name = key.rstrip("_").replace("_", "-")
    if value is None or value is False:
        return ""
    if value is True:
        return f" {name}"
    return f' {name}="{escape(value) if isinstance(value, str) else _number(value)}"'


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:.2f}".rstrip("0").rstrip(".")
