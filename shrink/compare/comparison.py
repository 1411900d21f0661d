"""All metrics of all files that two runs have in common, and the gates on them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from shrink.compare.estimates import ESTIMATES, MACHINE, Missing
from shrink.compare.gates import Estimate, Gate, Outcome, judge
from shrink.compare.sides import Side, unlike
from shrink.errors import RequestError

Result = Literal["pass", "fail", "cannot tell", ""]


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of one file."""

    target: str
    metric: str
    found: Estimate | Missing
    gate: Gate | None
    outcome: Outcome | None  # None: there is no gate


@dataclass(frozen=True, slots=True)
class Comparison:
    """An old run and a new one."""

    old: str
    new: str
    rows: tuple[Row, ...]
    notes: tuple[str, ...]

    @property
    def verdict(self) -> Result:
        """The worst outcome; empty where nothing was asked."""
        outcomes = {row.outcome for row in self.rows} - {None}
        order: tuple[Outcome, ...] = ("fail", "cannot tell", "pass")
        return next((one for one in order if one in outcomes), "")


def compare(
    pairs: Sequence[tuple[Side, Side]],
    gates: Sequence[Gate],
    *,
    force: bool,
    timed: Mapping[str, Estimate],
) -> Comparison:
    """Compare file by file.

    Args:
        pairs: at least one; old and new of each target.
        force: compare times and instructions of unlike machines, too.
        timed: target -> times that were taken just now, which count instead of those of the runs.

    Raises:
        RequestError: a gate on what cannot be compared, or runs of different images.
    """
    rows: list[Row] = []
    notes: list[str] = []
    asked = {gate.metric: gate for gate in gates}
    for old, new in pairs:
        differences = unlike(old, new)
        refused = () if force else tuple(differences)
        rows += [_row(old, new, metric, asked.get(metric), refused, timed) for metric in ESTIMATES]
        forced = ", compared all the same" if force else ""
        notes += [f"unlike conditions of {new.target}{forced}: {text}" for text in differences]
    return Comparison(pairs[0][0].run, pairs[0][1].run, tuple(rows), tuple(dict.fromkeys(notes)))


def _row(
    old: Side, new: Side, metric: str, gate: Gate | None, unlike_in: Sequence[str], timed: Mapping[str, Estimate]
) -> Row:
    now = timed.get(new.target) if metric == "latency" else None
    found = now or ESTIMATES[metric](old, new, gate.limit if gate else None)
    if now is None and metric in MACHINE and unlike_in and isinstance(found, Estimate):
        found = Missing("; ".join(unlike_in), "measure both on one machine, or add --force", is_unlike=True)
    if isinstance(found, Estimate):
        return Row(new.target, metric, found, gate, judge(gate, found) if gate else None)
    if gate is not None:
        raise _refused(gate, found)
    return Row(new.target, metric, found, None, None)


def _refused(gate: Gate, found: Missing) -> RequestError:
    reason = "are from unlike conditions" if found.is_unlike else "cannot be compared"
    return RequestError(f"the gate {gate.text} cannot be judged: the two runs {reason}", found.why, found.fix)
