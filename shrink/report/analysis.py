"""What the answers to every image say beyond the report: drops per class and slice, changes, flipped images.

`shrink report --json` writes it; a field never changes its meaning within one schema number.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from device_runner.manifest import Count, Positive, Record, Share
from shrink.report.schema import Report

ANALYSIS_SCHEMA: Final = 1

LEVEL = 0.05
"""A drop is more than chance below this p value, which Holm's method has raised for the number of groups."""

CLASS = "class"


class Group(Record, frozen=True, kw_only=True):
    """The drop within one class or slice."""

    name: str
    images: Positive
    top1_float: Share
    top1: Share
    drop: float
    drop_low: float  # 95 % interval
    drop_high: float
    lost: Count
    won: Count
    p_value: Share  # exact McNemar test, two-sided
    p_holm: Share  # the same, for the number of groups

    @property
    def is_sure(self) -> bool:
        """Whether it is worse by more than chance."""
        return self.drop > 0 and self.p_holm < LEVEL


class Grouped(Record, frozen=True, kw_only=True):
    """All classes, or all values of a column; the largest drop first."""

    by: str  # "class", or the name of the column
    groups: tuple[Group, ...]


class Change(Record, frozen=True, kw_only=True):
    """Images of one class that got another answer."""

    label: str
    before: str  # what the float model says
    now: str  # what the file says
    images: Positive


class Flip(Record, frozen=True, kw_only=True):
    """An image that only the float model, or only the file, names rightly."""

    row: Count  # in the predictions
    ref: str
    label: str
    before: str
    before_confidence: Share
    now: str
    now_confidence: Share
    is_lost: bool


class FileAnalysis(Record, frozen=True, kw_only=True):
    """What one file's answers say, beside the float model's."""

    target: str
    grouped: tuple[Grouped, ...]
    changes: tuple[Change, ...]  # the most frequent first
    flips: tuple[Flip, ...]  # lost before won, the surest first


class Other(Record, frozen=True, kw_only=True):
    """A file of another run, for comparison."""

    name: str
    images: Count
    top1: Share
    size_bytes: Count | None
    ratio_to_float: float | None  # of its time to its own float file's
    where: str  # what it was measured on


class Analysis(Record, frozen=True, kw_only=True):
    """All that a page shows."""

    schema: Literal[1] = ANALYSIS_SCHEMA
    run: str  # its directory, as it was given
    report: Report
    files: tuple[FileAnalysis, ...]  # empty: the run has no predictions
    others: tuple[Other, ...] = ()
    notes: tuple[str, ...] = ()


def dump(analysis: Analysis) -> bytes:
    """As indented JSON."""
    return msgspec.json.format(msgspec.json.encode(analysis), indent=1) + b"\n"
