"""What sections are made of: tables, tiles, figures, notes; and how numbers are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .markup import Child, Markup, tag


def heading(text: Child) -> Markup:
    """The title of a part of a section."""
    return tag("h3", text)


def paragraph(*content: Child) -> Markup:
    """Running text."""
    return tag("p", *content)


def note(*content: Child) -> Markup:
    """What was measured, how, and what was not: smaller text."""
    return tag("p", *content, class_="note")


def code(text: Child) -> Markup:
    """A name or a command, which may break anywhere."""
    return tag("code", text)


def mark(ok: bool | None, yes: str = "ok", no: str = "failed") -> Markup:
    """A verdict in words, and in colour; None: nothing was judged."""
    if ok is None:
        return tag("span", "not judged", class_="soft")
    return tag("span", yes if ok else no, class_="ok" if ok else "no")


def tiles(rows: Iterable[tuple[Child, Child]]) -> Markup:
    """Figures in large type: (figure, what it is)."""
    return tag("dl", [tag("div", tag("dt", what), tag("dd", figure)) for figure, what in rows], class_="tiles")


def table(
    caption: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Child]],
    *,
    right: Iterable[int] = (),
    ids: Sequence[str] | None = None,
) -> Markup:
    """A table whose first column names its rows; it scrolls where the window is too narrow.

    Args:
        caption: what the table shows, read out before it.
        right: the columns of numbers.
        ids: of the rows, for links to them.
    """
    right = frozenset(right)
    head = [
        tag("th", name, scope="col", class_="n" if i in right else None) if name else tag("td")
        for i, name in enumerate(columns)
    ]
    body = []
    for number, row in enumerate(rows):
        cells = [
            tag("td" if i else "th", cell, scope=None if i else "row", class_="n" if i in right else None)
            for i, cell in enumerate(row)
        ]
        body.append(tag("tr", cells, id=ids[number] if ids else None))
    inner = tag(
        "table", tag("caption", caption), tag("thead", tag("tr", head)) if any(columns) else None, tag("tbody", body)
    )
    return tag("div", inner, class_="scroll", tabindex="0", role="region", aria_label=caption)


def figure(picture: Markup, caption: Child, *, scrolls: str | None = None) -> Markup:
    """A picture and what it shows.

    Args:
        scrolls: of a picture that needs a wide window, its name: it scrolls within its frame then.
    """
    framed = picture
    if scrolls:
        framed = tag("div", picture, class_="scroll wide", tabindex="0", role="region", aria_label=scrolls)
    return tag("figure", framed, tag("figcaption", caption))


def folded(summary: str, *content: Child) -> Markup:
    """What only some readers want; it is open on paper."""
    return tag("details", tag("summary", summary), *content)


def bar(share: float, kind: str = "") -> Markup:
    """A bar beside a number; it says nothing that the number does not."""
    part = max(0.0, min(1.0, share))
    return tag("span", tag("i", style=f"width:{100 * part:.1f}%"), class_=f"bar {kind}".strip(), aria_hidden="true")


def ms(value: float | None) -> str:
    """A time of so many milliseconds, in three digits."""
    if value is None:
        return "-"
    if value < 0.1:
        return f"{1e3 * value:.3g} \u00b5s"
    return f"{value:.0f} ms" if value >= 100 else f"{value:.3g} ms"


def percent(share: float | None) -> str:
    """A share of 1 in percent."""
    return "-" if share is None else f"{100 * share:.1f} %"


def size(count: float) -> str:
    """Bytes in the unit that people use for so many."""
    for unit, each in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= each:
            return f"{count / each:.3g} {unit}"
    return f"{count:.0f} B"


def many(count: float | None) -> str:
    """A large count: 13.2 G, 5.8 M."""
    if count is None:
        return "-"
    for unit, each in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if count >= each:
            return f"{count / each:.3g} {unit}"
    return f"{count:.0f}"


def several(count: int, what: str, plural: str | None = None) -> str:
    """``1 layer``, ``3 layers``."""
    return f"{count} {what if count == 1 else plural or what + 's'}"
