"""The command line: each verb parses, calls one function, prints. Imports nothing heavy before it must."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

import shrink
from shrink import shell
from shrink.shell import results_console, say

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
targets_app = typer.Typer(no_args_is_help=True, help="Say what can be exported to.", rich_markup_mode=None)
data_app = typer.Typer(no_args_is_help=True, help="Look at data.", rich_markup_mode=None)

EXIT_VERDICT = 3
MODEL_HELP = (
    "torchvision:NAME, timm:NAME, FILE.py:factory, package.module:factory or pruned:DIR; arguments as ?key=value."
)
Prune = Annotated[
    str | None,
    typer.Option("--prune", metavar="FACTOR", help="Remove channels until the model has 2x fewer MACs, or 1.5x."),
]
PruneParams = Annotated[
    str | None, typer.Option("--prune-params", metavar="SHARE", help="Or until so many parameters are gone, as 50%.")
]
PruneScore = Annotated[
    str | None,
    typer.Option(
        "--prune-score",
        metavar="NAME",
        help="What decides which channels go: error, taylor, magnitude or random. [default: error]",
        show_default=False,
    ),
]
Keep = Annotated[
    list[str] | None,
    typer.Option("--keep", metavar="LAYER", help="A layer that keeps all its channels; may be given more than once."),
]


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
            help=MODEL_HELP,
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
    quantize: Annotated[
        str | None,
        typer.Option(
            metavar="EFFORT",
            help="What int8 tries to keep the answers: fast, balanced or thorough. [default: balanced]",
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
    prune: Prune = None,
    prune_params: PruneParams = None,
    prune_score: PruneScore = None,
    keep: Keep = None,
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
        "quantize": quantize,
        "input": input,
        "layout": layout,
        "max_drop": max_drop,
        "prune": prune,
        "prune_params": prune_params,
        "prune_score": prune_score,
        "keep": keep or None,
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


@app.command(short_help="Make a smaller model, to be exported.")
def prune(
    model: Annotated[str | None, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)] = None,
    data: Annotated[str | None, typer.Option(metavar="DATA", help="Labelled images as for `shrink export`.")] = None,
    prune: Prune = None,
    prune_params: PruneParams = None,
    prune_score: PruneScore = None,
    keep: Keep = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory to make.")] = Path("pruned"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; change and write nothing.")] = False,
    checkpoint: Annotated[Path | None, typer.Option(metavar="FILE", help="Trained weights.")] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="COUNT|DATA",
            help="How many images to fit with, up to 1024, or a folder or CSV of them; their labels are not used. "
            "[default: 256]",
            show_default=False,
        ),
    ] = None,
    recipe: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file as for `shrink export`.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace --out if it is a pruned model.")] = False,
    json: Annotated[bool, typer.Option("--json", help="Print the plan as JSON.")] = False,
) -> None:
    """Remove the channels of MODEL that matter least, fit what is left without labels, and write the smaller model.

    \b
    Examples:
      shrink prune 'timm:resnet18?pretrained=true' --data photos/ --prune 1.5x --dry-run
      shrink prune models.py:make --checkpoint weights.pt --data photos/ --prune 2x --calibrate 1024 --out small
      shrink export pruned:small --data photos/
    """
    import msgspec

    from shrink import recipe as recipes
    from shrink.progress import progress_on
    from shrink.quiet import chatter_aside

    flags = {
        "model": model,
        "data": data,
        "checkpoint": None if checkpoint is None else str(checkpoint),
        "calibrate": calibrate,
        "prune": prune,
        "prune_params": prune_params,
        "prune_score": prune_score,
        "keep": keep or None,
    }
    asked = recipes.combine(recipe, flags)
    with chatter_aside() as stream:
        from shrink import pipeline
        from shrink.steps import pruning

        stages = pipeline.PRUNE_STAGES - dry_run
        found = pipeline.prune(asked, out, dry_run=dry_run, force=force, progress=progress_on(stream, stages=stages))
    if json:
        say(msgspec.json.format(msgspec.json.encode(found.plan)).decode())
        return
    for line in pruning.table(found.plan):
        say(line)
    if found.judged is not None:
        say(pruning.verdict(found.judged))
        say(f"\nnext: shrink export pruned:{out} --data {asked.data}")


@app.command(short_help="Say what a model file really is.")
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .tflite or .onnx file, ours or not.")],
    require: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=VALUE",
            help="Exit 3 unless it holds; may be given more than once. Keys: int8, static, weights and delegated "
            "(shares, at least); partitions, undelegated, size and opset (at most); tflite-runtime=2.14 (runs there).",
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what FILE really is: share of MACs in int8, float leftovers and why, delegate partitions, per-op table.

    The file is read in a child process under limits: a crafted one can do no harm.

    \b
    Exit codes:
      0  the file was read, and every --require holds
      2  it cannot be read, or is not what its name says
      3  a --require does not hold; each is named on stderr

    \b
    Examples:
      shrink inspect model.tflite --require int8=0.95,partitions=1
      shrink inspect model.onnx --require size=5MB --json
    """
    import msgspec

    from shrink.inspect import guard, render
    from shrink.inspect import require as requirements

    wanted = requirements.parse(require or ())
    found = guard.inspect_untrusted(file)
    missed = list(requirements.unmet(found, wanted))
    say(msgspec.json.format(msgspec.json.encode(found)).decode() if json else render.text(found))
    for line in missed:
        typer.echo(line, err=True)
    if missed:
        raise typer.Exit(EXIT_VERDICT)


