"""`shrink export`: verified bundles of a trained model."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from shrink.shell import results_console
from shrink.verbs.options import (
    EXIT_VERDICT,
    Checkpoint,
    Data,
    Keep,
    Model,
    Prune,
    PruneParams,
    PruneScore,
    PruneToLatency,
    Qat,
    Tune,
    path,
)


def export(
    model: Model = None,
    data: Data = None,
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
    checkpoint: Checkpoint = None,
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
    resolution: Annotated[
        int | None,
        typer.Option(
            metavar="PIXELS",
            help="Side of the image that the file takes; it is judged against the model at its own. "
            "[default: the model's own]",
            show_default=False,
        ),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option(metavar="POINTS", help="Loss of top-1 that is allowed. [default: 1.0]", show_default=False),
    ] = None,
    prune: Prune = None,
    prune_params: PruneParams = None,
    prune_to_latency: PruneToLatency = None,
    prune_score: PruneScore = None,
    keep: Keep = None,
    tune: Tune = None,
    qat: Qat = None,
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
        "checkpoint": path(checkpoint),
        "calibrate": calibrate,
        "quantize": quantize,
        "input": input,
        "layout": layout,
        "resolution": resolution,
        "max_drop": max_drop,
        "prune": prune,
        "prune_params": prune_params,
        "prune_to_latency": prune_to_latency,
        "prune_score": prune_score,
        "keep": keep or None,
        "tune": {"epochs": tune, "qat": qat},
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


def _python() -> str:
    """How this Python is called from the shell."""
    found = shutil.which("python")
    return "python" if found and Path(found).absolute() == Path(sys.executable).absolute() else sys.executable
