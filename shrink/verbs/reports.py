"""`shrink report` and `shrink compare`: a run to look at, and a new run against an old one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shrink.shell import say
from shrink.verbs.options import EXIT_VERDICT

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


def compare(
    old: Annotated[Path, typer.Argument(metavar="OLD", help="A run, one of its bundles, or JSON of `shrink bench`.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="Another one of the same images.")],
    gate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC<=LIMIT",
            help="Exit 3 unless it surely holds; may be given more than once. drop<=0.3 (points of top-1), "
            "latency<=1.05x, size<=1.0x, instructions<=1.01x.",
        ),
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Run the files of both in turns now.")] = False,
    force: Annotated[
        bool, typer.Option("--force", help="Compare times and instructions of unlike machines and runtimes, too.")
    ] = False,
    markdown: Markdown = None,
    junit: Junit = None,
) -> None:
    """Say whether NEW is as good as OLD: top-1 image by image, size, latency, instructions; judge it by gates.

    A gate passes when what it limits is surely below: of models whose true drop is the limit, at most one in twenty
    passes.

    \b
    Exit codes:
      0  every gate holds, or none was given
      2  no runs, different images, or a gate on what cannot be compared
      3  a gate does not hold, or cannot be told

    \b
    Examples:
      shrink compare baseline/ out/cnn --gate 'drop<=0.3' --gate 'size<=1.0x' --markdown comment.md
      shrink compare out/old/tflite-int8 out/new/tflite-int8 --measure --gate 'latency<=1.05x'
      shrink compare old.json new.json --gate 'instructions<=1.01x'
    """
    from shrink.compare import gates

    asked = gates.parse(gate or ())

    from shrink.progress import progress_on
    from shrink.quiet import chatter_aside

    with chatter_aside() as stream:
        from shrink.compare import render
        from shrink.files import write_whole
        from shrink.steps import comparing

        progress = progress_on(stream, stages=comparing.STAGES)
        found = comparing.compare_runs(old, new, asked, force=force, measure=measure, progress=progress)
    for file, make in ((markdown, render.comment), (junit, render.suite)):
        if file is not None:
            write_whole(file, make(found).encode())
    say(render.text(found))
    if found.verdict in ("fail", "cannot tell"):
        raise typer.Exit(EXIT_VERDICT)
