"""What several sections are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from shrink.report.markup import Content, Markup, el, join

PILLS = {"pass": "pass", "fail": "fail", "not enough images": "unsure"}


def section(title: str, lead: Content, *content: Content) -> Markup:
    """A part of the page with its heading and one sentence that says what it shows."""
    return el("section", el("h2", title), el("p.lead", lead) if lead else None, *content)


def pill(verdict: str) -> Markup:
    """A verdict as a coloured word."""
    return el(f"span.pill.{PILLS.get(verdict, 'unsure')}", verdict)


def name(text: str) -> Markup:
    """A name from outside, kept apart from the direction of the text around it."""
    return el("bdi.name", text)


def table(head: Sequence[Content], rows: Iterable[Sequence[Content]], *, numbers: int) -> Markup:
    """A table that scrolls by itself where the screen is narrow.

    Args:
        numbers: first column of numbers, which are set to the right.
    """

    def cells(tag: str, row: Sequence[Content]) -> Markup:
        return el("tr", *(el(f"{tag}.number" if at >= numbers else tag, cell) for at, cell in enumerate(row)))

    body = join(cells("td", row) for row in rows)
    return el("div.scroll", el("table", el("thead", cells("th", head)), el("tbody", body)))


def more(summary: str, *content: Content) -> Markup:
    """What is folded away until it is asked for."""
    return el("details", el("summary", summary), *content)


def facts(rows: Iterable[tuple[str, Content]]) -> Markup:
    """Terms and what is known of them."""
    return el("dl", *(el("div", el("dt", term), el("dd", fact)) for term, fact in rows if fact))


def bullets(lines: Sequence[str], *, shown: int = 12) -> Markup | None:
    """A list, the end of a long one folded away."""
    if not lines:
        return None
    items = [el("li", line) for line in lines]
    rest = items[shown:]
    return join([el("ul", *items[:shown]), more(f"{len(rest)} more", el("ul", *rest)) if rest else None])
