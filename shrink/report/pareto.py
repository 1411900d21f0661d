"""The plot of what a file costs against what it answers: data in, SVG out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from shrink.report.axis import Axis, around, steps
from shrink.report.markup import Markup, el, join, number
from shrink.report.sheets import CHARTS, sheet
from shrink.report.text import plain

WIDTH, HEIGHT = 420, 300
LEFT, RIGHT, TOP, BOTTOM = 52, 14, 16, 44
LETTER, LINE = 6.1, 12  # width and height of a letter of a label, about
LONGEST = 22  # letters of a label

Mark = Literal["float", "file", "other", "chosen"]
Box = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class Point:
    """One file. `low` and `high` are the interval of y."""

    name: str
    x: float  # what it costs: less is better
    y: float  # what it answers: more is better
    mark: Mark = "file"
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, slots=True)
class Label:
    """The name of an axis and how its values are written."""

    name: str
    show: Callable[[float], str]
    least: float  # the narrowest range


def frontier(points: Iterable[Point]) -> list[Point]:
    """The points that no other beats: none costs less and answers as well; cheapest first.

    >>> [p.name for p in frontier([Point("a", 1, 0.8), Point("b", 2, 0.7), Point("c", 3, 0.9)])]
    ['a', 'c']
    """
    best: list[Point] = []
    for point in sorted(points, key=lambda p: (p.x, -p.y)):
        if not best or point.y > best[-1].y:
            best.append(point)
    return best


def pareto(points: Sequence[Point], x: Label, y: Label) -> Markup:
    """An `<svg>` for a page that has the sheet `CHARTS`; as a file of its own it is made by `standalone`.

    Args:
        points: at least one; values are finite.
    """
    across = around([p.x for p in points], LEFT, WIDTH - RIGHT, least=x.least)
    up = around([v for p in points for v in (p.y, p.low, p.high) if v is not None], HEIGHT - BOTTOM, TOP, least=y.least)
    across = Axis(max(across.low, 0) if min(p.x for p in points) >= 0 else across.low, across.high, LEFT, WIDTH - RIGHT)
    return el(
        "svg.chart",
        {"viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img", "xmlns": "http://www.w3.org/2000/svg"},
        el("title", f"{y.name} against {x.name}: {', '.join(p.name for p in points)}"),
        *_grid(across, up, x, y),
        _line(frontier(points), across, up),
        *(_mark(p, across, up) for p in points),
        *_labels(points, across, up),
    )


def standalone(chart: Markup) -> str:
    """The text of an SVG file, with its own colours, light or dark as the reader's."""
    style = el("style", Markup(sheet(CHARTS).replace("<", "\\3c ")))
    head, _, rest = chart.text.partition(">")
    return f"{head}>{style.text}{rest}\n"


def _grid(across: Axis, up: Axis, x: Label, y: Label) -> Iterator[Markup]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    for place, text in steps(up, y.show):
        yield el("line.grid", {"x1": LEFT, "x2": right, "y1": place, "y2": place})
        yield el("text.tick", {"x": LEFT - 6, "y": place + 3.5, "text-anchor": "end"}, text)
    for place, text in steps(across, x.show):
        yield el("line.grid", {"x1": place, "x2": place, "y1": TOP, "y2": bottom})
        yield el("text.tick", {"x": place, "y": bottom + 15, "text-anchor": "middle"}, text)
    yield el("text.axis", {"x": right, "y": HEIGHT - 8, "text-anchor": "end"}, f"{x.name} →")
    yield el("text.axis", {"x": LEFT, "y": 10}, f"↑ {y.name}")


def _line(best: Sequence[Point], across: Axis, up: Axis) -> Markup | None:
    """Steps: what is reached at no more than that cost."""
    if len(best) < 2:
        return None
    places = [(across(p.x), up(p.y)) for p in best]
    path = f"M{number(places[0][0])} {number(places[0][1])}"
    path += "".join(f"H{number(px)}V{number(py)}" for px, py in places[1:])
    return el("path.frontier", {"d": path})


def _mark(p: Point, across: Axis, up: Axis) -> Markup:
    px, py = across(p.x), up(p.y)
    whisker = None
    if p.low is not None and p.high is not None:
        whisker = el(f"line.whisker.{p.mark}", {"x1": px, "x2": px, "y1": up(p.low), "y2": up(p.high)})
    return join([whisker, el(f"circle.dot.{p.mark}", {"cx": px, "cy": py, "r": 5.5}, el("title", p.name))])


def _labels(points: Sequence[Point], across: Axis, up: Axis) -> Iterator[Markup]:
    """Names beside their points, where they cover neither a point nor another name; one without room is left out."""
    taken = [(across(p.x) - 6, up(p.y) - 6, across(p.x) + 6, up(p.y) + 6) for p in points]
    for p in points:
        text = shorten(p.name)
        for anchor, px, py, box in _places(across(p.x), up(p.y), LETTER * len(text)):
            if _within(box) and not any(_overlap(box, other) for other in taken):
                taken.append(box)
                yield el(f"text.name.{p.mark}", {"x": px, "y": py, "text-anchor": anchor}, text)
                break


def shorten(name: str, longest: int = LONGEST) -> str:
    """The end of a name is what tells files apart.

    >>> shorten("a/very/long/folder/of/mine/tflite-int8", 16)
    '…ine/tflite-int8'
    """
    shown = plain(name)
    return shown if len(shown) <= longest else f"…{shown[1 - longest :]}"


def _places(px: float, py: float, wide: float) -> Iterator[tuple[str, float, float, Box]]:
    """(anchor, x, y, box) to the right, to the left, above and below, then further off."""
    for off in (0, 14, -14, 26, -26):
        yield "start", px + 10, py + 4 + off, (px + 10, py - 6 + off, px + 10 + wide, py + 6 + off)
        yield "end", px - 10, py + 4 + off, (px - 10 - wide, py - 6 + off, px - 10, py + 6 + off)
    for y in (py - 11, py + 19):
        yield "middle", px, y, (px - wide / 2, y - LINE + 2, px + wide / 2, y + 2)


def _within(box: Box) -> bool:
    return box[0] >= LEFT and box[2] <= WIDTH and box[1] >= 0 and box[3] <= HEIGHT - BOTTOM


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
