"""The end of an export on the terminal: the table, the verdict, what to type next."""

from __future__ import annotations

from pathlib import PurePath

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from shrink.report import table
from shrink.report.next_steps import next_steps
from shrink.report.schema import Report
from shrink.report.text import plain, shell

WIDTH = 100
"""Columns the table may take; a narrower terminal gets a narrower table."""

_STYLES = {"pass": "bold green", "fail": "bold red", "not enough images": "bold yellow"}


def show(report: Report, console: Console, out_dir: PurePath, *, python: str = "python") -> None:
    """Write the report's table, verdict and next commands to `console`; without colours or lines when it is a file.

    Args:
        out_dir: the directory of the report and the bundles, as the reader would type it.
        python: how the reader calls the Python that runs the next commands.
    """
    width = min(WIDTH, console.width) if console.is_terminal else WIDTH
    console.print(_table(report, box.SIMPLE_HEAD if console.is_terminal else None), width=width)
    _print(console, "")
    _print(console, f"verdict: {report.verdict}", _STYLES[report.verdict])
    for artifact in report.artifacts:
        _say(console, plain(table.sentence(artifact)), indent=2)
    for note in notes(report):
        _say(console, f"note: {plain(note)}")
    _say(console, "Latency is this host's, one thread; the device's own is for the device to tell.")
    _print(console, "")
    _print(console, f"report: {shell([str(out_dir / 'report.md')])}")
    for number, command in enumerate(next_steps(report, out_dir, python)):
        _print(console, f"  {command}" if number else f"next:\n  {command}")


def notes(report: Report) -> list[str]:
    """What must be known before the figures are believed."""
    count = len(report.data.skipped)
    skipped = f"{count} image{'s' if count > 1 else ''} could not be read and were left out; the report names them"
    return [*report.notes, *([skipped] if count else [])]


def _table(report: Report, lines: box.Box | None) -> Table:
    grid = Table(box=lines, pad_edge=False, show_edge=False)
    first, *others = table.header(report)
    grid.add_column(first, no_wrap=True)
    for name in others:
        grid.add_column(Text(plain(name)), justify="right", overflow="fold")
    for label, cells in table.rows(report):
        grid.add_row(Text(label), *(Text(plain(cell)) for cell in cells))
    return grid


def _say(console: Console, sentence: str, *, indent: int = 0) -> None:
    """A sentence for a person: broken between words on a terminal, never in a file."""
    if console.is_terminal:
        console.print(Padding(Text(sentence), (0, 0, 0, indent)))
    else:
        _print(console, " " * indent + sentence)


def _print(console: Console, line: str, style: str = "") -> None:
    console.print(Text(line, style), soft_wrap=True)  # never broken, so a command can be pasted