@app.command(short_help="Find the layer where a bundle loses its answers.")
def debug(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A bundle that `shrink export` wrote.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Needed where the bundle's model is made by code of its own: that code runs."
        ),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON, with every layer.")] = False,
) -> None:
    """Find where BUNDLE loses its answers: the export is done again as its recipe says, and every step and layer of
    it is compared. Run it where the export was run: the recipe holds the paths.

    \b
    Exit codes:
      0  no step loses more than is normal for it
      1  the bundle is damaged, or a step fails
      2  it cannot be made again: a file is gone or has changed
      3  a step loses more; it is named first

    Example: shrink debug out/cnn/tflite-int8 --model recipes/demo/models.py:cnn
    """
    import msgspec

    from shrink.progress import progress_on
    from shrink.quiet import chatter_aside

    with chatter_aside() as stream:
        from shrink.steps import debugging

        found = debugging.debug(bundle, model=model, progress=progress_on(stream, stages=debugging.STAGES))
    if json:
        say(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        from shrink.debug import render

        say(render.text(found.culprit, found.steps, found.layers, found.images))
    if not all(one.is_sound for one in found.steps):
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


@data_app.command("check", short_help="Say whether data is fit for a model.")
def data_check(
    data: Annotated[
        str | None, typer.Argument(metavar="DATA", help="Data as for `shrink export`.", show_default=False)
    ] = None,
    model: Annotated[str | None, typer.Option(metavar="MODEL", help="Model as for `shrink export`.")] = None,
    checkpoint: Annotated[Path | None, typer.Option(metavar="FILE", help="Its trained weights.")] = None,
    calibrate: Annotated[
        str | None, typer.Option(metavar="COUNT|DATA", help="Calibration images as for `shrink export`.")
    ] = None,
    recipe: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file that says all of this.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say whether DATA is what MODEL was trained on, and enough of it: preprocessing, channel order and layout,
    classes, copies, dark, bright, constant, noisy and small images.

    \b
    Exit codes:
      0  the data can be used; there may be warnings
      2  the model or the data cannot be read
      3  a check found an error: do not use the data

    \b
    Examples:
      shrink data check photos/ --model timm:resnet18 --checkpoint weights.safetensors
      shrink data check --recipe recipes/fashion_cnn.toml
    """
    import msgspec

    from shrink import recipe as recipes
    from shrink.progress import progress_on
    from shrink.quiet import chatter_aside

    given = {"model": model, "data": data, "calibrate": calibrate}
    asked = recipes.combine(recipe, given | {"checkpoint": None if checkpoint is None else str(checkpoint)})
    with chatter_aside() as stream:
        from shrink.steps import doctoring

        found = doctoring.examine(asked, progress_on(stream, stages=doctoring.STAGES))
    if json:
        say(msgspec.json.format(msgspec.json.encode(found)).decode())
    else:
        from shrink.doctor import render

        say(render.text(found.title, found.findings))
    if found.level == "error":
        raise typer.Exit(EXIT_VERDICT)


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


if __name__ == "__main__":
    main()
