"""What `shrink report` does: read runs, look at the answers, write what was asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from shrink.errors import RequestError
from shrink.files import write_whole
from shrink.report import summary
from shrink.report.analysis import Analysis, dump
from shrink.report.page import whole
from shrink.steps.analysing import analyse
from shrink.steps.bundling import REPORT_HTML
from shrink.steps.runs import Run, read

Pictures = Mapping[int, bytes]

WRITERS: Mapping[str, Callable[[Analysis, Pictures], bytes]] = {
    "html": lambda analysis, pictures: whole.render(analysis, pictures).encode(),
    "json": lambda analysis, _: dump(analysis),
    "markdown": lambda analysis, _: summary.comment(analysis).encode(),
    "junit": lambda analysis, _: summary.suite(analysis).encode(),
}


def present(paths: Sequence[Path], wanted: Mapping[str, Path], slice_by: Sequence[str]) -> list[Path]:
    """Write the forms that are wanted; none: the page, beside the report of the run.

    Args:
        paths: runs and measurements; the first run is what it is about, the rest is shown beside it.
        wanted: form, a key of `WRITERS`, and the file it goes to.
        slice_by: columns of the data; none: all that the run has.

    Returns:
        the files.

    Raises:
        RequestError: something that is no run, or a column that the run does not have.
        OutputError: a file cannot be written.
    """
    read_all = [read(path) for path in paths]
    run = next((one for one in read_all if isinstance(one, Run)), None)
    if run is None:
        why = "a measurement on a board says nothing of the export it is of"
        raise RequestError("none of these is a run of shrink export", why, "give its directory, too")
    analysis = analyse(run, [one for one in read_all if one is not run], slice_by)
    files = dict(wanted) or {"html": run.path / REPORT_HTML}
    for form, file in files.items():
        write_whole(file, WRITERS[form](analysis, run.pictures))
    return list(files.values())
