"""HTML and SVG as values. Text from outside becomes markup only by being escaped: there is no other way in.

>>> el("p.note", {"title": 'a "b"'}, "1 < 2", el("br")).text
'<p class="note" title="a &quot;b&quot;">1 &lt; 2<br></p>'
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from shrink.report.text import plain

VOID = frozenset({"br", "col", "img", "meta"})
_SELECTOR = re.compile(r"([a-z][a-zA-Z0-9]*)((?:\.[a-z][a-z0-9-]*)*)")
_ATTRIBUTE = re.compile(r"(?!on)[a-z][a-zA-Z0-9:-]*")


@dataclass(frozen=True, slots=True)
class Markup:
    """Text that is markup already."""

    text: str


Attributes = Mapping[str, str | float]
Content = str | Markup | Attributes | None
"""What an element takes: outside text, elements, its attributes, or nothing."""


def el(selector: str, *content: Content) -> Markup:
    """An element.

    Args:
        selector: name and classes, `div.card.wide`; of our own writing.
        content: text is escaped, and control and direction characters are shown as escapes; a mapping holds attributes.
    """
    found = _SELECTOR.fullmatch(selector)
    assert found is not None, selector
    name, classes = found[1], found[2].replace(".", " ").strip()
    given: dict[str, str | float] = {"class": classes} if classes else {}
    for one in content:
        if isinstance(one, Mapping):
            given |= one
    head = f"<{name}{''.join(_attribute(key, value) for key, value in given.items())}>"
    return Markup(head if name in VOID else f"{head}{''.join(map(_inner, content))}</{name}>")


def join(parts: Iterable[Content]) -> Markup:
    """Parts one after the other."""
    return Markup("".join(map(_inner, parts)))


def whole(text: str) -> Markup:
    """Text of our own making, however long, such as a command; escaped like any other."""
    return Markup(html.escape(text))


def number(value: float) -> str:
    """A coordinate: two digits behind the point, no more than needed.

    >>> number(12.0), number(3.14159), number(-0.001)
    ('12', '3.14', '0')
    """
    return f"{round(value, 2) + 0.0:.2f}".rstrip("0").rstrip(".")


def _attribute(key: str, value: str | float) -> str:
    assert _ATTRIBUTE.fullmatch(key), key
    return f' {key}="{html.escape(value if isinstance(value, str) else number(value))}"'


def _inner(content: Content) -> str:
    if isinstance(content, Markup):
        return content.text
    return html.escape(plain(content)) if isinstance(content, str) else ""
