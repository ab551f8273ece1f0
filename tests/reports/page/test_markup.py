"""Elements: whatever text they are given is text."""

from __future__ import annotations

from html.parser import HTMLParser

from hypothesis import given
from hypothesis import strategies as st

from inception_deploy.reports.page.markup import Markup, escape, join, tag


class Seen(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


def test_an_element_has_its_children_and_attributes() -> None:
    got = tag(
        "p", "a", 1, 2.5, None, [tag("b", "c"), "d"], class_="x", aria_label="y", hidden=True, id=None, width=1.256
    )
    assert got == '<p class="x" aria-label="y" hidden width="1.26">a12.5<b>c</b>d</p>'
    assert tag("br") == "<br>"
    assert tag("i") == "<i></i>"


@given(st.text(), st.text())
def test_any_text_comes_back_as_it_was_and_adds_no_element(content: str, attribute: str) -> None:
    page = Seen(tag("p", content, title=attribute))
    shown = join(escape(content)), escape(attribute)
    assert [name for name, _ in page.tags] == ["p"]
    assert list(page.tags[0][1]) == ["title"]
    assert page.text.replace("\r", "") == Seen(shown[0]).text.replace("\r", "")
    assert "<" not in shown[0]
    assert '"' not in shown[1]


def test_only_markup_is_taken_as_it_is() -> None:
    assert tag("p", "<b>") == "<p>&lt;b&gt;</p>"
    assert tag("p", Markup("<b></b>")) == "<p><b></b></p>"
    assert tag("p", title='"onload="x') == '<p title="&quot;onload=&quot;x"></p>'


def test_what_no_page_may_hold_is_shown_as_unknown() -> None:
    assert escape("a\0b\x1b[31m\u202ec\ud800") == "a\ufffdb\ufffd[31m\ufffdc\ufffd"
    escape("a\0b\ud800").encode()
