"""What every page is set in: styles, a head, links to its parts, the parts; nothing is loaded from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources

from .markup import Child, Markup, tag


@dataclass(frozen=True)
class Part:
    """A question and its answer.

    Attributes:
        name: what links to it say.
    """

    name: str
    title: str
    content: Sequence[Markup]


def page(title: str, top: Child, parts: Sequence[Part], when: str) -> str:
    """A whole HTML file.

    Args:
        title: of the window.
        top: the header: an h1, a line below it, tiles.
        when: it was written.
    """
    from ... import __version__

    styles = resources.files(__package__).joinpath("page.css").read_text(encoding="utf-8")
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("title", title),
        tag("style", Markup(styles)),
    )
    links = [tag("li", tag("a", part.title, href=f"#{part.name}")) for part in parts]
    sections = [
        tag("section", tag("h2", part.title, id=f"{part.name}-title"), part.content,
            id=part.name, aria_labelledby=f"{part.name}-title")
        for part in parts
    ]  # fmt: skip
    body = tag(
        "body",
        tag("a", "To the first answer", href=f"#{parts[0].name}", class_="skip"),
        tag("header", top),
        tag("nav", tag("ol", links), aria_label="Questions"),
        tag("main", sections),
        tag("footer", tag("p", f"Written by inception-deploy {__version__} on {when}.")),
    )
    return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"
