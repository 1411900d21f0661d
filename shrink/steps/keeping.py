"""A pruned or trained graph as a model on disk, which is read without the user's code."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from torch import fx

from shrink.files import appears_whole
from shrink.graph import store
from shrink.models import pruned_source
from shrink.steps.loading import Job


def is_ours(path: Path) -> bool:
    """Whether an entry of an output directory is one that `shrink prune` and `shrink tune` write."""
    return path.name in pruned_source.FILES


def keep_model(out: Path, job: Job, graph: fx.GraphModule, known: Mapping[str, Any], *, force: bool) -> None:
    """Write the graph of the job's model; it appears whole or not at all.

    Args:
        known: further fields of `pruned_source.About`: how the graph came about, and how it answers.

    Raises:
        OutputError: `out` is in the way, or cannot be written.
    """
    text, tensors = store.dump(graph)
    about = pruned_source.About(
        spec=job.model.spec,
        weights=job.model.weights,
        preprocess=job.model.preprocess,
        labels=job.model.labels or job.split.evaluation.classes,
        graph_sha256="",
        weights_sha256="",
        **known,
    )
    with appears_whole(out, replace=force, is_ours=is_ours) as folder:
        pruned_source.write(folder, text, safetensors.torch.save(tensors), about)
