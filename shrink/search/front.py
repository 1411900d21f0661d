"""What came out of a study: the front, the winner, and the closest point where nothing keeps the limits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from shrink.report.schema import Report
from shrink.report.text import plain, points, size
from shrink.search.goal import Figures, Goal
from shrink.search.result import cost, dominates, values
from shrink.search.trials import Entry, Head
from shrink.verify.statistics import paired_interval

COLUMNS = ("trial", "", "size", "latency", "lost, points", "95 % interval", "")


def front(entries: Sequence[Entry]) -> list[Entry]:
    """The finished trials that no other beats in size, time and answers at once, the smallest first."""
    done = [entry for entry in entries if entry.result is not None]
    figures = {entry.number: values(entry.result.figures) for entry in done if entry.result}
    best = [e for e in done if not any(dominates(figures[o.number], figures[e.number]) for o in done)]
    return sorted(best, key=lambda entry: (figures[entry.number], entry.number))


def winner(goal: Goal, entries: Sequence[Entry]) -> Entry | None:
    """Of the trials that keep every limit the one with the least time x size; None if there is none."""
    kept = [entry for entry in entries if entry.result and goal.gap(entry.result.figures) <= 0]
    return min(kept, key=lambda entry: (cost(_figures(entry)), _figures(entry).drop, entry.number), default=None)


def closest(goal: Goal, entries: Sequence[Entry]) -> Entry | None:
    """The finished trial that misses the limits by least."""
    done = [entry for entry in entries if entry.result]
    return min(done, key=lambda entry: (goal.gap(_figures(entry)), entry.number), default=None)


def missed(goal: Goal, entry: Entry) -> str:
    """Which limits a trial misses, in words."""
    figures = _figures(entry)
    words = {
        "max_drop": f"{figures.drop_likely:.2f} points of top-1 are likely lost, {goal.max_drop:g} allowed",
        "size_mb": f"{figures.size_mb:.3f} MB, {goal.size_mb} allowed",
        "latency_ms": f"{figures.latency_ms} ms, {goal.latency_ms} allowed",
        "smaller": f"{1 / figures.size_ratio:.2f}x smaller, {goal.smaller}x asked" if figures.size_ratio else "",
        "faster": f"{1 / figures.latency_ratio:.2f}x faster, {goal.faster}x asked" if figures.latency_ratio else "",
    }
    return "; ".join(words[key] for key, gap in goal.gaps(figures).items() if gap > 0)


def describe(entry: Entry) -> str:
    """A trial in a line."""
    if entry.result is None:
        return f"{entry.point}: {entry.state}{': ' * bool(entry.why)}{entry.why}"
    return f"{entry.point}: {', '.join(_cells(entry))}"


def unseen(best: Entry, report: Report, made: Mapping[str, str]) -> Iterator[str]:
    """What the winner loses on the images that did not choose it; `made`: SHA-256 of the files that were exported.

    Where the files are the same, the flips on the other images are what is left of those on all.
    """
    assert best.result is not None
    judged = {file.target: file for file in best.result.files}
    for artifact in report.artifacts:
        seen, every = judged[artifact.target], artifact.accuracy
        if artifact.target not in made or every is None or every.images <= seen.images:
            continue
        if (other := made[artifact.target]) != seen.sha256:
            yield (
                f"{artifact.target}: not the bytes that trial {best.number} judged (SHA-256 {other[:12]}, not "
                f"{seen.sha256[:12]}): another machine or other versions of packages made them"
            )
            continue
        lost, won, count = every.flips_lost - seen.lost, every.flips_won - seen.won, every.images - seen.images
        low, high = paired_interval(lost, won, count)
        yield (
            f"{artifact.target}: the very file of trial {best.number}; on the {count:,} images that the search did not "
            f"look at it loses {points((lost - won) / count)} points (drop {points(low)} to {points(high)})"
        )


def table(head: Head, entries: Sequence[Entry], note: str = "") -> Iterator[str]:
    """A study for a terminal, line by line; it may come from anybody, so no letter of it moves the cursor."""
    yield from map(plain, _table(head, entries, note))


def _table(head: Head, entries: Sequence[Entry], note: str) -> Iterator[str]:
    counts = {state: sum(e.state == state for e in entries) for state in ("done", "given up", "failed", "running")}
    yield f"limits: {head.goal}"
    yield "trials: " + ", ".join(f"{count} {state}" for state, count in counts.items() if count or state == "done")
    yield from (f"not searched: {line}" for line in head.space.declined)
    if note:
        yield f"note: {note}"
    best, found = winner(head.goal, entries), front(entries)
    if not found:
        return
    yield ""
    rows = [
        ("trial", "", "size", "latency", "lost, points", "95 % interval", ""),
        *(_row(head, best, e) for e in found),
    ]
    wide = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, wide, strict=True)).rstrip()
    if best is None and (near := closest(head.goal, entries)):
        yield ""
        yield f"no trial keeps all limits; the closest is trial {near.number}: {missed(head.goal, near)}"


def _row(head: Head, best: Entry | None, entry: Entry) -> tuple[str, ...]:
    gap = head.goal.gap(_figures(entry))
    mark = "<- best" if best and entry.number == best.number else "keeps the limits" if gap <= 0 else ""
    return (str(entry.number), str(entry.point), *_cells(entry), mark)


def _cells(entry: Entry) -> tuple[str, str, str, str]:
    assert entry.result is not None
    figures = entry.result.figures
    worst = max(entry.result.files, key=lambda file: file.drop)
    timed = figures.latency_ms is not None and figures.latency_ratio is not None
    low, high = worst.interval()
    return (
        f"{size(round((figures.size_mb or 0) * 1e6))} ({figures.size_ratio:.2f}x)",
        f"{figures.latency_ms:.3g} ms ({figures.latency_ratio:.2f}x)" if timed else "not timed",
        f"{figures.drop:.2f}",
        f"{low:.2f} to {high:.2f}",
    )


def _figures(entry: Entry) -> Figures:
    assert entry.result is not None
    return entry.result.figures
