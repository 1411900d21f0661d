"""`shrink search`: the smallest model that keeps its promise."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from shrink.shell import results_console, say
from shrink.verbs.options import EXIT_VERDICT, Checkpoint, Data, Keep, path

app = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@app.callback()
def search(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Option(metavar="MODEL", help="The model, as for `shrink export`.", show_default=False)
    ] = None,
    data: Data = None,
    recipe: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file as for `shrink export`.")] = None,
    checkpoint: Checkpoint = None,
    max_drop: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="Loss of top-1 that is allowed. [default: 1.0]", show_default=False),
    ] = None,
    size_mb: Annotated[float | None, typer.Option(metavar="MB", help="The largest file, in 1e6 bytes.")] = None,
    latency_ms: Annotated[float | None, typer.Option(metavar="MS", help="The longest median latency.")] = None,
    smaller: Annotated[
        float | None, typer.Option(metavar="TIMES", help="How many times smaller than the float file of the model.")
    ] = None,
    faster: Annotated[
        float | None, typer.Option(metavar="TIMES", help="How many times faster than that file, in turns with it.")
    ] = None,
    on: Annotated[
        list[str] | None,
        typer.Option(
            metavar="BOARD",
            help="Where latency is measured, as for `shrink bench`; may be given more than once: limits hold "
            "on each. [default: local]",
            show_default=False,
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="A precision to try; may be given more than once. Files that must all keep the limits are joined: "
            "tflite-int8+onnx-int8. [default: those of the recipe]",
            show_default=False,
        ),
    ] = None,
    resolution: Annotated[
        list[int] | None,
        typer.Option(
            metavar="PIXELS",
            help="A side of the image to try; may be given more than once. [default: the model's own and two smaller]",
            show_default=False,
        ),
    ] = None,
    prune: Annotated[
        str | None,
        typer.Option(metavar="FACTOR", help="The most MACs that are removed. [default: 3x]", show_default=False),
    ] = None,
    epochs: Annotated[
        list[int] | None,
        typer.Option(
            metavar="COUNT",
            min=0,
            help="A number of epochs to train what is left, to try; may be given more than once. [default: 0, and that "
            "of the recipe]",
            show_default=False,
        ),
    ] = None,
    keep: Keep = None,
    calibrate: Annotated[
        str | None, typer.Option(metavar="COUNT|DATA", help="As for `shrink export`.", show_default=False)
    ] = None,
    quantize: Annotated[
        str | None, typer.Option(metavar="EFFORT", help="As for `shrink export`.", show_default=False)
    ] = None,
    trials: Annotated[int, typer.Option(metavar="COUNT", min=1, help="How many, by all workers of the study.")] = 40,
    minutes: Annotated[
        float | None, typer.Option(metavar="MINUTES", help="Begin no trial after that.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory for the winner, its recipe, the front.")] = Path(
        "out/search"
    ),
    study: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|URL",
            help="What all workers share: a file, or a database such as postgresql://... "
            "[default: study.journal in --out]",
            show_default=False,
        ),
    ] = None,
    worker: Annotated[bool, typer.Option("--worker", help="Only help with the study: export no winner.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier winner in --out.")] = False,
) -> None:
    """Find the smallest and fastest file of a model that keeps its limits, and export it.

    Tried are how many channels go, how long the rest is trained, the size of the image, and the precision. Cheap looks
    come first, and a trial that cannot come nearer to the limits than a finished one is given up. Trials are judged by
    one half of the images; the export of the winner is judged by all. The same command goes on where it was ended;
    started again beside it, with --worker, it works on the same study.

    \b
    Exit codes:
      0  the winner is exported, and its verdict is "pass"
      3  no trial keeps all limits: the closest is said; or the verdict is another

    \b
    Examples:
      shrink search --recipe recipes/fashion_cnn.toml --max-drop 0.5 --smaller 3 --faster 2
      shrink search --model timm:resnet18 --checkpoint weights.safetensors --data photos/ --size-mb 4 --latency-ms 20
      shrink search show out/search/study.journal
    """
    if context.invoked_subcommand is not None:
        return
    import os

    from shrink import recipe as recipes
    from shrink.quiet import chatter_aside
    from shrink.search.goal import Goal

    flags = {
        "model": model,
        "data": data,
        "checkpoint": path(checkpoint),
        "calibrate": calibrate,
        "quantize": quantize,
        "keep": keep or None,
        "prune": prune,
        "max_drop": max_drop,
        "tune": {"epochs": max(epochs)} if epochs else None,
    }
    base = recipes.combine(recipe, flags, defaults={"prune": "3x"})
    goal = Goal(max_drop=base.max_drop, size_mb=size_mb, latency_ms=latency_ms, smaller=smaller, faster=faster)
    with chatter_aside() as stream:
        from shrink import targets
        from shrink.boards.places import places
        from shrink.progress import progress_on
        from shrink.search.run import Asked, check_out, search
        from shrink.search.work import Budget

        alternatives = tuple(target or base.targets)
        targets.check_installed(name for names in alternatives for name in names.split("+"))
        budget = Budget(trials, None if minutes is None else 60 * minutes, waits=not worker)
        place = study or str(out / "study.journal")
        varied = (alternatives, tuple(resolution or ()), tuple(epochs or ()))
        asked = Asked(base, goal, *varied, tuple(on or ("local",)), budget, places(os.environ), place)
        if not worker:
            check_out(out, force=force)

        def tell(line: str) -> None:
            stream.write(f"{line}\n")
            stream.flush()

        found = search(asked, progress_on(stream, stages=None), tell)
        if worker:
            return
        exported = _export(asked, found, out, force, stream) if found.best else None
    _finish(found, exported, place, out)


def _export(asked: Any, found: Any, out: Path, force: bool, stream: Any) -> Any:
    from shrink import pipeline
    from shrink.progress import progress_on
    from shrink.search.run import export_winner

    return export_winner(asked, found, out, force=force, progress=progress_on(stream, stages=pipeline.STAGES))


def _finish(found: Any, exported: Any, place: str, out: Path) -> None:
    from shrink.report import terminal
    from shrink.search import front

    for line in front.table(found.head, found.entries):
        say(line)
    if exported is None:
        say(f"\nnext: allow more, or try more: --trials; all trials: shrink search show {place}")
        raise typer.Exit(EXIT_VERDICT)
    report, made = exported
    say("")
    terminal.show(report, results_console(), out / "winner", python=sys.executable)
    for line in front.unseen(found.best, report, made):
        say(line)
    say(f"\nagain: shrink export --recipe {out / 'winner.toml'} --out out/again")
    if report.verdict != "pass":
        raise typer.Exit(EXIT_VERDICT)


@app.command("show", short_help="Print and draw what a study has found.")
def show(
    study: Annotated[str, typer.Argument(metavar="STUDY", help="The file or URL of a study.")],
    draw: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to put size.svg and latency.svg.", show_default=False)
    ] = None,
) -> None:
    """Print the front of STUDY: the trials that no other beats in size, time and answers at once.

    \b
    Exit codes:
      0  a trial keeps all limits
      2  there is no study, or nothing of it can be read
      3  none does; the closest is said

    Example: shrink search show out/search/study.journal --draw .
    """
    from shrink.search import draw as drawing
    from shrink.search import front
    from shrink.search.study import read

    head, entries, note = read(study)
    for line in front.table(head, entries, note):
        say(line)
    if draw:
        for name, text in drawing.pictures(head, entries).items():
            (draw / name).write_text(text, encoding="utf-8")
            say(f"drawn: {draw / name}")
    if front.winner(head.goal, entries) is None:
        raise typer.Exit(EXIT_VERDICT)
