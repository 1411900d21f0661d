"""Prune a model with Torch-Pruning, as its own examples do; needs that package, and `shrink` to load the model.

Channels of every layer but the classifier go, as many of each, until so many multiply-accumulates are left. Fused
attention is told its heads, and is told its new width afterwards.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

TRIES = 6  # shares of the channels
CRITERIA = ("magnitude", "bn_scale", "taylor", "random")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--version", action="version", version=f"torch-pruning {version('torch-pruning')}")
    parser.add_argument("--model", required=True, help="as `shrink prune` takes it")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--left", type=float, required=True, help="share of the multiply-accumulates, 0..1")
    parser.add_argument("--criterion", choices=CRITERIA, default="magnitude")
    parser.add_argument("--images", type=Path, help=".npy, normalized, (n, C, H, W): for the criterion taylor")
    parser.add_argument("--judge", type=Path, help=".npz of images x (n, C, H, W) and labels y (n,)")
    parser.add_argument("--recipe", type=Path, help="TOML with the preprocessing")
    parser.add_argument("--data", help="where the recipe names none; not read")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()

    import torch

    shape = load(asked)[1]
    start, found = time.monotonic(), None
    low, high = 0.0, 1 - asked.left
    for _ in range(TRIES if asked.judge else 1):  # the largest model that is small enough
        share = 1 - asked.left**0.5 if found is None else (low + high) / 2
        small, macs = _pruned(torch.zeros(shape), share, asked)
        fits = macs[1] <= asked.left * macs[0]
        low, high = (low, share) if fits else (share, high)
        found = (small, macs, share) if fits or found is None else found
    assert found is not None
    small, macs, share = found
    scores = small(torch.zeros(shape))
    result: dict[str, object] = {
        "seconds": round(time.monotonic() - start, 2),
        "macs_before": macs[0],
        "macs_after": macs[1],
        "channel_share": share,
        "outputs": list(scores.shape),
    }
    if asked.judge:
        result["judged"] = _judged(load(asked)[0], small, asked.judge)
    asked.out.write_text(json.dumps(result), encoding="utf-8")


def load(asked: argparse.Namespace) -> tuple[Any, tuple[int, ...]]:
    """The whole model, and the shape of its input."""
    from shrink import models, recipe

    named = {"model": asked.model, "data": asked.data}
    preprocess = recipe.combine(asked.recipe, named).preprocess if asked.recipe else None
    model = models.load(asked.model, checkpoint=asked.checkpoint, preprocess=preprocess)
    return model.module.eval().requires_grad_(True), model.input_shape


def _pruned(example: Any, share: float, asked: argparse.Namespace) -> tuple[Any, tuple[float, float]]:
    """A smaller model, and its multiply-accumulates before and after."""
    import torch_pruning as tp  # type: ignore[import-not-found,unused-ignore]

    small = load(asked)[0]  # anew: a module that holds computed tensors cannot be copied
    classes = small(example).shape[1]
    last = [m for m in small.modules() if getattr(m, "out_features", getattr(m, "out_channels", None)) == classes]
    fused = list(_fused(small))
    pruner = tp.pruner.BasePruner(
        small,
        example,
        importance=_importance(tp, asked.criterion),
        pruning_ratio=share,
        ignored_layers=last,
        num_heads={part.qkv: part.num_heads for part in fused},
        round_to=8 if not fused else None,
    )
    if asked.criterion == "taylor":
        _gradients(small, asked.images)
    before = tp.utils.count_ops_and_params(small, example)[0]
    pruner.step()
    for part in fused:
        part.num_heads = pruner.num_heads[part.qkv]
        part.head_dim = part.qkv.out_features // (3 * part.num_heads)
        if hasattr(part, "attn_dim"):
            part.attn_dim = part.num_heads * part.head_dim
    return small, (before, tp.utils.count_ops_and_params(small, example)[0])


def _importance(tp: Any, criterion: str) -> Any:
    makers = {
        "magnitude": lambda: tp.importance.GroupMagnitudeImportance(p=2),
        "bn_scale": tp.importance.BNScaleImportance,
        "taylor": tp.importance.GroupTaylorImportance,
        "random": tp.importance.RandomImportance,
    }
    return makers[criterion]()


def _fused(module: Any) -> Iterator[Any]:
    """Attentions whose queries, keys and values come from one linear, as in timm."""
    for part in module.modules():
        if hasattr(part, "qkv") and hasattr(part, "num_heads") and hasattr(part.qkv, "out_features"):
            if hasattr(part, "fused_attn"):
                part.fused_attn = False
            yield part


def _gradients(module: Any, path: Path) -> None:
    """Of the loss against the model's own best classes: no labels are given."""
    import numpy as np
    import torch

    for batch in torch.split(torch.from_numpy(np.load(path)), 32):
        scores = module(batch)
        torch.nn.functional.cross_entropy(scores, scores.detach().argmax(1)).backward()  # type: ignore[no-untyped-call]


def _judged(whole: Any, small: Any, path: Path) -> dict[str, float]:
    import numpy as np
    import torch

    arrays = np.load(path)
    with torch.no_grad():
        answers = [
            torch.cat([net(batch).argmax(1) for batch in torch.split(torch.from_numpy(arrays["x"]), 32)])
            for net in (whole, small)
        ]
    labels = torch.from_numpy(arrays["y"])
    before, after = (float((answer == labels).float().mean()) for answer in answers)
    agreement = float((answers[0] == answers[1]).float().mean())
    return {"images": len(labels), "top1_before": before, "top1_after": after, "agreement": agreement}


if __name__ == "__main__":
    main()
