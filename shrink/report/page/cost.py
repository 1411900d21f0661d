"""What each file costs and brings: accuracy step by step, against size and time, and beside other runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from device_runner.manifest import Accuracy
from shrink.report import table as figures
from shrink.report.analysis import Analysis, Other
from shrink.report.markup import Content, Markup, el
from shrink.report.page import charts
from shrink.report.page.charts import Step
from shrink.report.page.parts import name, table
from shrink.report.page.parts import section as _section
from shrink.report.pareto import Label, Point, pareto
from shrink.report.schema import Artifact, Report, Rung
from shrink.report.text import factor, percent, plain, points, size

TIME = Label("time / float, this host", lambda v: f"{v:g} x", 0.1)
SIZE = Label("size", lambda v: f"{v:g} MB", 0.05)
TOP1 = Label("top-1", lambda v: percent(v, 1), 0.005)


def section(analysis: Analysis) -> Markup:
    """Accuracy, size and time."""
    report = analysis.report
    return _section(
        "What it cost, what it brought",
        "Every image is answered by the float model and by each file on its real runtime, so a drop is counted image "
        "by image. Whiskers are 95 % intervals of the drop; the stepped line joins the files that no other beats.",
        el(
            "div.charts",
            *_figure("Accuracy against size", _plot(analysis, SIZE, _sizes(report), _other_size)),
            *_figure("Accuracy against time", _plot(analysis, TIME, _times(report), _other_time)),
            *_figure("Points of top-1 lost", charts.drops(report.artifacts)),
            *(figure for artifact in report.artifacts for figure in _waterfall(report, artifact)),
        ),
        table(figures.header(report), _rows(report), numbers=1),
        *_others(analysis),
        *_ladder(report),
    )


def _figure(title: str, chart: Markup | None) -> Iterator[Markup]:
    if chart is not None:
        yield el("figure", el("figcaption", title), chart)


def _rows(report: Report) -> Iterator[list[Content]]:
    for label, cells in figures.rows(report):
        yield [label, *cells]


def _waterfall(report: Report, artifact: Artifact) -> Iterator[Markup]:
    """Accuracy from the float model to the file."""
    if artifact.accuracy is not None:
        chart = charts.waterfall(list(_steps(report, artifact.accuracy)))
        yield from _figure(f"{plain(artifact.target)}, step by step", chart)


def _steps(report: Report, a: Accuracy) -> Iterator[Step]:
    """Float, what each step changed, the file; without steps in between, the images lost and won."""
    yield Step("float", 0, a.top1_float, "float", percent(a.top1_float))
    lost, won, last = a.flips_lost / a.images, a.flips_won / a.images, a.top1_float
    for step in report.steps:
        yield _change(step.what, last, step.top1)
        last = step.top1
    if report.steps:
        yield _change("8 bits", last, a.top1)
    else:
        yield Step(f"{a.flips_lost} lost", last, last - lost, "lost", f"−{points(lost)}")
        yield Step(f"{a.flips_won} won", last - lost, a.top1, "won", f"+{points(won)}")
    yield Step("file", 0, a.top1, "file", percent(a.top1))


def _change(what: str, before: float, after: float) -> Step:
    worse = after < before
    sign, kind = ("−", "lost") if worse else ("+", "won")
    return Step(what, before, after, kind, f"{sign}{points(abs(after - before))}")


def _plot(
    analysis: Analysis, x: Label, places: dict[str, float], other: Callable[[Other], float | None]
) -> Markup | None:
    """The files of the run, their float file, and those of other runs; None where nothing has such a cost."""
    report = analysis.report
    points_ = [
        Point(a.target, places[a.target], a.accuracy.top1, "file", *_interval(a.accuracy))
        for a in report.artifacts
        if a.accuracy and a.target in places
    ]
    if "float" in places:
        points_.insert(0, Point("float", places["float"], report.reference.top1, "float"))
    others = ((one, other(one)) for one in analysis.others)
    points_ += [Point(one.name, place, one.top1, "other") for one, place in others if place is not None]
    return pareto(points_, x, TOP1) if len(points_) > 1 else None


def _interval(a: Accuracy) -> tuple[float, float]:
    """What top-1 can be if float's is what was measured."""
    return a.top1_float - a.drop_high, a.top1_float - a.drop_low


def _sizes(report: Report) -> dict[str, float]:
    found = {a.target: a.size_bytes / 1e6 for a in report.artifacts}
    floats = [a.float_size_bytes for a in report.artifacts if a.float_size_bytes]
    return ({"float": floats[0] / 1e6} if floats else {}) | found


def _times(report: Report) -> dict[str, float]:
    ratios = {a.target: a.latency.ratio_to_float for a in report.artifacts if a.latency}
    found = {target: ratio for target, ratio in ratios.items() if ratio is not None}
    return ({"float": 1.0} if found else {}) | found


def _other_size(other: Other) -> float | None:
    return None if other.size_bytes is None else other.size_bytes / 1e6


def _other_time(other: Other) -> float | None:
    return other.ratio_to_float


def _others(analysis: Analysis) -> Iterator[Markup]:
    if analysis.others:
        yield el("h3", "Beside other runs")
        yield table(
            ("file", "top-1", "images", "size", "time / float", "measured on"),
            ([name(o.name), percent(o.top1), f"{o.images:,}", *_costs(o), name(o.where)] for o in analysis.others),
            numbers=1,
        )


def _costs(o: Other) -> list[str]:
    return ["-" if o.size_bytes is None else size(o.size_bytes), factor(o.ratio_to_float) if o.ratio_to_float else "-"]


def _ladder(report: Report) -> Iterator[Markup]:
    climbed = [artifact for artifact in report.artifacts if artifact.rungs]
    if climbed:
        yield el("h3", "What each step of quantization bought")
        yield el(
            "p.lead",
            "The error of the scores on calibration images held out for this, against their spread. A step is kept if "
            "it makes the error of those kept before it smaller; of steps that are as good, the one that another file "
            "kept, so that the files answer alike.",
        )
        yield el("div.charts", *(el("figure", el("figcaption", name(a.target)), _rungs(a)) for a in climbed))


def _rungs(artifact: Artifact) -> Markup:
    widest = max(rung.error for rung in artifact.rungs) or 1.0
    return el("ol.rungs", *(_rung(rung, widest) for rung in artifact.rungs))


def _rung(rung: Rung, widest: float) -> Markup:
    share = min(rung.error / widest, 1.0)
    bar = charts.shares([("lost" if not rung.kept else "file", share), ("rest", 1 - share)])
    said = percent(rung.error, 1) + ", not kept" * (not rung.kept) + f": {rung.why}" * bool(rung.why)
    return el("li.kept" if rung.kept else "li", el("span", rung.what), el("span.number", said), bar)
