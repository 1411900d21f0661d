"""The command line: each verb parses, calls one function, prints. Imports nothing heavy before it must."""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any

import typer

import shrink
from shrink.errors import Problem, RequestError, nearest

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
targets_app = typer.Typer(no_args_is_help=True, help="Say what can be exported to.", rich_markup_mode=None)
data_app = typer.Typer(no_args_is_help=True, help="Look at data.", rich_markup_mode=None)

EXIT_VERDICT = 3
EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it


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


@app.command(short_help="Make verified bundles of a trained model.")
def export(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="MODEL",
            help="torchvision:NAME, timm:NAME, FILE.py:factory or package.module:factory; arguments as ?key=value.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Labelled images: a folder with one sub-folder per class, also below train/ and val/; a CSV of "
            "path,label; an .npz; or fashion-mnist.",
        ),
    ] = None,
    target: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="What to export to; may be given more than once. [default: tflite-int8 and onnx-int8]",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Directory to make: one bundle per target, report.json, report.md.")
    ] = Path("out"),
    checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Trained weights: safetensors, or a state dict of torch.save.")
    ] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="COUNT|DATA",
            help="How many images set the int8 ranges, or a folder or CSV of them. [default: 256]",
            show_default=False,
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="Loss of top-1 that is allowed. [default: 1.0]", show_default=False),
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML file that says all of the above but --out; flags win.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace --out if it is an earlier export.")] = False,
    keep_failed: Annotated[
        bool, typer.Option("--keep-failed", help='Write the bundle of a target whose verdict is "fail", too.')
    ] = False,
) -> None:
    """Export MODEL to verified bundles, and say what that cost and brought.

    \b
    Exit codes:
      0  every verdict is "pass"
      3  a verdict is "not enough images": all bundles are written;
         or "fail": the report is, that bundle only with --keep-failed
    For any other code nothing is written; see `shrink --help`.

    \b
    Examples:
      shrink export 'timm:resnet18?pretrained=true' --data photos/
      shrink export models.py:make --checkpoint weights.safetensors --data photos/ --target tflite-int8
      shrink export --recipe recipes/fashion_cnn.toml --out out/cnn
    """
    from shrink import recipe as recipes
    from shrink.progress import progress_on
    from shrink.quiet import chatter_aside
    from shrink.report import terminal

    flags = {
        "model": model,
        "data": data,
        "targets": target,
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "calibrate": calibrate,
        "max_drop": max_drop,
    }
    asked = recipes.combine(recipe, flags)
    with chatter_aside() as stream:
        from shrink import pipeline  # seconds, and warnings of the libraries it brings

        report = pipeline.export(
            asked,
            out,
            force=force,
            keep_failed=keep_failed,
            command=["shrink", *sys.argv[1:]],
            progress=progress_on(stream, stages=pipeline.STAGES),
        )
    terminal.show(report, _console(), out, python=_python())
    if report.verdict != "pass":
        raise typer.Exit(EXIT_VERDICT)


