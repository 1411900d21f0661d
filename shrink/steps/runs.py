"""A run on disk: the report, and the answers and pictures beside it. Nothing in it is trusted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from device_runner.manifest import MANIFEST_NAME
from shrink.bench.result import Result
from shrink.bench.result import parse as parse_result
from shrink.errors import RequestError
from shrink.report.schema import Artifact, Report, parse
from shrink.runs import pictures, predictions
from shrink.runs.predictions import Predictions
from shrink.steps.bundling import REPORT_JSON

LARGEST = 100_000_000  # bytes of a file that is read


@dataclass(frozen=True, slots=True)
class Run:
    """What `shrink export` left."""

    path: Path  # its directory
    name: str  # as it was given
    report: Report
    targets: tuple[str, ...]  # that are meant: all of the run, or the one whose bundle was named
    predictions: Predictions | None  # None: it has none
    pictures: dict[int, bytes]  # row of the predictions -> its picture

    def artifact(self, target: str) -> Artifact:
        return next(one for one in self.report.artifacts if one.target == target)


def read_run(path: Path) -> Run:
    """Read the directory that an export wrote, or that of one of its bundles.

    Raises:
        RequestError: not a run, one of another schema version, or a damaged one.
    """
    is_bundle = (path / MANIFEST_NAME).is_file() and (path.resolve().parent / REPORT_JSON).is_file()
    folder = path.resolve().parent if is_bundle else path
    if not (folder / REPORT_JSON).is_file():
        what = "is not there" if not path.exists() else "is not a run"
        fix = f"give the directory that shrink export wrote, with {REPORT_JSON} in it, or that of one of its bundles"
        raise RequestError(f"{path} {what}", f"there is no {folder / REPORT_JSON}", fix)
    report = parse(_bytes(folder / REPORT_JSON))
    all_targets = tuple(one.target for one in report.artifacts)
    targets = (path.resolve().name,) if is_bundle else all_targets
    if not set(targets) <= set(all_targets):
        why = f"its report knows {', '.join(all_targets) or 'no target'}"
        raise RequestError(f"{path} is no bundle of the run around it", why, "give the run itself")
    answers, shown = folder / predictions.NAME, folder / pictures.NAME
    return Run(
        path=folder,
        name=str(path),
        report=report,
        targets=targets,
        predictions=predictions.parse(_bytes(answers)) if answers.is_file() else None,
        pictures=pictures.parse(_bytes(shown)) if shown.is_file() else {},
    )


def read(path: Path) -> Run | Result:
    """A run of `shrink export`, or the JSON of `shrink bench`.

    Raises:
        RequestError: neither, one of another schema version, or a damaged one.
    """
    if not path.is_file():
        return read_run(path)
    result = parse_result(_bytes(path), str(path))
    if not result.complete:
        why = f"it broke off: {result.problem}"
        raise RequestError(f"{path} is a measurement that is not complete", why, "measure again")
    return result


def _bytes(path: Path) -> bytes:
    try:
        if (size := path.stat().st_size) > LARGEST:
            why = f"it has {size:,} bytes, and the largest that is read has {LARGEST:,}"
            raise RequestError(f"{path} is too large", why, "give a run of shrink export, unchanged")
        return path.read_bytes()
    except OSError as error:
        raise RequestError(f"{path} cannot be read", error.strerror or str(error), "check its permissions") from error
