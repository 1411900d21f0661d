"""`shrink targets`: what can be exported to."""

from __future__ import annotations

from typing import Annotated

import typer

from shrink.shell import say


def targets_list() -> None:
    """List the targets, one a line."""
    from shrink import targets

    for name in targets.names():
        say(f"{name:16} {targets.load(name).summary}")


def targets_show(name: Annotated[str, typer.Argument(metavar="NAME", help="A target, such as tflite-int8.")]) -> None:
    """Show what the target's runtime computes in int8, and what is rewritten for it.

    Example: shrink targets show tflite-int8
    """
    import msgspec

    from shrink import targets

    for key, value in msgspec.to_builtins(targets.load(name)).items():
        say(f"{key:16} {', '.join(value) if isinstance(value, (list, tuple)) else value}")
