"""Post-training quantization of a lowered graph: choose, observe, compare, write."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, fx

from shrink.graph.tables import on_grid
from shrink.quantize import ranges as _ranges
from shrink.quantize.apply import apply
from shrink.quantize.equalize import channel_axes
from shrink.quantize.image import image_range
from shrink.quantize.ladder import Rung, climb
from shrink.quantize.learn import Learner
from shrink.quantize.plan import Plan
from shrink.quantize.ranges import Range
from shrink.quantize.rounding import Rounded
from shrink.quantize.rungs import EFFORTS, Maker
from shrink.quantize.scheme import Scheme, observable, plan_scheme, run_time_scheme
from shrink.quantize.sensitivity import Cost, costs
from shrink.quantize.simulate import simulation
from shrink.quantize.state import State, Tools, scores
from shrink.quantize.whole import whole_scheme
from shrink.targets import Target

__all__ = [
    "Chosen",
    "Cost",
    "Learner",
    "Observed",
    "Plan",
    "Range",
    "Rung",
    "Scheme",
    "apply",
    "choose",
    "observe",
    "schemes",
    "simulation",
]

LEARN_FROM = 64  # images that ranges and weights are fitted to; their positions make thousands of rows


BLAMED_BY = 8  # images that say what a layer costs: each layer takes a run of its own


@dataclass(frozen=True, slots=True)
class Observed:
    """What calibration images told.

    Attributes:
        ranges: of all values that could be held as codes.
        images: the first `LEARN_FROM`, each (1, C, H, W).
        known: what `choose` finds out of them for one target and can use for the next, see `Tools`.
    """

    ranges: Mapping[str, Range]
    images: Sequence[Tensor]
    known: dict[tuple[bytes, str, bool], Rounded] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class Chosen:
    """The way to quantize that answered closest to the float graph, and what was weighed.

    Attributes:
        state: that way.
        tools: what it was judged with.
        rungs: what was tried, in order.
    """

    state: State = field(repr=False, compare=False)
    tools: Tools = field(repr=False, compare=False)
    rungs: tuple[Rung, ...]

    @property
    def graph(self) -> fx.GraphModule:
        """Float, what the plan is for; its weights may differ from those of the graph it was chosen for."""
        return self.state.graph

    @property
    def plan(self) -> Plan:
        """For `apply`."""
        return self.state.plan(self.tools.target)

    @property
    def changes(self) -> tuple[str, ...]:
        """What is quantized, in words."""
        tables = self.state.tables
        return (*_changes(self.plan), *[f"tables in 8 bits: {tables}, computed in float"] * bool(tables))

    def simulated(self) -> fx.GraphModule:
        """What a file of it computes, in floats that are rounded as the runtime rounds."""
        return self.state.simulated(self.tools.target)

    def learner(self) -> Learner:
        """The same, to be trained."""
        return Learner(self.state, self.tools.target)

    def learned(self, state: State, what: str, *, better: bool, alone: str = "") -> Chosen:
        """The same after training.

        Args:
            state: the trained one.
            what: was done, in words.
            better: whether it is, by the judge of the training.
            alone: why that judge decides alone; empty: the ladder's own must agree.
        """
        error = self.tools.error(state)
        kept = better and (bool(alone) or error < self.error)
        why = "the scores are farther from the float model's, if nearer in their relations"
        if not better:
            why = "no epoch was better than the start"
        elif kept:
            why = alone if error >= self.error else ""
        return replace(
            self, state=state if kept else self.state, rungs=(*self.rungs, Rung(what, error, kept=kept, why=why))
        )

    def declined(self, what: str, why: str) -> Chosen:
        """The same, with a note of what was asked for and not done."""
        return replace(self, rungs=(*self.rungs, Rung(what, self.error, kept=False, why=why)))

    @property
    def error(self) -> float:
        """Of the scores on the held-out images, root mean square over their standard deviation."""
        return next(rung.error for rung in reversed(self.rungs) if rung.kept)

    def error_of(self, answers: Callable[[Tensor], Tensor]) -> float:
        """The same of something else, such as a file: of its scores (n, outputs) for images (n, C, H, W)."""
        return self.tools.error_of(answers(torch.cat(list(self.tools.held_out))))

    def costs(self) -> list[Cost]:
        """What every layer with weights costs, the costliest first, judged on a few of the held-out images."""
        few = replace(self.tools, held_out=self.tools.held_out[:BLAMED_BY], wanted=self.tools.wanted[:BLAMED_BY])
        return costs(self.state, few)


def schemes(graph: fx.Graph, target: Target) -> dict[str, Scheme]:
    """The schemes to start from, by the ranges they take next to float ops; equal ones appear once."""
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


def observe(
    graph_module: fx.GraphModule,
    wanted: Iterable[Target],
    images: Iterable[Tensor],
    *,
    normalization: tuple[Sequence[float], Sequence[float]],
    workers: int = 1,
) -> Observed:
    """Run the float graph once on the images, each (1, C, H, W).

    Args:
        graph_module: lowered graph.
        wanted: what it will be quantized for.
        images: streamed; a fixed number of them is held in memory.
        normalization: mean and std per channel that made them of grey levels.
        workers: images run side by side.

    Raises:
        CalibrationError: a value is NaN or infinite.
    """
    names = {name for target in wanted for name in _names(graph_module.graph, target)}
    axes = channel_axes(graph_module.graph, names)
    first: list[Tensor] = []
    found = _ranges.observe(graph_module, names, _keep_first(images, first), axes=axes, workers=workers)
    image = next(node.name for node in graph_module.graph.nodes if node.op == "placeholder")
    if image in found:
        found[image] = image_range(found[image], *normalization)
    return Observed(found, first)


def _names(graph: fx.Graph, target: Target) -> frozenset[str]:
    """The values whose ranges may be asked for: all that later rungs could need, for a target with a choice."""
    starts = schemes(graph, target).values()
    named = frozenset(name for scheme in starts for name in (*scheme.values, *scheme.dynamic.values()))
    return named | observable(graph, target) if target.ranges == "mixed" else named


def _keep_first(images: Iterable[Tensor], kept: list[Tensor]) -> Iterator[Tensor]:
    for image in images:
        if len(kept) < LEARN_FROM:
            kept.append(image)
        yield image


def choose(
    graph_module: fx.GraphModule,
    observed: Observed,
    target: Target,
    held_out: Sequence[Tensor],
    *,
    effort: str = "balanced",
    like: Chosen | None = None,
    workers: int = 1,
    track: Callable[[Sequence[Maker]], Iterable[Maker]] = iter,
) -> Chosen:
    """Climb the ladder.

    Args:
        graph_module: lowered float graph.
        observed: from `observe`, for this target among others.
        target: what is quantized for.
        held_out: calibration images, each (1, C, H, W), that `observed` has not seen.
        effort: a key of `EFFORTS`.
        like: what was chosen for another target; if both files round alike, of ways that are as good the one that it
            went is taken.
        workers: images run side by side.
        track: shows the progress of a loop over the rungs.
    """
    tools = Tools(target, observed.images, held_out, scores(graph_module, held_out, workers), workers, observed.known)
    starts, larger = _starts(graph_module, observed, target)
    if like is not None and not _rounds_alike(next(iter(starts.values())).scheme, like.state.scheme):
        like = None
    kept = None if like is None else {rung.what for rung in like.rungs if rung.kept}
    best, rungs = climb({**starts, **larger}, track(EFFORTS[effort]), tools, like=kept, larger=larger)
    return Chosen(best, tools, tuple(rungs))


def _starts(
    graph_module: fx.GraphModule, observed: Observed, target: Target
) -> tuple[dict[str, State], dict[str, State]]:
    """The ways to begin, the fastest first; and it with float tables as they are, which takes more bytes."""
    starts: dict[str, State] = {}
    larger: dict[str, State] = {}
    for border, scheme in schemes(graph_module.graph, target).items():
        name = f"{border} ranges{' next to float ops' * bool(target.borders)}"
        start = State(graph_module, observed.ranges, scheme, border)
        graph, tables = on_grid(graph_module, scheme.values) if target.ranges == "mixed" else (graph_module, 0)
        if tables and not larger:
            larger[f"{name}, tables in float"] = start
        starts[name] = replace(start, graph=graph, tables=tables) if tables else start
    return starts, larger


def _rounds_alike(a: Scheme, b: Scheme) -> bool:
    """Whether both compute most ops on the same calibrated codes; of run-time ranges every format has its own kind."""
    most = max(len(one.static | one.dynamic.keys()) for one in (a, b))
    return 2 * len(a.static & b.static) > most


def _changes(plan: Plan) -> tuple[str, ...]:
    scheme = plan.scheme
    lines = [f"int8 with calibrated ranges: {len(scheme.static)} ops, {len(scheme.values)} values"]
    if scheme.dynamic:
        lines.append(f"int8 weights with run-time input ranges: {len(scheme.dynamic)} ops")
        if plan.rows and len(plan.rows) < len(scheme.dynamic):
            lines.append(f"ranges per row where one range drowns the values in noise: {', '.join(sorted(plan.rows))}")
    if scheme.slow:
        lines.append(f"left in float, with too few inputs for 8 bits to save time: {', '.join(sorted(scheme.slow))}")
    return tuple(lines)
