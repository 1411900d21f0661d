"""The rungs of the ladder: each takes the best state so far and proposes others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace

from shrink.quantize.clipping import clipped, histograms
from shrink.quantize.equalize import equalize
from shrink.quantize.operands import op_name
from shrink.quantize.rounding import round_layers
from shrink.quantize.sensitivity import costs, multiplications
from shrink.quantize.state import State, Tools, fingerprint

Proposals = Iterator[tuple[str, State]]
"""What is proposed, in words, and the state."""

Maker = Callable[[State, Tools], Proposals]
"""A rung: from the best state so far."""

POWERS = {"square": 2.0, "cube": 3.0}
"""Errors that ranges are searched for; cubes mind the large values more, which carry the answer."""

AIM = 0.05  # error of the scores above which "thorough" leaves layers in float
MOST_FLOAT = 0.2  # share of the multiplications that may be left in float


def corrected_biases(state: State, tools: Tools) -> Proposals:
    """The mean error of each layer's weights paid back in its bias."""
    yield "biases corrected", _rounded(state, tools, by_effect=False)


def equalized(state: State, tools: Tools) -> Proposals:
    """Channels of unlike range scaled alike."""
    held = {*state.scheme.values, *state.scheme.dynamic.values()}
    for minding, exponent in (("activations and weights", 0.5), ("activations", 1.0)):
        if found := equalize(state.graph, state.ranges, held, exponent):
            scaled = replace(state, graph=found.graph, ranges=found.ranges)
            what = f"{found.channels} channels equalized, minding {minding}"
            yield what, _rounded(scaled, tools, by_effect=False)


def tighter_ranges(state: State, tools: Tools) -> Proposals:
    """The rarest values left out."""
    images = {node.name for node in state.graph.graph.nodes if node.op == "placeholder"}  # all levels are worth as much
    held = {n: state.ranges[n] for n in state.scheme.values if n not in state.scheme.fixed.keys() | images}
    if not held:
        return
    counts = histograms(state.graph, held, tools.learn, workers=tools.workers)
    for name, power in POWERS.items():
        yield f"ranges of least {name} error", replace(state, ranges=clipped(state.ranges, counts, power))


def rounded_by_effect(state: State, tools: Tools) -> Proposals:
    """Weights rounded so that the answers of each layer change least, biases corrected."""
    yield "weights rounded by their effect", _rounded(state, tools, by_effect=True)


def _rounded(state: State, tools: Tools, *, by_effect: bool) -> State:
    graph = fingerprint(state.graph)
    wanted = {name: (graph, name, by_effect) for name in state.scheme.static | state.scheme.dynamic.keys()}
    missing = [name for name, key in wanted.items() if key not in tools.known]
    found = round_layers(state.graph, missing, tools.learn, by_effect=by_effect, workers=tools.workers)
    tools.known.update((wanted[name], rounded) for name, rounded in found.items())
    return replace(state, rounded={name: tools.known[key] for name, key in wanted.items() if key in tools.known})


def worst_in_float(state: State, tools: Tools) -> Proposals:
    """The layers that cost most left in float, one more at a time until the error is what is aimed at."""
    if not tools.target.float_amid:
        return
    ranked, left, proposed, names = costs(state, tools), MOST_FLOAT * multiplications(state), state, list[str]()
    able = {n.name for n in state.graph.graph.nodes if op_name(n) in tools.target.float_amid}
    for cost in (one for one in ranked if one.node in able):
        if tools.error(proposed) <= AIM or cost.macs > left:
            break
        left -= cost.macs
        names.append(cost.layer)
        proposed = proposed.with_floats(tools.target, [cost.node])
    if names:
        yield f"left in float: {', '.join(names)}", proposed


EFFORTS: Mapping[str, tuple[Maker, ...]] = {
    "fast": (corrected_biases,),
    "balanced": (corrected_biases, equalized, tighter_ranges, rounded_by_effect),
    "thorough": (corrected_biases, equalized, tighter_ranges, rounded_by_effect, worst_in_float),
}
"""The rungs of `--quantize`, in order. Biases come first: their error would drown what the others bring."""
