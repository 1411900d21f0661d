"""`shrink report`: a run as a page, for a pull request, for a CI server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shrink.shell import say

Html = Annotated[Path | None, typer.Option("--html", metavar="FILE", help="One page without scripts, opens offline.")]
JsonFile = Annotated[Path | None, typer.Option("--json", metavar="FILE", help="All figures, for programs.")]
Markdown = Annotated[Path | None, typer.Option("--markdown", metavar="FILE", help="Short, for a pull request.")]
Junit = Annotated[Path | None, typer.Option("--junit", metavar="FILE", help="JUnit XML, for a CI server.")]


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...",
            help="A directory that `shrink export` wrote; more of them, or JSON of `shrink bench`, go beside it.",
        ),
    ],
    html: Html = None,
    json: JsonFile = None,
    markdown: Markdown = None,
    junit: Junit = None,
    slice_by: Annotated[
        list[str] | None,
        typer.Option(
            "--slice-by",
            metavar="COLUMN",
            help="A column of the CSV, such as the site; may be given more than once. [default: all with up to 200 "
            "values]",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Show what a run cost and brought: verdict, accuracy step by step, drop per class and slice with the worst named,
    flipped images, what the files really are, and how to do it again. Writes RUN/report.html unless told what.

    \b
    Exit codes:
      0  written, whatever the verdict is
      2  not a run, one of another version, or a column that it does not have

    \b
    Examples:
      shrink report out/cnn
      shrink report out/cnn out/vit --html both.html --markdown comment.md --slice-by site
    """
    from shrink.steps import presenting

    given = {"html": html, "json": json, "markdown": markdown, "junit": junit}
    wanted = {form: file for form, file in given.items() if file is not None}
    for file in presenting.present(runs, wanted, slice_by or ()):
        say(str(file))
