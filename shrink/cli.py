"""The command line: each verb parses, calls one function, prints. Imports nothing heavy before it must."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

import shrink
from shrink import shell
from shrink.errors import RequestError
from shrink.shell import results_console, say

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
targets_app = typer.Typer(no_args_is_help=True, help="Say what can be exported to.", rich_markup_mode=None)
data_app = typer.Typer(no_args_is_help=True, help="Look at data.", rich_markup_mode=None)

EXIT_VERDICT = 3


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
    input: Annotated[
        str | None,
        typer.Option(
            metavar="DTYPE",
            help="What the file takes: float32, normalized; or uint8 or int8, the pixels of the camera as they are. "
            "[default: float32; int8 for a target without floats]",
            show_default=False,
        ),
    ] = None,
    layout: Annotated[
        str | None,
        typer.Option(
            metavar="LAYOUT", help="Of the image: nhwc or nchw. [default: the target's own]", show_default=False
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
    from shrink import targets
    from shrink.progress import progress_on
    from shrink.quiet import chatter_aside
    from shrink.report import terminal

    flags = {
        "model": model,
        "data": data,
        "targets": target,
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "calibrate": calibrate,
        "input": input,
        "layout": layout,
        "max_drop": max_drop,
    }
    asked = recipes.combine(recipe, flags)
    targets.check_installed(asked.targets)
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
    terminal.show(report, results_console(), out, python=_python())
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
    say(msgspec.json.format(msgspec.json.encode(found)).decode() if json else render.text(found))
    if needed is not None and found.truth.int8_mac_share < needed:
        typer.echo(f"int8 share {found.truth.int8_mac_share:.3f} is below the required {needed:g}", err=True)
        raise typer.Exit(EXIT_VERDICT)


app.add_typer(targets_app, name="targets")


@targets_app.command("list")
def targets_list() -> None:
    """List the targets, one a line."""
    from shrink import targets

    for name in targets.names():
        say(f"{name:16} {targets.load(name).summary}")


@targets_app.command("show", short_help="Show what a target computes in int8.")
def targets_show(name: Annotated[str, typer.Argument(metavar="NAME", help="A target, such as tflite-int8.")]) -> None:
    """Show what the target's runtime computes in int8, and what is rewritten for it.

    Example: shrink targets show tflite-int8
    """
    import msgspec

    from shrink import targets

    for key, value in msgspec.to_builtins(targets.load(name)).items():
        say(f"{key:16} {', '.join(value) if isinstance(value, (list, tuple)) else value}")


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
        say(str(path))


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    raise SystemExit(shell.run(app, argv, name="shrink"))


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
