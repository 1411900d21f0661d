"""Round weights so that the answers of a layer change least, not the weights.

Rounding each weight to the nearest code ignores that inputs are correlated: an error in one weight
can be paid back by its neighbours. Column by column, the error made so far is spread over the
columns not rounded yet, as the inputs' second moments prescribe (Frantar et al., "GPTQ", 2023, after
Hassibi & Stork's Optimal Brain Surgeon, 1993). What is left of the mean error goes into the bias
(Nagel et al., "Data-Free Quantization", 2019, section 4.2). Closed form, no labels, no training.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from shrink.graph.convolution import convolution
from shrink.graph.edit import constant
from shrink.quantize.codes import WEIGHT_LIMIT, weight_scales
from shrink.quantize.ranges import share_out

aten = torch.ops.aten
WEIGHTED = (aten.conv2d.default, aten.linear.default)
ROWS_PER_IMAGE = 256  # positions of one image that enter the moments; neighbours say nearly the same
LARGEST = 4608  # inputs per output: above it the (K, K) moments cost more than they can bring
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

    second: Tensor  # (G, K, K), of rows weighted to be worth about the same each
    first: Tensor  # (G, K)
    rows: int = 0


def moments(
    graph_module: fx.GraphModule, names: Collection[str], images: Iterable[Tensor], *, workers: int = 1
) -> dict[str, Moments]:
    """Run the float graph on the images and gather the moments of the named layers' inputs.

    Memory is one (G, K, K) matrix per layer and does not grow with the number of images.
    """
    found: dict[str, Moments] = {}
    lock = threading.Lock()
    share_out(images, [_Gather(graph_module, names, found, lock).run_all for _ in range(workers)])
    return found


def round_layers(
    graph_module: fx.GraphModule, gathered: Mapping[str, Moments], *, workers: int = 1
) -> dict[str, Rounded]:
    """Codes for every layer whose inputs were gathered."""
    nodes = {node.name: node for node in graph_module.graph.nodes}
    with ThreadPoolExecutor(workers) as pool:
        weights = {name: constant(graph_module, nodes[name].args[1]) for name in gathered}
        rounded = pool.map(lambda name: round_layer(weights[name], gathered[name]), gathered)
        return dict(zip(gathered, rounded, strict=True))


def round_layer(weight: Tensor, inputs: Moments) -> Rounded:
    """Codes of one weight (O, ...) with symmetric scales per output channel."""
    scales = weight_scales(weight)
    groups, width = inputs.first.shape
    wanted = weight.reshape(groups, -1, width).to(torch.float32)  # (G, O / G, K)
    steps = scales.reshape(groups, -1)
    with torch.no_grad():
        codes = _round_columns(wanted, steps, _shrunk(inputs))
    mean = inputs.first / max(inputs.rows, 1)
    bias = torch.einsum("gok,gk->go", wanted - codes * steps[..., None], mean)
    return Rounded(codes.to(torch.int8).reshape(weight.shape), scales, bias.reshape(-1))


def _shrunk(inputs: Moments) -> Tensor:
    """Second moments pulled towards a multiple of identity, the more the fewer rows there are per unknown."""
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
            codes[:, :, i] = (left[:, :, i] / steps).round().clamp(-WEIGHT_LIMIT, WEIGHT_LIMIT)
            error = (left[:, :, i] - codes[:, :, i] * steps) / factor[:, None, i, i]
            left[:, :, i + 1 : stop] -= error[..., None] * factor[:, None, i, i + 1 : stop]
            errors[:, :, i - start] = error
        left[:, :, stop:] -= errors @ factor[:, start:stop, stop:]
    back = order.argsort(dim=1)
    return torch.take_along_dim(codes, back[:, None, :], 2)


class _Gather(fx.Interpreter):
    def __init__(
        self, graph_module: fx.GraphModule, names: Collection[str], found: dict[str, Moments], lock: threading.Lock
    ) -> None:
        super().__init__(graph_module)
        self.names, self.found, self.lock = frozenset(names), found, lock

    def run_all(self, images: Iterable[Tensor]) -> None:
        with torch.no_grad():
            for image in images:
                self.run(image)

    def run_node(self, n: fx.Node) -> object:
        if n.name in self.names:
            args, _ = self.fetch_args_kwargs_from_env(n)
            rows = input_rows(n, args)
            if rows is not None:
                self._add(n.name, rows)
        return super().run_node(n)

    def _add(self, name: str, rows: Tensor) -> None:
        first = rows.sum(0)
        power = rows.square().sum((1, 2), keepdim=True)
        even = rows / (power + power.mean() + 1e-12).sqrt()  # one token's huge activation must not decide for all
        second = torch.einsum("rgk,rgl->gkl", even, even)
        with self.lock:
            if name in self.found:
                self.found[name].second += second
                self.found[name].first += first
            else:
                self.found[name] = Moments(second, first)
            self.found[name].rows += len(rows)


def input_rows(node: fx.Node, args: Sequence[Any]) -> Tensor | None:
    """Inputs of a layer as rows (R, G, K) that its weight (G, O / G, K) multiplies; None if K is too large.

    Args:
        node: a convolution or linear.
        args: the values of its arguments.
    """
    x, weight = args[0], args[1]
    if weight[0].numel() > LARGEST:
        return None
    rows: Tensor = x.reshape(-1, 1, x.shape[-1]) if node.target is aten.linear.default else _patches(node, x, weight)
    step = max(1, len(rows) // ROWS_PER_IMAGE)
    return rows[:: step | 1]  # an odd step does not keep to the same column of an even-sized map


def _patches(node: fx.Node, x: Tensor, weight: Tensor) -> Tensor:
    conv = convolution(node)
    columns = functional.unfold(x, weight.shape[2:], conv.dilation, conv.padding, conv.stride)  # (1, C kh kw, L)
    return columns[0].T.reshape(columns.shape[2], conv.groups, -1)
