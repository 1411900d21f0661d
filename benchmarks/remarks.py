"""What a table says of a row beside its figures."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.facts import BUSY
from benchmarks.rows import Row


def doubts(row: Row) -> str:
    """Why the times of a row may be wrong."""
    return "busy" if row.others_busy > BUSY else ""


def failures(rows: Sequence[Row]) -> list[str]:
    """A list of the rows that have no result, after a table."""
    lines = [failure_item(row.name, str(row.failure)) for row in rows if row.failure is not None]
    return ["", "Failures:", "", *lines] if lines else []


def failure_item(where: str, text: str) -> str:
    """One of them, on one line."""
    return f"- **{where}**: " + " / ".join(line.strip() for line in text.splitlines())
