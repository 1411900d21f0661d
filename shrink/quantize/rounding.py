"""Round weights so that the answers of a layer change least, not the weights.

Rounding each weight to the nearest code ignores that inputs are correlated: an error in one weight
can be paid back by its neighbours. Column by column, the error made so far is spread over the
columns not rounded yet, as the inputs' second moments prescribe (Frantar et al., "GPTQ", 2023, after
Hassibi & Stork's Optimal Brain Surgeon, 1993). What is left of the mean error goes into the bias
(Nagel et al., "Data-Free Quantization", 2019, section 4.2). Closed form, no labels, no training.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from shrink.graph.convolution import convolution, patches
from shrink.graph.edit import constant, is_constant
from shrink.quantize.codes import nearest_codes, weight_scales
from shrink.quantize.ranges import Onlooker

aten = torch.ops.aten
WEIGHTED = (aten.conv2d.default, aten.linear.default)
ROWS_PER_IMAGE = 256  # positions of one image that enter the moments; neighbours say nearly the same
LARGEST = 4608  # inputs per output: above it the (K, K) moments cost more than they can bring
MOST_NUMBERS = 2**26  # in the moments of the layers taken together, 256 MiB
BLOCK = 64  # columns updated one by one; the rest of the matrix follows once per block


@dataclass(frozen=True, slots=True)
class Rounded:
    """Codes of one layer's weight.

    Attributes:
        codes: int8, the shape of the weight.
        scales: (O,) float32.
        bias: (O,) to add to the layer's bias.
    """

    codes: Tensor
    scales: Tensor
    bias: Tensor


@dataclass(slots=True)
class Moments:
    """Sums over rows of the inputs of one layer, in G groups of K inputs."""

    second: Tensor | None  # (G, K, K), of rows weighted to be worth about the same each; None: not wanted
    first: Tensor  # (G, K)
    rows: int = 0


def round_layers(
    graph_module: fx.GraphModule,
    names: Collection[str],
    images: Sequence[Tensor],
    *,
    by_effect: bool = True,
    workers: int = 1,
) -> dict[str, Rounded]:
    """Codes for every named layer whose inputs are few enough, from what it reads in the float graph.

    The layers are taken in shares, neighbours together, each share over all images in one thread: the
    result does not depend on `workers`, and only the moments of a few layers are held at a time.

    Args:
        graph_module: float graph.
        names: of nodes; those that are convolutions and linears are rounded.
        images: inputs of the graph; a few dozen do.
        by_effect: or else to the nearest code, so that only the bias is corrected.
        workers: shares worked on side by side.
    """
    layers = [node for node in graph_module.graph.nodes if node.name in names and _can_be_rounded(graph_module, node)]

    def round_share(share: Sequence[fx.Node]) -> dict[str, Rounded]:
        gather = _Gather(graph_module, share, second=by_effect)
        gather.run_all(images)
        weights = {node.name: constant(graph_module, node.args[1]) for node in share}
        return {name: round_layer(weight, gather.found.pop(name)) for name, weight in weights.items()}

    with ThreadPoolExecutor(workers) as pool:
        shares = pool.map(round_share, _shares(graph_module, layers, workers))
        return {name: rounded for share in shares for name, rounded in share.items()}


def _shares(graph_module: fx.GraphModule, layers: Sequence[fx.Node], workers: int) -> list[list[fx.Node]]:
    """Layers in order, cut where the moments of a share would pass `MOST_NUMBERS`, or that of a worker's even part."""
    sizes = {node: _moment_count(graph_module, node) for node in layers}
    most = min(MOST_NUMBERS, -(-sum(sizes.values()) // workers))
    found: list[list[fx.Node]] = []
    held = most
    for node in layers:
        if held + sizes[node] > most:
            found.append([])
            held = 0
        found[-1].append(node)
        held += sizes[node]
    return found


def _can_be_rounded(graph_module: fx.GraphModule, node: fx.Node) -> bool:
    return node.target in WEIGHTED and is_constant(node.args[1]) and _width(graph_module, node) <= LARGEST


def _width(graph_module: fx.GraphModule, node: fx.Node) -> int:
    return constant(graph_module, node.args[1])[0].numel()


def _moment_count(graph_module: fx.GraphModule, node: fx.Node) -> int:
    groups = convolution(node).groups if node.target is aten.conv2d.default else 1
    return groups * _width(graph_module, node) ** 2


def round_layer(weight: Tensor, inputs: Moments) -> Rounded:
    """Codes of one weight (O, ...) with symmetric scales per output channel, and what they need added to the bias."""
    scales = weight_scales(weight)
    groups, width = inputs.first.shape
    wanted = weight.reshape(groups, -1, width).to(torch.float32)  # (G, O / G, K)
    steps = scales.reshape(groups, -1)
    with torch.no_grad():
        codes = (
            nearest_codes(wanted, steps) if inputs.second is None else _round_columns(wanted, steps, _shrunk(inputs))
        )
    mean = inputs.first / max(inputs.rows, 1)
    bias = torch.einsum("gok,gk->go", wanted - codes * steps[..., None], mean)
    return Rounded(codes.to(torch.int8).reshape(weight.shape), scales, bias.reshape(-1))


def _shrunk(inputs: Moments) -> Tensor:
    """Second moments pulled towards a multiple of identity, the more the fewer rows there are per unknown."""
    assert inputs.second is not None
    mean = inputs.second / inputs.rows
    width = mean.shape[1]
    share = width / (width + inputs.rows)
    level = mean.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-12)
    return (1 - share) * mean + share * level[:, None, None] * torch.eye(width)


def _round_columns(wanted: Tensor, steps: Tensor, second: Tensor) -> Tensor:
    """Codes (G, O, K) of weights (G, O, K), most active inputs first."""
    diagonal = second.diagonal(dim1=1, dim2=2)
    order = diagonal.argsort(dim=1, descending=True)
    ordered = torch.take_along_dim(torch.take_along_dim(second, order[:, :, None], 1), order[:, None, :], 2)
    left = torch.take_along_dim(wanted, order[:, None, :], 2).clone()
    # upper factor U of the inverse: the optimal update of the later columns is error / U_ii * U_i,later
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(ordered))
    factor = torch.linalg.cholesky(inverse, upper=True)
    codes = torch.empty_like(left)
    for start in range(0, left.shape[2], BLOCK):
        stop = min(start + BLOCK, left.shape[2])
        errors = torch.empty_like(left[:, :, start:stop])
        for i in range(start, stop):
            codes[:, :, i] = nearest_codes(left[:, :, i], steps)
            error = (left[:, :, i] - codes[:, :, i] * steps) / factor[:, None, i, i]
            left[:, :, i + 1 : stop] -= error[..., None] * factor[:, None, i, i + 1 : stop]
            errors[:, :, i - start] = error
        left[:, :, stop:] -= errors @ factor[:, start:stop, stop:]
    back = order.argsort(dim=1)
    return torch.take_along_dim(codes, back[:, None, :], 2)


