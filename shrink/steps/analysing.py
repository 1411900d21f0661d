"""From the answers to every image to what a page shows of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

from shrink.bench.result import Result
from shrink.errors import RequestError, nearest
from shrink.report.analysis import CLASS, Analysis, Change, FileAnalysis, Flip, Group, Grouped, Other
from shrink.runs import pictures
from shrink.runs.predictions import Answered, Predictions
from shrink.steps.runs import Run
from shrink.verify.groups import by_group

MOST_CHANGES = 20
MOST_FLIPS = pictures.MOST


def analyse(run: Run, others: Sequence[Run | Result], slice_by: Sequence[str] = ()) -> Analysis:
    """What the answers of a run say.

    Args:
        others: runs and measurements on boards to show beside it.
        slice_by: columns of the data to slice by; none: all that the run has.

    Raises:
        RequestError: a column that the run does not have.
    """
    kept = run.predictions
    columns = _columns(run, slice_by)
    files = [] if kept is None else [_file(kept, name, columns) for name in run.targets if name in kept.files]
    missing = "this run has no predictions.npz: classes, slices and flipped images cannot be shown"
    return Analysis(
        run=run.name,
        report=run.report,
        files=tuple(files),
        others=tuple(o for one in others for o in (_files_of(one) if isinstance(one, Run) else _sides_of(one))),
        notes=(missing,) if kept is None else (),
    )


def _columns(run: Run, asked: Sequence[str]) -> list[str]:
    known = list(run.predictions.slices) if run.predictions else []
    for column in asked:
        if column not in known:
            why = "a column of the CSV is kept at export, unless it has more than 200 values"
            fix = nearest(column, known) if known else "export again from a CSV with that column"
            raise RequestError(f"{run.name} cannot be sliced by {column!r}", why, fix)
    return list(asked) or known


def _file(p: Predictions, target: str, columns: Sequence[str]) -> FileAnalysis:
    file = p.files[target]
    return FileAnalysis(
        target=target,
        grouped=tuple(_grouped(p, file, by) for by in (CLASS, *columns)),
        changes=tuple(_changes(p, file)),
        flips=tuple(_flips(p, file)),
    )


def _grouped(p: Predictions, file: Answered, by: str) -> Grouped:
    names = p.classes if by == CLASS else tuple(sorted(set(p.slices[by])))
    numbers = p.labels if by == CLASS else np.array([names.index(value) for value in p.slices[by]])
    drops = by_group(p.reference.top1 == p.labels, file.top1 == p.labels, numbers)
    groups = (
        Group(
            name=names[d.group] or "(empty)",
            images=d.images,
            top1_float=d.top1_before,
            top1=d.top1_now,
            drop=d.drop,
            drop_low=d.low,
            drop_high=d.high,
            lost=d.lost,
            won=d.won,
            p_value=d.p_value,
            p_holm=d.p_holm,
        )
        for d in drops
    )
    return Grouped(by=by, groups=tuple(groups))


def _changes(p: Predictions, file: Answered) -> Iterator[Change]:
    """The commonest changes of an answer."""
    changed = np.flatnonzero(file.top1 != p.reference.top1)
    triples = zip(p.labels[changed], p.reference.top1[changed], file.top1[changed], strict=True)
    counted = Counter(tuple(map(int, triple)) for triple in triples)
    for (label, before, now), images in sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:MOST_CHANGES]:
        yield Change(label=p.classes[label], before=p.classes[before], now=p.classes[now], images=images)


def _flips(p: Predictions, file: Answered) -> Iterator[Flip]:
    alone = Predictions(p.classes, p.refs, p.hashes, p.labels, p.slices, p.reference, {"": file})
    for row in pictures.flipped(alone)[:MOST_FLIPS]:
        yield Flip(
            row=int(row),
            ref=p.refs[row],
            label=p.classes[p.labels[row]],
            before=p.classes[p.reference.top1[row]],
            before_confidence=float(p.reference.confidence[row]),
            now=p.classes[file.top1[row]],
            now_confidence=float(file.confidence[row]),
            is_lost=bool(p.reference.top1[row] == p.labels[row]),
        )


def _files_of(run: Run) -> Iterator[Other]:
    for target in run.targets:
        one = run.artifact(target)
        if one.accuracy is not None:
            yield Other(
                name=f"{run.path.name}/{target}",
                images=one.accuracy.images,
                top1=one.accuracy.top1,
                size_bytes=one.size_bytes,
                ratio_to_float=one.latency.ratio_to_float if one.latency else None,
                where=run.report.host,
            )


def _machine(result: Result) -> str:
    facts = result.facts
    return result.place.emulated or (facts.model or facts.cpu if facts else None) or result.place.url


def _sides_of(result: Result) -> Iterator[Other]:
    """A bundle on a board; one that it was timed against is named by it."""
    side, ratio = result.candidate, result.ratio
    if side is not None:
        yield Other(
            name=f"{side.target} on {result.place.url}",
            images=side.accuracy.images,
            top1=side.accuracy.top1,
            size_bytes=side.model_bytes,
            ratio_to_float=ratio.median if ratio and result.against and "fp32" in result.against.target else None,
            where=f"{_machine(result)}; {result.verdict}",
        )
