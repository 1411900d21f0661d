"""The error of every op of a quantized graph, found in PyTorch on the graph that both file formats are printed from.

An op is run on exact inputs with its quantized weights, and its answer is rounded to its codes: what is then wrong
is its own error. In the quantized graph as a whole the errors of all ops before it have gathered as well. And if
one op's own error is put into the float graph, the change of the scores says what that op costs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

CODES = "quantize_per_tensor"  # in the names of the ops that put activations on codes, and take them off
MOST_DB = 120.0  # what float arithmetic resolves; stands for "no error"
OUTLIERS = 30.0  # largest value over root mean square; Gaussian values of a layer reach 5


@dataclass(frozen=True, slots=True)
class LayerError:
    """What one op does to the scores; SQNR is signal over quantization noise, 10 log10 of powers, in dB."""

    name: str  # of the node
    layer: str  # path of the module, such as blocks.0.mlp.fc1
    op: str  # such as conv2d
    own_db: float  # SQNR of its output when its inputs are exact
    total_db: float  # SQNR of its output in the quantized graph
    scores: float  # change of the scores by its own error alone, relative to their deviation
    reach: float  # largest magnitude of its output over the root mean square
    cause: str  # "codes": rounding of its output; "weights": rounding of its weights, or of its input at run time
    order: int = 0  # in the graph
    file_db: float | None = None  # SQNR of the value in the file against the simulation; None: not found there

    @property
    def words(self) -> str:
        """Why it loses, as far as its values tell."""
        if self.cause == "weights":
            return "rounding its weights and its input does it, not the codes of its output"
        if self.reach > OUTLIERS:
            return f"its values reach {self.reach:.0f} times their rms: codes over that range leave few for the rest"
        return "rounding its output to 256 codes does it"


@dataclass(slots=True)
class _Sums:
    """Powers, summed over images."""

    signal: float = 0.0
    own: float = 0.0
    weights: float = 0.0  # the part of `own` before the output is rounded to codes
    total: float = 0.0
    scores: float = 0.0
    peak: float = 0.0
    count: int = 0


class Values(fx.Interpreter):
    """Runs a graph and keeps every value."""

    def __init__(self, graph_module: fx.GraphModule) -> None:
        super().__init__(graph_module, garbage_collect_values=False)
        self.order = list(graph_module.graph.nodes)

    def values(self, image: Tensor) -> dict[fx.Node, Any]:
        """Every node's value for an image (1, C, H, W)."""
        with torch.no_grad():
            self.run(image)
        return dict(self.env)

    def scores(self, known: Mapping[fx.Node, Any], changed: fx.Node, value: Tensor) -> Tensor:
        """The output if one node gave another value; those before it keep theirs."""
        start = {node: known[node] for node in self.order[: self.order.index(changed)]} | {changed: value}
        with torch.no_grad():
            found: Tensor = self.run(initial_env=start)
        return found


@dataclass(slots=True)
class _Pair:
    """The values of one image in both graphs, and how an op of the simulated one answers to exact inputs."""

    exact: Mapping[str, Any]  # of the float graph, by name
    quantized: Mapping[fx.Node, Any]  # of the simulated graph
    constants: frozenset[fx.Node]
    found: dict[fx.Node, Any] = field(default_factory=dict)

    def resolve(self, node: fx.Node) -> Any:
        """The value of a node if all ops of the float graph gave their exact answers."""
        if node.name in self.exact and node.op != "get_attr":
            return self.exact[node.name]
        if node in self.constants:
            return self.quantized[node]
        if CODES in str(node.target):  # the op before it answers for this rounding
            return self.resolve(node.args[0])  # type: ignore[arg-type]
        if node not in self.found:
            self.found[node] = self.alone(node)
        return self.found[node]

    def alone(self, node: fx.Node) -> Any:
        """An op of the simulated graph on exact inputs."""
        if node.op == "placeholder":
            return self.exact[node.name]
        args, kwargs = fx.map_arg((node.args, node.kwargs), self.resolve)
        with torch.no_grad():
            return node.target(*args, **kwargs)  # type: ignore[operator]


