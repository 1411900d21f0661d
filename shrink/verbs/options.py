"""Options that more than one verb takes, and how the answer to a verdict leaves the process."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

EXIT_VERDICT = 3

Model = Annotated[
    str | None,
    typer.Argument(
        metavar="MODEL",
        help="torchvision:NAME, timm:NAME, FILE.py:factory, package.module:factory, pruned:DIR or tuned:DIR; "
        "arguments as ?key=value.",
        show_default=False,
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        metavar="DATA",
        help="Labelled images: a folder with one sub-folder per class, also below train/ and val/; a CSV of "
        "path,label; an .npz; or fashion-mnist.",
    ),
]
Checkpoint = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Trained weights: safetensors, or a state dict of torch.save.")
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Prune = Annotated[
    str | None,
    typer.Option("--prune", metavar="FACTOR", help="Remove channels until the model has 2x fewer MACs, or 1.5x."),
]
PruneParams = Annotated[
    str | None, typer.Option("--prune-params", metavar="SHARE", help="Or until so many parameters are gone, as 50%.")
]
PruneToLatency = Annotated[
    float | None,
    typer.Option(
        "--prune-to-latency",
        metavar="SHARE",
        help="Or until the float file of the first target takes this share of its time on this host, as 0.6.",
    ),
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
Tune = Annotated[
    int | None,
    typer.Option(
        "--tune",
        metavar="EPOCHS",
        help="Train the pruned model to answer as the whole one: so many passes over the training images, without "
        "labels. [default: 0]",
        show_default=False,
    ),
]
Qat = Annotated[
    int | None,
    typer.Option(
        "--qat",
        metavar="EPOCHS",
        help="Then train so many passes with the rounding to 8 bits in it, scales among what is learned. [default: 0]",
        show_default=False,
    ),
]


def path(value: Path | None) -> str | None:
    """A path as a recipe holds it."""
    return None if value is None else str(value)
