"""`shrink data`: is it fit for a model, and a few images of it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shrink.shell import say
from shrink.verbs.options import EXIT_VERDICT, Json, path


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
    json: Json = False,
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
    asked = recipes.combine(recipe, given | {"checkpoint": path(checkpoint)})
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


def data_unpack(
    data: Annotated[str, typer.Argument(metavar="DATA", help="Data as for `shrink export`.")],
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder for the images.")],
    count: Annotated[int, typer.Option(metavar="COUNT", min=1, help="How many evaluation images.")] = 8,
) -> None:
    """Write a few evaluation images as files, to try a bundle on.

    Example: shrink data unpack fashion-mnist images/
    """
    from shrink.data.unpack import unpack

    for written in unpack(data, out, count):
        say(str(written))
