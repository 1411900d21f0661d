"""Post-training quantization of a lowered graph: choose, observe, compare, write."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from shrink.quantize.apply import apply
from shrink.quantize.plan import Plan, make_plan
from shrink.quantize.ranges import Range, observe
from shrink.quantize.scheme import Scheme, plan_scheme
from shrink.quantize.simulate import simulation
from shrink.targets import Target

__all__ = ["Chosen", "Plan", "Range", "Scheme", "apply", "choose", "observe", "observed_names", "schemes", "simulation"]


@dataclass(frozen=True, slots=True)
class Chosen:
    """The plan that answered closest to the float graph, and what was weighed."""

    plan: Plan
    changes: tuple[str, ...]
    declined: tuple[tuple[str, str], ...]  # (what, why)


def schemes(graph: fx.Graph, target: Target) -> dict[str, Scheme]:
    """The candidates worth comparing for a target, by name; equal ones appear once."""
    found: dict[str, Scheme] = {}
    for border in target.borders:
        scheme = plan_scheme(graph, target, border=border)
        if scheme not in found.values():
            found[border] = scheme
    return found


def observed_names(candidates: Iterable[Scheme]) -> frozenset[str]:
    """All values whose ranges any of the candidates needs, so that one pass over the images serves all."""
    return frozenset(name for scheme in candidates for name in scheme.values)


def choose(
    graph_module: fx.GraphModule,
    candidates: dict[str, Scheme],
    ranges: dict[str, Range],
    target: Target,
    held_out: Sequence[Tensor],
    *,
    workers: int = 1,
) -> Chosen:
    """Keep the candidate whose scores are closest to the float graph's on images that set no range.

    Args:
        graph_module: lowered float graph.
        candidates: from `schemes`.
        ranges: from `observe`, for all `observed_names`.
        target: what is quantized for.
        held_out: calibration images, each (1, C, H, W), that `ranges` has not seen.
        workers: images run side by side.
    """
    plans = {name: make_plan(scheme, ranges) for name, scheme in candidates.items()}
    if len(plans) == 1:
        ((name, plan),) = plans.items()
        return Chosen(plan, _changes(plan, name), ())
    errors = {name: _error(graph_module, plan, target, held_out, workers) for name, plan in plans.items()}
    best = min(errors, key=lambda name: errors[name])
    why = ", ".join(f"{name} {error:.2%}" for name, error in errors.items())
    note = f"error of the scores on {len(held_out)} held-out calibration images: {why}"
    declined = tuple((f"{name} activation ranges next to float ops", note) for name in plans if name != best)
    return Chosen(plans[best], (*_changes(plans[best], best), note), declined)


def _error(graph_module: fx.GraphModule, plan: Plan, target: Target, images: Sequence[Tensor], workers: int) -> float:
    """Root mean square difference of the scores over their own deviation."""
    quantized = simulation(apply(graph_module, plan), rows=target.dynamic_rows)
    wanted, given = (_scores(graph, images, workers) for graph in (graph_module, quantized))
    return float((given - wanted).square().mean().sqrt() / wanted.std().clamp_min(1e-12))


def _scores(graph_module: fx.GraphModule, images: Sequence[Tensor], workers: int) -> Tensor:
    def run(image: Tensor) -> Tensor:
        with torch.no_grad():
            scores: Tensor = graph_module(image)
        return scores

    with ThreadPoolExecutor(workers) as pool:
        return torch.cat(list(pool.map(run, images)))


def _changes(plan: Plan, border: str) -> tuple[str, ...]:
    scheme = plan.scheme
    lines = [f"int8 with calibrated ranges: {len(scheme.static)} ops, {len(scheme.values)} values"]
    if scheme.dynamic:
        lines.append(f"int8 weights with run-time input ranges ({border}): {len(scheme.dynamic)} linears")
    return tuple(lines)
