"""One way to quantize a graph, and how far its scores are from the float ones."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, fx

from shrink.graph.edit import constant, is_constant
from shrink.quantize.apply import apply
from shrink.quantize.plan import Plan, make_plan
from shrink.quantize.ranges import Range
from shrink.quantize.rounding import Rounded
from shrink.quantize.scheme import Scheme, plan_scheme
from shrink.quantize.simulate import simulation
from shrink.quantize.ties import apart_from_ties
from shrink.targets import Target


@dataclass(frozen=True, slots=True)
class State:
    """One way to quantize: a graph that answers as the float one, and all that makes a plan for it.

    Attributes:
        graph: float.
        ranges: of all values that any scheme holds as codes, and of the inputs of dynamic ops.
        scheme: what is quantized.
        border, floats: what `plan_scheme` made it of.
        rounded: weights whose codes were chosen by their effect.
        tables: constants in float whose numbers 8 bits hold.
    """

    graph: fx.GraphModule
    ranges: Mapping[str, Range]
    scheme: Scheme
    border: str
    floats: frozenset[str] = frozenset()
    rounded: Mapping[str, Rounded] = field(default_factory=dict)
    tables: int = 0

    def plan(self, target: Target) -> Plan:
        """The numbers."""
        plan = make_plan(self.scheme, self.ranges, every_row=target.dynamic_rows, rounded=self.rounded)
        return replace(plan, codes=apart_from_ties(self.graph, plan.codes, plan.scheme))

    def simulated(self, target: Target) -> fx.GraphModule:
        """What a file of it computes, in floats that are rounded as the runtime rounds."""
        return simulation(apply(self.graph, self.plan(target), wide=target.precision == "int16x8"))

    def with_floats(self, target: Target, names: Collection[str]) -> State:
        """This state with more nodes in float."""
        floats = self.floats | set(names)
        scheme = plan_scheme(self.graph.graph, target, border=self.border, floats=floats)
        return replace(self, scheme=scheme, floats=floats)


@dataclass(frozen=True, slots=True)
class Tools:
    """What the rungs work with.

    Attributes:
        target: what is quantized for.
        learn: images that set ranges, a few dozen.
        held_out: images that judge; none of them set a range. All are (1, C, H, W).
        wanted: scores of the float graph for `held_out`.
        workers: images run side by side.
        known: codes of layers found so far, by `fingerprint` of the graph, layer, and whether by their effect:
            targets that share a graph share most of this work.
    """

    target: Target
    learn: Sequence[Tensor]
    held_out: Sequence[Tensor]
    wanted: Tensor
    workers: int
    known: dict[tuple[bytes, str, bool], Rounded] = field(default_factory=dict, repr=False, compare=False)

    def error(self, state: State) -> float:
        """Root mean square difference of the scores over their own deviation."""
        return self.error_of(scores(state.simulated(self.target), self.held_out, self.workers))

    def error_of(self, given: Tensor) -> float:
        """The same of scores (n, outputs) for the images that judge."""
        return float((given - self.wanted).square().mean().sqrt() / self.wanted.std().clamp_min(1e-12))


def fingerprint(graph_module: fx.GraphModule) -> bytes:
    """Equal for graphs that compute the same with the same constants."""
    digest = hashlib.sha256(str(graph_module.graph).encode())
    for node in graph_module.graph.nodes:
        if is_constant(node):
            digest.update(constant(graph_module, node).detach().contiguous().numpy().tobytes())
    return digest.digest()


def scores(graph_module: fx.GraphModule, images: Sequence[Tensor], workers: int) -> Tensor:
    """(n, outputs) of n images."""

    def run(image: Tensor) -> Tensor:
        with torch.no_grad():  # the mode belongs to the thread
            found: Tensor = graph_module(image)
        return found

    with ThreadPoolExecutor(workers) as pool:
        return torch.cat(list(pool.map(run, images)))