class _Gather(Onlooker):
    """Runs the graph as far as the last layer of a share, and keeps the moments of what its layers read."""

    def __init__(self, graph_module: fx.GraphModule, share: Sequence[fx.Node], *, second: bool) -> None:
        super().__init__(graph_module)
        self.second = second
        self.share, self.last = frozenset(share), share[-1]
        self.found: dict[str, Moments] = {}
        self.enough = False  # of this image

    def run(self, *args: Any, **kwargs: Any) -> Any:
        self.enough = False
        return super().run(*args, **kwargs)

    def run_node(self, n: fx.Node) -> object:
        if n in self.share:
            args, _ = self.fetch_args_kwargs_from_env(n)
            self._add(n.name, input_rows(n, args))
        self.enough |= n is self.last
        return None if self.enough else super().run_node(n)

    def _add(self, name: str, rows: Tensor) -> None:
        first, second = rows.sum(0), _second(rows) if self.second else None
        found = self.found.setdefault(name, Moments(None, torch.zeros_like(first)))
        found.first += first
        found.rows += len(rows)
        if second is not None:
            found.second = second if found.second is None else found.second.add_(second)


def _second(rows: Tensor) -> Tensor:
    """(G, K, K) of rows (R, G, K): one token's huge activation must not decide for all."""
    power = rows.square().sum((1, 2), keepdim=True)
    even = rows / (power + power.mean() + 1e-12).sqrt()
    return torch.einsum("rgk,rgl->gkl", even, even)


def input_rows(node: fx.Node, args: Sequence[Any]) -> Tensor:
    """Inputs of a layer as rows (R, G, K) that its weight (G, O / G, K) multiplies.

    Args:
        node: a convolution or linear.
        args: the values of its arguments.
    """
    x: Tensor = args[0]
    if node.target is aten.linear.default:
        rows = x.reshape(-1, 1, x.shape[-1])
    else:
        places = patches(node, x)[0]
        rows = places.reshape(len(places), convolution(node).groups, -1)
    step = max(1, len(rows) // ROWS_PER_IMAGE)
    return rows[:: step | 1]  # an odd step does not keep to the same column of an even-sized map
