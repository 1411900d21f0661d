"""The command line: its verbs, in the order the help shows them."""

from __future__ import annotations

from typing import Annotated

import typer

import shrink
from shrink import shell
from shrink.process import settle
from shrink.verbs import board, data, export, look, prune, reports, search, targets, tune

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
targets_app = typer.Typer(no_args_is_help=True, help="Say what can be exported to.", rich_markup_mode=None)
board_app = typer.Typer(no_args_is_help=True, help="Make a board ready to be measured on.", rich_markup_mode=None)
data_app = typer.Typer(no_args_is_help=True, help="Look at data.", rich_markup_mode=None)

app.command(short_help="Make verified bundles of a trained model.")(export.export)
app.command(short_help="Make a smaller model, to be exported.")(prune.prune)
app.command(short_help="Train a model to answer as a larger one.")(tune.tune)
app.add_typer(search.app, name="search", short_help="Find the smallest model that keeps its limits.")
app.command(short_help="Say what a model file really is.")(look.inspect)
app.command(short_help="Find the layer where a bundle loses its answers.")(look.debug)
app.command(short_help="Measure a bundle where it will run.")(board.bench)
app.command(short_help="Show what a run cost and brought, as a page.")(reports.report)
app.command(short_help="Judge a new run against an old one.")(reports.compare)
app.add_typer(targets_app, name="targets")
targets_app.command("list")(targets.targets_list)
targets_app.command("show", short_help="Show what a target computes in int8.")(targets.targets_show)
app.add_typer(board_app, name="board")
app.add_typer(board_app, name="target", hidden=True)  # the word for a board in other tools
board_app.command("list")(board.board_list)
board_app.command("trust", short_help="Trust an ssh board from now on.")(board.board_trust)
board_app.command("estimate", short_help="Estimate latency on boards that are not there.")(board.board_estimate)
board_app.command("setup", short_help="Prepare emulated boards.")(board.board_setup)
app.add_typer(data_app, name="data")
data_app.command("check", short_help="Say whether data is fit for a model.")(data.data_check)
data_app.command("unpack")(data.data_unpack)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"shrink {shrink.__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", help="Show the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Makes a trained image model small for a device, and proves what that cost.

    \b
    Exit codes:
      0    done, and every verdict is "pass"
      1    a step failed; nothing was written
      2    the request cannot be met as it is; nothing was written
      3    a verdict is "fail" or "not enough images"; the report says which
      130  interrupted; nothing was written
    """


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    settle()
    raise SystemExit(shell.run(app, argv, name="shrink"))


if __name__ == "__main__":
    main()
