"""Post-training quantization of a lowered graph: choose, observe, compare, write."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import torch
from torch import Tensor, fx

from shrink.graph.edit import is_constant
from shrink.quantize import ranges as _ranges
from shrink.quantize.apply import apply
from shrink.quantize.plan import Plan, make_plan
from shrink.quantize.ranges import Range
from shrink.quantize.rounding import WEIGHTED, Moments, moments, round_layers
from shrink.quantize.scheme import Scheme, plan_scheme, run_time_scheme
from shrink.quantize.simulate import simulation
from shrink.quantize.whole import whole_scheme
from shrink.targets import Target

__all__ = [
    "Chosen",
    "Observed",
    "Plan",
    "Range",
    "Scheme",
    "apply",
    "choose",
    "observe",
    "observed_names",
    "schemes",
    "simulation",
]

CLEARLY = 0.8  # a slower candidate must bring the error below this share of the fastest one's
MOMENT_IMAGES = 64  # images that the rounding of weights learns from; their positions make thousands of rows


@dataclass(frozen=True, slots=True)
class Observed:
    """What calibration images told: ranges of values, and moments of the inputs of every layer with weights."""

    ranges: Mapping[str, Range]
    moments: Mapping[str, Moments]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The plan that answered closest to the float graph, and what was weighed."""

    plan: Plan
    changes: tuple[str, ...]
    declined: tuple[tuple[str, str], ...]  # (what, why)


def schemes(graph: fx.Graph, target: Target) -> dict[str, Scheme]:
    """The candidates worth comparing for a target, by name; equal ones appear once."""
    if target.ranges == "run-time":
        return {"run-time": run_time_scheme(graph, target)}
    if target.ranges == "calibrated":
        return {"calibrated": whole_scheme(graph, target)}
    found: dict[str, Scheme] = {}
    for border in target.borders:
        scheme = plan_scheme(graph, target, border=border)
        if scheme not in found.values():
            found[border] = scheme
    return found


def observed_names(candidates: Iterable[Scheme]) -> frozenset[str]:
    """All values whose ranges any of the candidates needs, so that one pass over the images serves all."""
    return frozenset(name for scheme in candidates for name in (*scheme.values, *scheme.dynamic.values()))


def observe(
    graph_module: fx.GraphModule, names: Collection[str], images: Iterable[Tensor], *, workers: int = 1
) -> Observed:
    """Run the float graph on the images, each (1, C, H, W), once; the first ones a second time for the moments.

    Args:
        names: values whose ranges are wanted, from `observed_names`.
        images: streamed; a fixed number of them is held in memory.
        workers: images run side by side.

    Raises:
        CalibrationError: a value is NaN or infinite.
    """
    first: list[Tensor] = []
    found = _ranges.observe(graph_module, names, _keep_first(images, first), workers=workers)
    layers = [n.name for n in graph_module.graph.nodes if n.target in WEIGHTED and is_constant(n.args[1])]
    return Observed(found, moments(graph_module, layers, first, workers=workers))


def _keep_first(images: Iterable[Tensor], kept: list[Tensor]) -> Iterator[Tensor]:
    for image in images:
        if len(kept) < MOMENT_IMAGES:
            kept.append(image)
        yield image


def choose(
    graph_module: fx.GraphModule,
    candidates: Mapping[str, Scheme],
    observed: Observed,
    target: Target,
    held_out: Sequence[Tensor],
    *,
    workers: int = 1,
) -> Chosen:
    """Keep, step by step, what brings the scores closer to the float graph's on images that set no range.

    Args:
        graph_module: lowered float graph.
        candidates: from `schemes`.
        observed: from `observe`, for all `observed_names`.
        target: what is quantized for.
        held_out: calibration images, each (1, C, H, W), that `observed` has not seen.
        workers: images run side by side.
    """
    wanted, wide = _scores(graph_module, held_out, workers), target.precision == "int16x8"

    def error(plan: Plan) -> float:
        """Root mean square difference of the scores over their own deviation."""
        given = _scores(simulation(apply(graph_module, plan, wide=wide)), held_out, workers)
        return float((given - wanted).square().mean().sqrt() / wanted.std().clamp_min(1e-12))

    rungs: list[tuple[str, float]] = []
    declined: list[tuple[str, str]] = []
    judged = f"error of the scores on {len(held_out)} held-out calibration images"
    plans = {name: make_plan(s, observed.ranges, every_row=target.dynamic_rows) for name, s in candidates.items()}
    errors = {name: error(plan) for name, plan in plans.items()}
    fastest = next(iter(errors))
    border = min(errors, key=lambda name: errors[name] * (CLEARLY if name == fastest else 1.0))
    rungs.append((f"{border} ranges next to float ops", errors[border]))
    for name in plans.keys() - {border}:
        found = f"{judged} {errors[name]:.2%}, against {errors[border]:.2%}"
        slower = "; slower, and not clearly closer" if errors[name] < errors[border] else ""
        declined.append((f"{name} ranges next to float ops", found + slower))
    best, least = plans[border], errors[border]
    rounded = replace(best, rounded=round_layers(graph_module, _moments_of(best, observed), workers=workers))
    if (after := error(rounded)) < least:
        best, least = rounded, after
        rungs.append(("weights rounded by their effect", after))
    else:
        declined.append(("weights rounded by their effect", f"{judged} {after:.2%}, not {least:.2%}"))
    waterfall = "; ".join(f"{what} {value:.2%}" for what, value in rungs)
    return Chosen(best, (*_changes(best), f"{judged}: {waterfall}"), tuple(declined))


def _moments_of(plan: Plan, observed: Observed) -> dict[str, Moments]:
    quantized = plan.scheme.static | plan.scheme.dynamic.keys()
    return {name: found for name, found in observed.moments.items() if name in quantized}


def _scores(graph_module: fx.GraphModule, images: Sequence[Tensor], workers: int) -> Tensor:
    def run(image: Tensor) -> Tensor:
        with torch.no_grad():
            scores: Tensor = graph_module(image)
        return scores

    with ThreadPoolExecutor(workers) as pool:
        return torch.cat(list(pool.map(run, images)))


def _changes(plan: Plan) -> tuple[str, ...]:
    scheme = plan.scheme
    lines = [f"int8 with calibrated ranges: {len(scheme.static)} ops, {len(scheme.values)} values"]
    if scheme.dynamic:
        lines.append(f"int8 weights with run-time input ranges: {len(scheme.dynamic)} ops")
        if plan.rows and len(plan.rows) < len(scheme.dynamic):
            lines.append(f"ranges per row where one range drowns the values in noise: {', '.join(sorted(plan.rows))}")
    return tuple(lines)
