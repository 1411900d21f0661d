"""Prune to a latency: files of smaller graphs take turns with the whole one's on the target's runtime.

Multiply-accumulates foretell times badly, so they are only what is turned: a share of them is tried, its float
file timed, and the next share taken between those that are too slow and those that are fast enough.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np
from torch import fx

from shrink import prune, targets
from shrink.bench.latency import Ratio, interleave, ratio
from shrink.errors import RecipeError
from shrink.progress import Stage
from shrink.steps.capturing import lowered
from shrink.steps.loading import Job
from shrink.steps.timing import inference
from shrink.steps.writing import Artifact, written
from shrink.targets import Target

TRIES = 6  # files
CLOSE = 0.03  # of the time: a file faster than the goal by no more than that is taken at once


def cut_to_latency(
    job: Job, captured: fx.GraphModule, ranked: prune.Ranked, settings: prune.Settings, stage: Stage
) -> tuple[prune.Cut, str]:
    """The cut that removes least of those whose file is fast enough, and what was measured, in words.

    Args:
        settings: their ratio is the share of the whole file's time that is left, 0..1.

    Raises:
        RecipeError: even with the fewest channels the file is too slow.
    """
    target = targets.load(targets.load(job.recipe.targets[0]).float_twin)
    goal, by_macs = settings.ratio, replace(settings, measure="macs")
    least = prune.least_left(captured, ranked, by_macs)
    rng = np.random.default_rng(job.recipe.seed)
    noise = rng.standard_normal(job.model.input_shape[1:], dtype=np.float32)  # (C, H, W)
    whole = inference(_file(job, target, captured), noise)
    cuts: dict[float, prune.Cut] = {}
    ratios: dict[float, Ratio] = {}

    def measure(share: float) -> float:
        cuts[share] = prune.cut(captured, ranked, replace(by_macs, ratio=share))
        small = inference(_file(job, target, cuts[share].graph), noise)
        samples = interleave({"whole": whole, "small": small}, rng=rng)
        ratios[share] = ratio(samples["small"], samples["whole"])
        return ratios[share].median

    tried = search(goal, measure, least, stage.track(range(TRIES)))
    fast = [share for share, time in tried.items() if time <= goal]
    if not fast:
        raise _too_slow(goal, tried, target)
    found = ratios[max(fast)]
    words = f"the float file takes {found.median:.2f} of the time ({found.low:.2f} to {found.high:.2f})"
    return cuts[max(fast)], f"{words} in {target.engine} on this host; files timed: {len(tried)}"


def search(
    goal: float, measure: Callable[[float], float], least: float, rounds: Iterable[int] = range(TRIES)
) -> Mapping[float, float]:
    """Try shares of the multiply-accumulates until one takes the goal's time or little less.

    Args:
        goal: share of the time that may be left, 0..1.
        measure: share of the multiply-accumulates -> share of the time; it need not rise evenly.
        least: the smallest share there is.
        rounds: one for each that may be tried.

    Returns:
        Share -> measured time, of all that were tried.
    """
    tried: dict[float, float] = {}
    share = max(goal, least)
    for _ in rounds:
        tried[share] = time = measure(share)
        if goal - CLOSE <= time <= goal or (share == least and time > goal):
            break
        share = _next(goal, tried, least)
        if share in tried:
            break
    return tried


def _next(goal: float, tried: Mapping[float, float], least: float) -> float:
    """On the line through the nearest that is too slow and the nearest that is fast enough."""
    slow = min([(share, time) for share, time in tried.items() if time > goal], default=(1.0, 1.0))
    fast = max([(share, time) for share, time in tried.items() if time <= goal and share < slow[0]], default=None)
    aim = goal - CLOSE / 2
    if fast is None:  # on the line through the whole and what is too slow, but not by less than a tenth
        gained = (1 - slow[0]) / max(1 - slow[1], 1e-6)
        return max(least, min(1 - (1 - aim) * gained, 0.9 * slow[0]))
    part = (aim - fast[1]) / max(slow[1] - fast[1], 1e-6)
    return fast[0] + min(max(part, 0.1), 0.9) * (slow[0] - fast[0])


def _file(job: Job, target: Target, graph: fx.GraphModule) -> Artifact:
    return written(job, target, lowered(job, graph, job.rules(target)), None)


def _too_slow(goal: float, tried: Mapping[float, float], target: Target) -> RecipeError:
    best, share = min((time, share) for share, time in tried.items())
    return RecipeError(
        f"pruning to {goal:g} of the latency cannot be reached",
        f"with {share:.1%} of the multiply-accumulates, the fewest without emptying a layer, the float file takes "
        f"{best:.2f} of the time in {target.engine} on this host: the rest does not depend on channels",
        f"ask for at least {best + 0.01:.2f}" if best < 0.99 else "leave the model as it is",
    )
