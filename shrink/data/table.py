"""Images listed in a CSV with a header: `path,label`, or `path` alone for calibration; `name` names the label.

Every other column is kept as it is, such as the site or the lighting of an image, so that results can be sliced by it.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path

from shrink.data.images import Files, Parts, from_source
from shrink.errors import DataError, nearest

OURS = ("path", "label", "name")
"""Columns with a meaning of their own."""


def read_csv(name: str, table: Path) -> Parts:
    """Paths are relative to the CSV. Labels are all numbers from 0, or all names, numbered in sorted order."""
    rows = _rows(table)
    paths = [table.parent / row["path"] for row in rows]
    for line, path in enumerate(paths, start=2):
        if not path.is_file():
            why = f"{rows[line - 2]['path']} of entry {line - 1} is looked for at {path}"
            raise DataError(f"{table} lists an image that is not there", why, "write paths relative to the CSV")
    labels, classes = _labels(table, [row["label"] for row in rows]) if "label" in rows[0] else (None, None)
    named = zip(labels or (), (row.get("name", "") for row in rows), strict=False)
    names = {} if classes else {label: text for label, text in named if text}
    refs = [row["path"] for row in rows]
    columns = {column: tuple(row[column] for row in rows) for column in rows[0] if column not in OURS}
    files = Files(tuple(paths))
    return Parts(None, from_source(name, files, refs, labels=labels, classes=classes, names=names, columns=columns))


def _rows(table: Path) -> list[dict[str, str]]:
    """All columns of every entry; those with a meaning must be filled."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            columns = [column.strip() for column in reader.fieldnames or ()]
            reader.fieldnames = columns
            rows = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{table} is not a CSV", str(error), "write it as UTF-8 text with commas") from error
    if "path" not in columns:
        fix = f"start the file with the line path,label ({nearest('path', columns)})" if columns else "write path,label"
        raise DataError(f"{table} has no column 'path'", f"its first line names {', '.join(columns) or 'nothing'}", fix)
    if not rows:
        raise DataError(f"{table} is empty", "it has a header and no entries", "add one line path,label per image")
    wanted = [column for column in ("path", "label") if column in columns]
    others = [column for column in columns if column and column not in wanted]
    return [
        {column: _cell(table, row, column, entry) for column in wanted} | _others(row, others)
        for entry, row in enumerate(rows, start=1)
    ]


def _others(row: Mapping[str, str | None], columns: list[str]) -> dict[str, str]:
    return {column: (row.get(column) or "").strip() for column in columns}


def _cell(table: Path, row: dict[str, str], column: str, entry: int) -> str:
    value = (row[column] or "").strip()
    if not value:
        raise DataError(f"{table} has an entry without {column}", f"entry {entry} has an empty one", "fill it in")
    return value


def _labels(table: Path, written: list[str]) -> tuple[list[int], list[str] | None]:
    """Labels as numbers, and the classes if they were names."""
    numbers = [text.isascii() and text.isdigit() and len(text) < 10 for text in written]
    if all(numbers):
        return [int(text) for text in written], None
    if any(numbers):
        odd = written[numbers.index(False)]
        why = f"entry {numbers.index(False) + 1} has {odd!r}, entry {numbers.index(True) + 1} a number"
        raise DataError(f"{table} mixes labels that are numbers and names", why, "use numbers from 0, or names, only")
    classes = sorted(set(written))
    index = {label: number for number, label in enumerate(classes)}
    return [index[label] for label in written], classes