@app.command(short_help="Say what a model file really is.")
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .tflite or .onnx file, ours or not.")],
    require: Annotated[
        str | None,
        typer.Option(metavar="int8=SHARE", help="Exit 3 unless that share of MACs is int8, such as int8=0.95."),
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
    _say(msgspec.json.format(msgspec.json.encode(found)).decode() if json else render.text(found))
    if needed is not None and found.truth.int8_mac_share < needed:
        typer.echo(f"int8 share {found.truth.int8_mac_share:.3f} is below the required {needed:g}", err=True)
        raise typer.Exit(EXIT_VERDICT)


app.add_typer(targets_app, name="targets")


@targets_app.command("list")
def targets_list() -> None:
    """List the targets, one a line."""
    from shrink import targets

    for name in targets.names():
        _say(f"{name:16} {targets.load(name).summary}")


@targets_app.command("show", short_help="Show what a target computes in int8.")
def targets_show(name: Annotated[str, typer.Argument(metavar="NAME", help="A target, such as tflite-int8.")]) -> None:
    """Show what the target's runtime computes in int8, and what is rewritten for it.

    Example: shrink targets show tflite-int8
    """
    import msgspec

    from shrink import targets

    for key, value in msgspec.to_builtins(targets.load(name)).items():
        _say(f"{key:16} {', '.join(value) if isinstance(value, (list, tuple)) else value}")


app.add_typer(data_app, name="data")


@data_app.command("unpack")
def data_unpack(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Data as for `shrink export`.")],
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the images.")],
    count: Annotated[int, typer.Option(metavar="COUNT", min=1, help="How many evaluation images.")] = 8,
) -> None:
    """Write a few evaluation images as files, to try a bundle on.

    Example: shrink data unpack fashion-mnist images/
    """
    from shrink.data.unpack import unpack

    for path in unpack(data, out, count):
        _say(str(path))


def main(argv: list[str] | None = None) -> None:
    """Entry point: every Problem becomes three lines on stderr and its exit code; a bug keeps its traceback."""
    _open_standard_files()
    with _Interrupts() as interrupts:
        try:
            code = app(args=argv, prog_name="shrink", standalone_mode=False) or 0
        except (Exception, KeyboardInterrupt) as error:
            code = EXIT_INTERRUPTED if interrupts.came or isinstance(error, KeyboardInterrupt) else _failed(error)
    if code == EXIT_INTERRUPTED:
        typer.echo("interrupted", err=True)
    raise SystemExit(code)


class _Interrupts:
    """Notes that Ctrl-C was pressed: converters turn the exception it raises into others of their own."""

    def __init__(self) -> None:
        self.came = False

    def __enter__(self) -> _Interrupts:
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        raise KeyboardInterrupt


def _failed(error: Exception) -> int:
    """Say what was wrong, and give the exit code; a bug is raised on."""
    if isinstance(error, typer.TyperException):
        return _misused(error)
    if not isinstance(error, Problem):
        raise error
    typer.echo("\n".join([f"error: {error}", *getattr(error, "__notes__", [])]), err=True)
    return error.exit_code


def _misused(error: typer.TyperException) -> int:
    """A command line that cannot be read, in the same three lines; a bare command shows its help instead."""
    context: Any = getattr(error, "ctx", None)
    path = context.command_path if context else "shrink"
    text = str(getattr(error, "format_message", error.__str__)()).strip()
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(text, err=True)
        return RequestError.exit_code
    unknown = re.fullmatch(r"No such (option:|command) '?([^' ]+)'?.*", text, re.DOTALL)
    if unknown:
        what, why = f"there is no {unknown[1].rstrip(':')} {unknown[2]!r}", f"`{path}` does not have it"
        fix = nearest(unknown[2], _names(context.command, unknown[1])) if context else f"see `{path} --help`"
    else:
        what, why, fix = text[:1].lower() + text[1:], f"`{path}` cannot be run so", f"see `{path} --help`"
    typer.echo(f"error: {RequestError(what, why, fix)}", err=True)
    return RequestError.exit_code


def _names(command: Any, kind: str) -> list[str]:
    """The options or the commands below a command."""
    if kind == "command":
        return list(command.commands)
    return ["--help", *(name for parameter in command.params for name in parameter.opts if name.startswith("-"))]


def _open_standard_files() -> None:
    """Where a shell closed stdin, stdout or stderr, the next file to be opened would take its number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def _say(text: str) -> None:
    """A result, on stdout; whoever reads it may stop early."""
    try:
        typer.echo(text)  # and flushes
    except BrokenPipeError:
        _drop_stdout()


def _drop_stdout() -> None:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.close(null)


def _console() -> Any:
    from rich.console import Console

    class Results(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True
            _drop_stdout()  # the exit code stays the verdict's

    return Results()


def _python() -> str:
    """How this Python is called from the shell."""
    found = shutil.which("python")
    return "python" if found and Path(found).absolute() == Path(sys.executable).absolute() else sys.executable


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


if __name__ == "__main__":
    main()
