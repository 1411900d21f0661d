"""The one table: the float model against every artefact, as rows of text for any renderer."""

from __future__ import annotations

from collections.abc import Callable

from device_runner.manifest import Accuracy, Latency, TruthLabel
from shrink.report.schema import Artifact, Report
from shrink.report.text import factor, milliseconds, percent, points, size

NONE = "-"
MOST_NAMES = 2  # of ops in a cell

Row = tuple[str, tuple[str, ...]]
"""A label and one cell per column: the float model, then the artefacts in order. Not escaped."""

Cell = Callable[[Artifact], str]


def header(report: Report) -> tuple[str, ...]:
    """Names of the columns, the label's first."""
    return "", "float", *(artifact.target for artifact in report.artifacts)


def rows(report: Report) -> list[Row]:
    """All rows in which some column has a value."""
    top1 = ("top-1", (percent(report.reference.top1), *map(_accuracy(lambda a: percent(a.top1)), report.artifacts)))
    rest = [(label, (NONE, *map(cell, report.artifacts))) for label, cell in _ROWS]
    return [top1, *(row for row in rest if set(row[1]) != {NONE})]


def sentence(artifact: Artifact) -> str:
    """The verdict on one artefact and what it rests on; not escaped."""
    accuracy = artifact.accuracy
    if accuracy is None:
        return f"{artifact.target}: accuracy was not measured"
    verb = "gains" if accuracy.drop < 0 else "loses"
    change = f"{verb} {points(abs(accuracy.drop))} points of top-1 (drop {_interval(accuracy)})"
    text = f"{artifact.target}: {accuracy.verdict}; {change}, {points(accuracy.max_drop)} allowed"
    if accuracy.images_needed is not None:
        text += f"; about {accuracy.images_needed:,} more images are needed"
    return text if artifact.bundle else f"{text}; no bundle was written (--keep-failed writes it)"


def _accuracy(cell: Callable[[Accuracy], str]) -> Cell:
    return lambda artifact: cell(artifact.accuracy) if artifact.accuracy else NONE


def _latency(cell: Callable[[Latency], str]) -> Cell:
    return lambda artifact: cell(artifact.latency) if artifact.latency else NONE


def _truth(cell: Callable[[TruthLabel], str]) -> Cell:
    return lambda artifact: cell(artifact.truth)


def _interval(accuracy: Accuracy) -> str:
    return f"{points(accuracy.drop_low)} to {points(accuracy.drop_high)}"


def _size_ratio(artifact: Artifact) -> str:
    return factor(artifact.size_bytes / artifact.float_size_bytes) if artifact.float_size_bytes else NONE


def _time_ratio(latency: Latency) -> str:
    return NONE if latency.ratio_to_float is None else factor(latency.ratio_to_float)


def _time_interval(artifact: Artifact) -> str:
    timing = artifact.timing
    if timing is None or timing.ratio_low is None or timing.ratio_high is None:
        return NONE
    return f"{timing.ratio_low:.2f} to {timing.ratio_high:.2f}"


def _partitions(truth: TruthLabel) -> str:
    if truth.delegate is None:
        return NONE
    return f"{'?' if truth.delegate_partitions is None else truth.delegate_partitions} {truth.delegate}"


def _outside(truth: TruthLabel) -> str:
    """Kinds of ops that the runtime's own kernels run, which are slower: a few names, and how many more."""
    names = truth.undelegated_ops
    more = f" + {len(names) - MOST_NAMES} kinds" if len(names) > MOST_NAMES else ""
    return ", ".join(names[:MOST_NAMES]) + more if names else NONE


_ROWS: tuple[tuple[str, Cell], ...] = (
    ("drop, points", _accuracy(lambda a: points(a.drop))),
    ("drop, 95 % interval", _accuracy(_interval)),
    ("verdict", _accuracy(lambda a: a.verdict)),
    ("same answer as float", _accuracy(lambda a: percent(a.agreement))),
    ("flips lost / won", _accuracy(lambda a: f"{a.flips_lost} / {a.flips_won}")),
    ("McNemar p", _accuracy(lambda a: f"{a.p_value:.2g}")),
    (
        "score error, relative",
        lambda artifact: f"{artifact.parity.max_relative_error:.1e}" if artifact.parity else NONE,
    ),
    ("size", lambda artifact: size(artifact.size_bytes)),
    ("size / float file", _size_ratio),
    ("latency, median", _latency(lambda t: milliseconds(t.median_ms))),
    ("latency, p90", _latency(lambda t: milliseconds(t.p90_ms))),
    ("latency / float", _latency(_time_ratio)),
    ("latency / float, 95 %", _time_interval),
    ("MACs in int8", _truth(lambda t: percent(t.int8_mac_share, 1))),
    ("int8 MACs, dynamic", _truth(lambda t: percent(t.dynamic_mac_share, 1) if t.dynamic_mac_share else NONE)),
    ("weights in int8", _truth(lambda t: percent(t.int8_weight_share, 1))),
    ("delegate partitions", _truth(_partitions)),
    ("ops outside of them", _truth(_outside)),
    ("input -> output", _truth(lambda t: f"{t.input_dtype} -> {t.output_dtype}")),
)
