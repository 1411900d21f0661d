"""The rows of `benchmarks.search` as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.facts import BUSY
from benchmarks.rows import Row
from benchmarks.tables import number, table


def search(rows: Sequence[Row]) -> list[str]:
    """What was found, what a second worker saved, and what kills cost."""
    by_name = {row.name: row for row in rows if row.failure is None}
    lines: list[str] = []
    if "demo" in by_name:
        lines += [*_demo(by_name["demo"]), ""]
    if {"one_worker", "two_workers"} <= set(by_name):
        lines += [_workers(by_name["one_worker"], by_name["two_workers"]), ""]
    if "kills" in by_name:
        found = by_name["kills"].result
        lines += [
            f"{found['kills']} times kill -9 of a worker: {found['lost']} of {found['finished']} finished trials lost, "
            f"{found['running']} left running, the study readable after each.",
            "",
        ]
    failed = [f"{row.name} failed: {str(row.failure).splitlines()[0]}" for row in rows if row.failure]
    return [*lines, *failed][:-1] if not failed else [*lines, *failed]


def _demo(row: Row) -> list[str]:
    found = row.result
    header = ("trial", "point", "size, kB", "size / float", "ms", "time / float", "points lost", "likely at most", "")
    best = found["winner"] or {}
    cells = [_cells(point, best.get("number")) for point in found["points"] if point["state"] != "failed"]
    counts = ", ".join(f"{count} {state}" for state, count in found["trials"].items())
    took = f"{found['wall_seconds'] / 60:.1f} min, {found['cpu_seconds'] / 60:.1f} min of one core's work"
    lines = [
        f"Demo CNN, limits {row.settings['goal']}: {counts}; to the exported winner {took}{_busy(row)}.",
        "",
        *table(header, cells),
    ]
    if judged := best.get("accuracy"):
        low, high = 100 * judged["drop_low"], 100 * judged["drop_high"]
        lines += [
            "",
            f"The winner on all {judged['images']:,} images: {100 * judged['drop']:.2f} points lost ({low:.2f} to "
            f"{high:.2f}), verdict {best['verdict']}. {' '.join(best['unseen'])}",
        ]
    return lines


def _cells(point: dict[str, Any], best: int | None) -> list[str]:
    if point["state"] != "done":
        return [str(point["number"]), point["point"], *[""] * 6, f"{point['state']}: {point['why']}"]
    return [
        str(point["number"]), point["point"], f"{1e3 * point['size_mb']:.1f}", number(point["size_ratio"]),
        f"{point['latency_ms']:.4f}", number(point["latency_ratio"]), number(point["drop"]),
        number(point["drop_likely"]), "best" if point["number"] == best else "",
    ]  # fmt: skip


def _workers(one: Row, two: Row) -> str:
    alone, both = one.result["wall_seconds"], two.result["wall_seconds"]
    spent = f"{one.result['cpu_seconds']:.0f} and {two.result['cpu_seconds']:.0f} s of work"
    return (
        f"{one.settings['count']} trials by one worker {alone:.0f} s{_busy(one)}, by two {both:.0f} s{_busy(two)}: "
        f"{both / alone:.2f} x the time ({spent})."
    )


def _busy(row: Row) -> str:
    return f" (others kept {row.others_busy:.1f} cores busy)" if row.others_busy > BUSY else ""
