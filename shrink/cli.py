"""The command line: each verb parses, calls one function, prints. Imports nothing heavy before it must."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from shrink.errors import Problem, RequestError

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
targets_app = typer.Typer(no_args_is_help=True, help="What can be exported to.", rich_markup_mode=None)
data_app = typer.Typer(no_args_is_help=True, help="Look at data.", rich_markup_mode=None)
app.add_typer(targets_app, name="targets")
app.add_typer(data_app, name="data")

EXIT_VERDICT = 3


@app.callback()
def root() -> None:
    """Makes a trained image model small for a device, and proves what that cost.

    Exit codes: 0 done and passed, 1 a stage failed, 2 the request cannot be met, 3 the verdict is not "pass".
    """


@app.command()
def export(
    model: Annotated[
        str | None,
        typer.Argument(help="torchvision:NAME, timm:NAME, FILE.py:factory or package.module:factory, ?key=value for arguments."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="An image folder, a CSV of path,label, an .npz, or a built-in name.")
    ] = None,
    target: Annotated[list[str] | None, typer.Option(help="May be given more than once; see `shrink targets list`.")] = None,
    out: Annotated[Path, typer.Option(help="Directory to make: one bundle per target, report.json, report.md.")] = Path("out"),
    checkpoint: Annotated[Path | None, typer.Option(help="Weights: safetensors, or a state dict.")] = None,
    calibrate: Annotated[
        str | None, typer.Option(help="Number of images that set the int8 ranges, or a folder or CSV of them.")
    ] = None,
    max_drop: Annotated[float | None, typer.Option(help="Points of top-1 that may be lost.")] = None,
    recipe: Annotated[Path | None, typer.Option(help="TOML file that says all this; flags win.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an existing --out.")] = False,
    keep_failed: Annotated[bool, typer.Option("--keep-failed", help="Write bundles whose verdict is fail, too.")] = False,
) -> None:
    """Export MODEL to verified bundles, and say what that cost and brought.

    Example: shrink export timm:mobilenetv3_large_100?pretrained=true --data photos/ --target tflite-int8
    """
    from shrink import pipeline, recipe as recipes
    from shrink.progress import progress_on
    from shrink.quiet import stderr_aside
    from shrink.report import terminal

    flags = {
        "model": model,
        "data": data,
        "targets": target,
        "checkpoint": str(checkpoint) if checkpoint else None,
        "calibrate": calibrate,
        "max_drop": max_drop,
    }
    with stderr_aside() as (terminal_stream, log), _points_to(log):
        report = pipeline.export(
            recipes.combine(recipe, flags),
            out,
            force=force,
            keep_failed=keep_failed,
            command=["shrink", *sys.argv[1:]],
            progress=progress_on(terminal_stream, stages=pipeline.STAGES),
        )
    terminal.show(report, _console(), out)
    if report.verdict != "pass":
        raise typer.Exit(EXIT_VERDICT)


@app.command()
def inspect(
    file: Annotated[Path, typer.Argument(help="A .tflite or .onnx file, ours or not.")],
    require: Annotated[
        str | None, typer.Option(help="Such as int8=0.95: exit 3 unless that share of MACs is int8.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what FILE really is: share of MACs in int8, float leftovers and why, delegate partitions, per-op table.

    Example: shrink inspect model.tflite --require int8=0.95
    """
    import msgspec

    from shrink.inspect import guard, render

    needed = _required(require)
    found = guard.inspect_untrusted(file)
    typer.echo(msgspec.json.format(msgspec.json.encode(found)).decode() if json else render.text(found))
    if needed is not None and found.truth.int8_mac_share < needed:
        typer.echo(f"int8 share {found.truth.int8_mac_share:.3f} is below the required {needed:g}", err=True)
        raise typer.Exit(EXIT_VERDICT)


@targets_app.command("list")
def targets_list() -> None:
    """List the targets, one a line."""
    from shrink import targets

    for name in targets.names():
        typer.echo(f"{name:16} {targets.load(name).summary}")


@targets_app.command("show")
def targets_show(name: Annotated[str, typer.Argument(help="A target, such as tflite-int8.")]) -> None:
    """Show what the target's runtime computes in int8 and what is rewritten for it."""
    import msgspec

    from shrink import targets

    for key, value in msgspec.to_builtins(targets.load(name)).items():
        typer.echo(f"{key:16} {', '.join(value) if isinstance(value, (list, tuple)) else value}")


@data_app.command("unpack")
def data_unpack(
    data: Annotated[str, typer.Argument(help="Data as for `shrink export`.")],
    out: Annotated[Path, typer.Argument(help="Folder for the images.")],
    count: Annotated[int, typer.Option(help="How many evaluation images.")] = 8,
) -> None:
    """Write a few evaluation images as files, to try a bundle on.

    Example: shrink data unpack fashion-mnist images/
    """
    from shrink.data.unpack import unpack

    for path in unpack(data, out, count):
        typer.echo(str(path))


def main(argv: list[str] | None = None) -> None:
    """Entry point: every Problem becomes three lines on stderr and its exit code."""
    try:
        app(args=argv)
    except Problem as problem:
        typer.echo("\n".join([f"error: {problem}", *getattr(problem, "__notes__", [])]), err=True)
        raise SystemExit(problem.exit_code) from None


@contextlib.contextmanager
def _points_to(log: Path) -> Iterator[None]:
    """Tell where the converters' own messages are when a stage fails; a wrong request needs none."""
    try:
        yield
    except RequestError:
        log.unlink(missing_ok=True)
        raise
    except Exception as error:
        error.add_note(f"  log: {log}")
        raise


def _required(text: str | None) -> float | None:
    if text is None:
        return None
    key, _, value = text.partition("=")
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if key != "int8" or not 0 <= share <= 1:
        raise RequestError(f"--require {text!r} is not understood", "it names a share of MACs", "use int8=0.95")
    return share


def _console() -> Any:
    from rich.console import Console

    return Console()


if __name__ == "__main__":
    main()