def layer_errors(
    float_graph: fx.GraphModule, simulated: fx.GraphModule, images: Iterable[Tensor]
) -> tuple[LayerError, ...]:
    """What every op adds, the most harmful to the scores first; ops without an error of their own are left out.

    Args:
        float_graph: the lowered graph that was quantized.
        simulated: its quantized form, in which the same ops have the same names.
        images: each (1, C, H, W); few are enough.
    """
    names = {node.name: node for node in float_graph.graph.nodes if node.op in ("call_function", "placeholder")}
    shared = [node for node in simulated.graph.nodes if node.name in names and node.op == names[node.name].op]
    constants = _constants(simulated.graph)
    sums = {node.name: _Sums() for node in shared}
    spread: list[Tensor] = []
    exact_run, quantized_run = Values(float_graph), Values(simulated)
    for image in images:
        exact = exact_run.values(image)
        pair = _Pair({node.name: value for node, value in exact.items()}, quantized_run.values(image), constants)
        scores = exact[float_graph.graph.output_node()]
        spread.append(scores)
        for node in shared:
            _add(sums[node.name], node, pair, exact_run, exact, names[node.name], scores)
    deviation = max(float(torch.cat(spread).std()), 1e-12) if spread else 1.0
    found = [
        _error(names[name], one, deviation, order) for order, (name, one) in enumerate(sums.items()) if one.own > 0
    ]
    return tuple(sorted(found, key=lambda one: -one.scores))


def _constants(graph: fx.Graph) -> frozenset[fx.Node]:
    """Nodes that do not depend on the image."""
    found: set[fx.Node] = set()
    for node in graph.nodes:
        if node.op == "get_attr" or (node.op == "call_function" and all(n in found for n in node.all_input_nodes)):
            found.add(node)
    return frozenset(found)


def _add(
    sums: _Sums, node: fx.Node, pair: _Pair, run: Values, exact: Mapping[fx.Node, Any], twin: fx.Node, scores: Tensor
) -> None:
    """Take in one op for one image."""
    wanted = pair.exact[node.name]
    if not isinstance(wanted, Tensor) or not wanted.is_floating_point():
        return
    before = pair.alone(node)
    after = _through_codes(node, before)
    held = _codes(node)
    signal = wanted.double()
    sums.signal += float(signal.square().sum())
    sums.weights += float((before - signal).square().sum())
    own = float((after - signal).square().sum())
    sums.own += own
    sums.total += float((pair.quantized[held[-1] if held else node] - signal).square().sum())
    sums.peak = max(sums.peak, float(signal.abs().max()))
    sums.count += signal.numel()
    if own > 0:
        sums.scores += float((run.scores(exact, twin, after) - scores).double().square().mean())


def _codes(node: fx.Node) -> Sequence[fx.Node]:
    """The two ops that put the output of a node on codes and take it off; none if it stays float."""
    for user in node.users:
        if CODES in str(user.target) and "dequantize" not in str(user.target):
            return [user, *user.users][:2]
    return []


def _through_codes(node: fx.Node, value: Tensor) -> Tensor:
    for op in _codes(node):
        value = op.target(value, *op.args[1:])  # type: ignore[operator]
    return value


def _error(node: fx.Node, sums: _Sums, deviation: float, order: int) -> LayerError:
    images = max(sums.count // max(math.prod(node.meta["shape"]), 1), 1)
    rms = math.sqrt(sums.signal / max(sums.count, 1))
    return LayerError(
        name=node.name,
        layer=node.meta.get("layer") or ("image" if node.op == "placeholder" else ""),
        op="input" if node.op == "placeholder" else str(node.target).removeprefix("aten.").partition(".")[0],
        own_db=decibel(sums.signal, sums.own),
        total_db=decibel(sums.signal, sums.total),
        scores=math.sqrt(sums.scores / images) / deviation,
        reach=sums.peak / max(rms, 1e-12),
        cause="weights" if sums.weights > sums.own / 2 else "codes",
        order=order,
    )


def decibel(signal: float, noise: float) -> float:
    """Signal over noise, both powers; at most `MOST_DB`."""
    if noise <= 0 or signal <= 0:
        return MOST_DB if noise <= 0 else 0.0
    return min(10 * math.log10(signal / noise), MOST_DB)
