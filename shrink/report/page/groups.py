"""Where the drop is: by class and by slice, with the worst named, and which answers changed into which."""

from __future__ import annotations

from collections.abc import Iterator

from shrink.report.analysis import CLASS, Analysis, Change, FileAnalysis, Group, Grouped
from shrink.report.markup import Content, Markup, el, join
from shrink.report.page.charts import spark
from shrink.report.page.parts import more, name, table
from shrink.report.page.parts import section as _section
from shrink.report.text import percent, points

SHOWN, MOST = 6, 200  # groups of a table: at once, and once it is unfolded


def section(analysis: Analysis) -> Markup | None:
    """Classes, slices and changed answers of every file."""
    if not analysis.files:
        return None
    return _section(
        "Where the drop is",
        "Each class and slice is tested by itself (exact McNemar). p is raised by Holm's method for the number of "
        "tests, so that among all of them even one false alarm is seldom.",
        *(part for file in analysis.files for part in _file(file)),
    )


def _file(file: FileAnalysis) -> Iterator[Markup]:
    yield el("h3", name(file.target))
    for grouped in file.grouped:
        yield _grouped(grouped)
    if file.changes:
        rows = [_change(change) for change in file.changes]
        head = ("truth", "float says", "file says", "images")
        yield el("h4", "Answers that changed")
        yield table(head, rows[:SHOWN], numbers=3)
        if rows[SHOWN:]:
            yield more(f"{len(rows) - SHOWN} more", table(head, rows[SHOWN:], numbers=3))


def _change(change: Change) -> list[Content]:
    return [name(change.label), name(change.before), name(change.now), f"{change.images:,}"]


def _grouped(grouped: Grouped) -> Markup:
    groups = grouped.groups
    title = "By class" if grouped.by == CLASS else f"By {grouped.by}"
    widest = max((abs(v) for g in groups[:MOST] for v in (g.drop_low, g.drop_high)), default=0.01)
    head = (grouped.by, "images", "float", "file", "drop", "", "p, Holm")
    rows = [_row(group, widest) for group in groups[:MOST]]
    folded = rows[SHOWN:]
    beyond = f"; {len(groups) - MOST} more are in the JSON" if len(groups) > MOST else ""
    return join(
        [
            el("h4", title),
            el("p.lead", _worst(grouped)),
            table(head, rows[:SHOWN], numbers=1),
            more(f"{len(folded)} more{beyond}", table(head, folded, numbers=1)) if folded else None,
        ]
    )


def _worst(grouped: Grouped) -> Content:
    """The sentence above a table."""
    worst, sure = grouped.groups[0], [group for group in grouped.groups if group.is_sure]
    if worst.drop <= 0:
        return "None lost anything."
    drop = f" loses most: {points(worst.drop)} points, {worst.lost} images lost and {worst.won} won of {worst.images}."
    if not sure:
        return join([name(worst.name), drop, " That is within chance, as is every other."])
    names: list[Content] = []
    for group in sure[:SHOWN]:
        names += [", " if names else "", name(group.name)]
    return join([name(worst.name), drop, " More than chance: ", *names, "."])


def _row(group: Group, widest: float) -> list[Content]:
    kind = "fail" if group.is_sure else "pass" if group.drop <= 0 else "unsure"
    return [
        name(group.name),
        f"{group.images:,}",
        percent(group.top1_float, 1),
        percent(group.top1, 1),
        points(group.drop),
        spark(group.drop_low, group.drop, group.drop_high, widest, kind),
        f"{group.p_holm:.2g}",
    ]
