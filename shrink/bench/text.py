"""A result for people."""

from __future__ import annotations

from collections.abc import Iterator

from device_runner.text import printable
from shrink.bench.result import Measured, Result


def render(result: Result) -> str:
    """As a table: a column for the bundle, one for the other it was timed against."""
    if not result.complete or result.candidate is None:
        return f"not complete: {result.problem}\nNothing of this run counts."
    sides = [result.candidate, *filter(None, (result.against,))]
    rows = [("", *(side.target for side in sides)), *_rows(sides)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])]).rstrip() for row in rows]
    return "\n".join([*lines, "", *_below(result)])


def _rows(sides: list[Measured]) -> list[tuple[str, ...]]:
    columns = [dict(_column(side)) for side in sides]
    names = dict.fromkeys(name for column in columns for name in column)
    return [(name, *(column.get(name, "-") for column in columns)) for name in names]


def _column(side: Measured) -> Iterator[tuple[str, str]]:
    a = side.accuracy
    yield "top-1", f"{100 * a.top1:.2f} %"
    yield "top-1, 95 % interval", f"{100 * a.low:.1f} to {100 * a.high:.1f}"
    yield "images", f"{a.images}"
    yield "runtime", f"{side.engine} {side.engine_version}"
    yield "delegate", side.delegate or "-"
    if side.times is not None:
        t = side.times
        yield "latency, median", milliseconds(t.p50)
        yield "latency, p90", milliseconds(t.p90)
        yield "latency, p99", milliseconds(t.p99)
        yield "load, first", f"{side.load_ms or 0:.0f} ms, {milliseconds(side.first_ms or 0)}"
    if side.peak_mb is not None:
        yield "memory, peak", f"{side.peak_mb:.0f} MB"
    if side.instructions is not None:
        for name, region in side.instructions.regions.items():
            yield f"instructions, {name}", f"{region.total / 1e6:.3f} M"


def _below(result: Result) -> Iterator[str]:
    if result.ratio is not None:
        r, other = result.ratio, result.against.target if result.against else ""
        yield f"latency / {other}: {r.median:.2f} x ({r.low:.2f} to {r.high:.2f})"
    if result.facts is not None:
        f = result.facts
        where = " ".join(filter(None, (f.model, f.cpu, ", ".join(f.cpu_parts) or None))) or f.machine
        yield f"on {result.place.url}: {printable(where)}, {f.cores} cores, {result.threads} thread(s)"
    if result.place.emulated:
        yield "Emulated: the answers are the processor's, bit for bit where int8; no time of it is a device's."
    if result.candidate and result.candidate.instructions is None and result.place.kind == "qemu":
        yield f"no instruction counts: {result.candidate.no_instructions}"
    for ref, why in list(result.data.unread.items())[:3]:
        yield f"unread: {printable(ref)}: {printable(why)}"
    yield f"verdict: {result.verdict}"
    yield from (f"  {printable(reason)}" for reason in result.reasons)


def milliseconds(ms: float) -> str:
    """Three digits that count.

    >>> milliseconds(0.08069), milliseconds(112.3)
    ('0.0807 ms', '112 ms')
    """
    return f"{ms:.3g} ms" if ms < 100 else f"{ms:.0f} ms"
