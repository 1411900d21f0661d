"""`shrink prune`: a smaller model, to be exported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shrink.shell import say
from shrink.verbs.options import (
    Checkpoint,
    Data,
    Json,
    Keep,
    Model,
    Prune,
    PruneParams,
    PruneScore,
    PruneToLatency,
    path,
)


def prune(
    model: Model = None,
    data: Data = None,
    prune: Prune = None,
    prune_params: PruneParams = None,
    prune_to_latency: PruneToLatency = None,
    prune_score: PruneScore = None,
    keep: Keep = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory to make.")] = Path("pruned"),
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the plan; change and write nothing.")] = False,
    checkpoint: Checkpoint = None,
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
    json: Json = False,
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
        "checkpoint": path(checkpoint),
        "calibrate": calibrate,
        "prune": prune,
        "prune_params": prune_params,
        "prune_to_latency": prune_to_latency,
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
    for change in found.changes:
        say(change)
    if found.judged is not None:
        say(pruning.verdict(found.judged))
        say(f"\nnext: shrink export pruned:{out} --data {asked.data}")
