"""`shrink inspect` and `shrink debug`: what a file is, and where a bundle loses its answers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shrink.shell import say
from shrink.verbs.options import EXIT_VERDICT, Json


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
    json: Json = False,
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
