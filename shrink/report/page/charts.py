"""Charts of the page, each a drawing 420 units wide, so that its letters can be read on a phone too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from device_runner.manifest import Accuracy
from shrink.report.axis import Axis, around, steps
from shrink.report.markup import Markup, el
from shrink.report.page.parts import PILLS
from shrink.report.pareto import WIDTH, shorten
from shrink.report.schema import Artifact
from shrink.report.text import percent, points

ROW = 34
WHOLE = ("float", "file")  # kinds of bars that are an accuracy, not a change
BARS = 92  # where bars of a chart with names begin


@dataclass(frozen=True, slots=True)
class Step:
    """A bar of a waterfall: from one accuracy to the next."""

    name: str
    start: float
    end: float
    kind: str  # "float", "lost", "won" or "file"
    value: str


def svg(height: float, title: str, *content: Markup | None) -> Markup:
    """A drawing of that height."""
    head = {"viewBox": f"0 0 {WIDTH} {height:g}", "role": "img", "xmlns": "http://www.w3.org/2000/svg"}
    return el("svg.chart", head, el("title", title), *content)


def drops(artifacts: Sequence[Artifact]) -> Markup | None:
    """The drop of each file with its interval, against what is allowed."""
    rows = [(a.target, a.accuracy) for a in artifacts if a.accuracy]
    if not rows:
        return None
    values = [v for _, a in rows for v in (a.drop_low, a.drop_high, a.max_drop)]
    axis = around([0.0, *values], 14, WIDTH - 14, least=0.002, margin=0.06)
    bottom = 18 + ROW * len(rows)
    allowed = max(a.max_drop for _, a in rows)
    return svg(
        bottom + 36,
        "Drop of top-1 with its 95 % interval",
        *_ticks(axis, bottom),
        el("line.zero", {"x1": axis(0), "x2": axis(0), "y1": 6, "y2": bottom}),
        el("line.limit", {"x1": axis(allowed), "x2": axis(allowed), "y1": 6, "y2": bottom}),
        *(mark for at, (target, a) in enumerate(rows) for mark in _drop(axis, 30 + ROW * at, target, a)),
        el("text.limit", {"x": axis(allowed) - 5, "y": 13, "text-anchor": "end"}, f"{points(allowed)} allowed"),
        el("text.axis", {"x": WIDTH - 14, "y": bottom + 32, "text-anchor": "end"}, "points of top-1 lost →"),
    )


def _ticks(axis: Axis, bottom: float) -> Iterator[Markup]:
    for place, text in steps(axis, lambda v: f"{100 * v:g}"):
        yield el("line.grid", {"x1": place, "x2": place, "y1": 6, "y2": bottom})
        yield el("text.tick", {"x": place, "y": bottom + 14, "text-anchor": "middle"}, text)


def _drop(axis: Axis, y: float, target: str, a: Accuracy) -> Iterator[Markup]:
    kind = PILLS[a.verdict]
    yield el("text.name", {"x": 14, "y": y - 6}, shorten(target, 40))
    yield el(f"line.{kind}", {"x1": axis(a.drop_low), "x2": axis(a.drop_high), "y1": y + 4, "y2": y + 4})
    for end in (a.drop_low, a.drop_high):
        yield el(f"line.{kind}", {"x1": axis(end), "x2": axis(end), "y1": y, "y2": y + 8})
    yield el(f"circle.{kind}", {"cx": axis(a.drop), "cy": y + 4, "r": 4.5})


def waterfall(bars: Sequence[Step]) -> Markup:
    """Accuracy from step to step; the axis does not begin at 0, for the steps are small."""
    ends = [v for bar in bars for v in ((bar.end,) if bar.kind in WHOLE else (bar.start, bar.end))]
    axis = around(ends, BARS, WIDTH - 78, least=0.002, margin=0.3)
    bottom = ROW * len(bars) + 4
    return svg(
        bottom + 22,
        "Accuracy step by step",
        *(el("line.grid", {"x1": place, "x2": place, "y1": 4, "y2": bottom}) for place, _ in steps(axis, str, 3)),
        *(mark for at, bar in enumerate(bars) for mark in _bar(axis, at, bar, last=at == len(bars) - 1)),
        *(
            el("text.tick", {"x": place, "y": bottom + 15, "text-anchor": "middle"}, text)
            for place, text in steps(axis, lambda v: percent(v, 1), 3)
        ),
    )


def _bar(axis: Axis, at: int, bar: Step, *, last: bool) -> Iterator[Markup]:
    y = 6 + ROW * at
    whole = bar.kind in WHOLE
    left, right = sorted((BARS if whole else axis(bar.start), axis(bar.end)))
    yield el("text.name", {"x": BARS - 8, "y": y + 16, "text-anchor": "end"}, shorten(bar.name, 14))
    yield el(f"rect.bar.{bar.kind}", {"x": left, "y": y + 2, "width": max(right - left, 1.5), "height": 20, "rx": 2})
    if not last:
        yield el("line.zero", {"x1": axis(bar.end), "x2": axis(bar.end), "y1": y + 22, "y2": y + ROW + 2})
    yield el("text.value", {"x": WIDTH, "y": y + 16, "text-anchor": "end"}, bar.value)


def spark(low: float, middle: float, high: float, widest: float, kind: str) -> Markup:
    """A drop with its interval as a small drawing for a table, zero in the middle; all in one unit."""
    axis = Axis(-widest, widest, 2, 118)
    return el(
        "svg.chart.spark",
        {"viewBox": "0 0 120 16", "role": "img"},
        el("line.zero", {"x1": 60, "x2": 60, "y1": 1, "y2": 15}),
        el(f"line.{kind}", {"x1": axis(low), "x2": axis(high), "y1": 8, "y2": 8}),
        el(f"circle.{kind}", {"cx": axis(middle), "cy": 8, "r": 3.5}),
    )


def shares(parts: Sequence[tuple[str, float]]) -> Markup:
    """A bar cut into shares that add up to 1; (class of the bar, share)."""
    edges = [sum(share for _, share in parts[:at]) for at in range(len(parts) + 1)]
    return el(
        "svg.chart.shares",
        {"viewBox": "0 0 420 14", "role": "img", "preserveAspectRatio": "none"},
        *(
            el(f"rect.bar.{kind}", {"x": 420 * start, "y": 0, "width": 420 * share, "height": 14})
            for (kind, share), start in zip(parts, edges, strict=False)
            if share > 0
        ),
    )
