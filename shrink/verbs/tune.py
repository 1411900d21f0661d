"""`shrink tune`: a model that was trained to answer as a larger one, or for other classes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from shrink.shell import say
from shrink.verbs.options import Checkpoint, Data, Keep, Model, Prune, PruneParams, PruneScore, PruneToLatency, path


def tune(
    model: Model = None,
    data: Data = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="NUMBER", help="Passes over the training images.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Directory to make.")] = Path("tuned"),
    checkpoint: Checkpoint = None,
    teacher: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL", help="Whose answers are learned. [default: the model before pruning]", show_default=False
        ),
    ] = None,
    teacher_checkpoint: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Trained weights of --teacher.", show_default=False)
    ] = None,
    labels: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE", help="Share of the loss that looks at labels, 0 to 1. [default: 0]", show_default=False
        ),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What compares with the teacher: kl, of standardized scores; dist; mse. [default: kl]",
            show_default=False,
        ),
    ] = None,
    head: Annotated[
        int | None,
        typer.Option(
            metavar="CLASSES",
            help="Train a new classifier for so many classes; 0: as many as the data has.",
            show_default=False,
        ),
    ] = None,
    balance: Annotated[
        bool, typer.Option("--balance", help="Draw every class equally often, however few images it has.")
    ] = False,
    rate: Annotated[
        float | None, typer.Option(metavar="RATE", help="Highest learning rate. [default: 0.0003]", show_default=False)
    ] = None,
    batch: Annotated[
        int | None, typer.Option(metavar="IMAGES", help="Images per step. [default: 64]", show_default=False)
    ] = None,
    prune: Prune = None,
    prune_params: PruneParams = None,
    prune_to_latency: PruneToLatency = None,
    prune_score: PruneScore = None,
    keep: Keep = None,
    recipe: Annotated[Path | None, typer.Option(metavar="FILE", help="TOML file as for `shrink export`.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with a training that was stopped; its checkpoints lie beside --out.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace --out if it is an earlier model.")] = False,
) -> None:
    """Train MODEL to answer as its teacher does, with few labels or none, and write the trained model.

    The training images are the train/ part of the data, or four fifths of data without parts; the rest judges. On
    several GPUs or machines: `accelerate launch -m shrink.cli tune ...`.

    \b
    Examples:
      shrink tune models.py:make --checkpoint weights.pt --data photos/ --prune 2x --epochs 3 --out small
      shrink tune pruned:small --teacher models.py:make --teacher-checkpoint weights.pt --data photos/ --epochs 3
      shrink tune 'timm:mobilenetv3_small_100?pretrained=true' --head 0 --data photos/ --epochs 20 --out mine
      shrink export tuned:small --data photos/
    """
    from shrink import recipe as recipes
    from shrink.progress import progress_on
    from shrink.quiet import chatter_aside

    table = {
        "epochs": epochs,
        "teacher": teacher,
        "teacher_checkpoint": path(teacher_checkpoint),
        "labels": labels,
        "loss": loss,
        "balance": balance or None,
        "rate": rate,
        "batch": batch,
    }
    flags = {
        "model": model,
        "data": data,
        "checkpoint": path(checkpoint),
        "prune": prune,
        "prune_params": prune_params,
        "prune_to_latency": prune_to_latency,
        "prune_score": prune_score,
        "keep": keep or None,
        "tune": table,
    }
    asked = recipes.combine(recipe, flags)
    with chatter_aside() as stream:
        from shrink import pipeline
        from shrink.steps import tuning

        progress = progress_on(stream, stages=pipeline.TUNE_STAGES)
        found = pipeline.tune(asked, out, head=head, resume=resume, force=force, progress=progress)
    if found is None:
        return
    for line in tuning.words(found.tuned, found.judged):
        say(line)
    if found.tuned.fitted.stopped is not None:
        raise found.tuned.fitted.stopped
    say(f"\nnext: shrink export tuned:{out} --data {asked.data}")
