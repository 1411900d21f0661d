"""Charts and markup: what is outside is escaped, what is drawn is where it belongs."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shrink.report.axis import Axis, around
from shrink.report.markup import el
from shrink.report.pareto import Label, Point, frontier, pareto, standalone

SVG = "{http://www.w3.org/2000/svg}"
X = Label("size", lambda v: f"{v:g} MB", 0.1)
Y = Label("top-1", lambda v: f"{v:.1%}", 0.01)
VALUES = st.floats(-1e6, 1e6, allow_nan=False).map(lambda v: round(v, 3))


def drawn(points: list[Point]) -> ElementTree.Element:
    return ElementTree.fromstring(standalone(pareto(points, X, Y)))


def test_markup_escapes_text_attributes_and_control_characters():
    made = el("p.a", {"title": '"><script>'}, "<script>alert(1)</script>\x1b\u202e", el("br"), None)
    assert made.text == (
        '<p class="a" title="&quot;&gt;&lt;script&gt;">&lt;script&gt;alert(1)&lt;/script&gt;\\x1b\\u202e<br></p>'
    )


@pytest.mark.parametrize("key", ["onload", "x y", "style='", ""])
def test_an_attribute_that_runs_or_breaks_out_is_a_bug(key: str):
    with pytest.raises(AssertionError):
        el("p", {key: "x"})


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=12))
def test_the_frontier_is_what_nothing_beats(places: list[tuple[int, int]]):
    points = [Point(str(i), x, y) for i, (x, y) in enumerate(places)]
    kept = {(p.x, p.y) for p in frontier(points)}
    beaten = {(a, b) for a, b in places for c, d in places if (c, d) != (a, b) and c <= a and d >= b}
    assert kept == set(places) - beaten


@given(VALUES, VALUES)
def test_ticks_are_few_round_and_inside(a: float, b: float):
    axis = around([a, b], 0, 100, least=0.01)
    ticks = axis.ticks()
    assert 1 <= len(ticks) <= 6
    assert all(axis.low - 1e-6 <= tick <= axis.high + 1e-6 for tick in ticks)
    assert axis.low < min(a, b) and max(a, b) < axis.high


def test_an_axis_is_linear_and_keeps_what_is_outside_at_its_edge():
    axis = Axis(0, 10, 100, 0)
    assert (axis(0), axis(5), axis(10), axis(99)) == (100, 50, 0, 0)


def test_a_better_point_is_higher_and_a_cheaper_one_further_left():
    circles = drawn([Point("a", 1, 0.8), Point("b", 3, 0.9)]).findall(f".//{SVG}circle")
    (ax, ay), (bx, by) = ((float(c.attrib["cx"]), float(c.attrib["cy"])) for c in circles)
    assert ax < bx and by < ay


@given(st.lists(st.tuples(VALUES.map(abs), st.floats(0, 1)), min_size=1, max_size=12))
def test_any_points_are_drawn_inside_and_their_names_cover_no_other(places: list[tuple[float, float]]):
    chart = drawn([Point(f"file {i}", x, y) for i, (x, y) in enumerate(places)])
    circles = chart.findall(f".//{SVG}circle")
    assert len(circles) == len(places)
    assert all(52 <= float(c.attrib["cx"]) <= 406 and 16 <= float(c.attrib["cy"]) <= 256 for c in circles)


@pytest.mark.parametrize("name", ["</title><script>alert(1)</script>", "]]>", "\x00\u202e", "x" * 5000, "&amp;"])
def test_a_hostile_name_is_text_in_the_svg(name: str):
    chart = drawn([Point(name, 1, 0.5)])
    kinds = {node.tag.removeprefix(SVG) for node in chart.iter()}
    assert kinds <= {"svg", "style", "title", "line", "text", "circle", "path"}
