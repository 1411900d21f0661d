"""Small graphs whose int8 regions are known by hand, and what the tests ask of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn
from torch.fx.experimental.proxy_tensor import make_fx

from shrink import targets
from shrink.graph.clean import fold_constants
from shrink.graph.lower import lower
from shrink.graph.shapes import annotate_shapes
from shrink.quantize.codes import Affine
from shrink.quantize.plan import Plan, make_plan
from shrink.quantize.ranges import observe
from shrink.quantize.scheme import Scheme, plan_scheme

SHAPE = (1, 4, 8, 8)
TOKENS = (1, 6, 8)
TFLITE, ONNX = targets.load("tflite-int8"), targets.load("onnx-int8")


def graph_of(function: Callable[[Tensor], Any], shape: tuple[int, ...] = SHAPE, *rules: str) -> fx.GraphModule:
    """The graph of a function, lowered by the rules."""
    torch.manual_seed(0)
    with torch.no_grad():
        graph_module = make_fx(lambda x: function(x), pre_dispatch=True)(torch.zeros(shape))
    fold_constants(graph_module)
    annotate_shapes(graph_module, torch.zeros(shape))
    lower(graph_module, rules)
    return graph_module


def images(count: int, shape: tuple[int, ...] = SHAPE, seed: int = 3) -> list[Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=rng) for _ in range(count)]


def scheme_of(graph_module: fx.GraphModule, target: targets.Target, border: str = "dynamic") -> Scheme:
    return plan_scheme(graph_module.graph, target, border=border)


def plan_of(graph_module: fx.GraphModule, target: targets.Target, border: str, calibration: list[Tensor]) -> Plan:
    scheme = scheme_of(graph_module, target, border)
    names = {*scheme.values, *scheme.dynamic.values()}
    return make_plan(scheme, observe(graph_module, names, calibration), every_row=target.dynamic_rows)


def run(graph_module: fx.GraphModule, image: Tensor) -> Tensor:
    with torch.no_grad():
        answer: Tensor = graph_module(image)
    return answer


def values_of(graph_module: fx.GraphModule, image: Tensor) -> Mapping[str, Tensor]:
    """Every value of the graph, by the name of its node."""
    found: dict[str, Tensor] = {}

    class Keep(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            found[n.name] = super().run_node(n)
            return found[n.name]

    with torch.no_grad():
        Keep(graph_module).run(image)
    return found


def rounded(x: NDArray[Any], codes: Affine) -> NDArray[np.float64]:
    """Quantize and dequantize in double precision: nearest code, ties to even, codes of -128..127."""
    steps = np.rint(x.astype(np.float64) / codes.scale) + codes.zero_point
    return (np.clip(steps, -128, 127) - codes.zero_point) * codes.scale


def rounded_rows(weight: NDArray[Any]) -> NDArray[np.float64]:
    """A weight (O, ...) on 255 symmetric steps per output."""
    flat = weight.astype(np.float64).reshape(len(weight), -1)
    step = np.abs(flat).max(1, keepdims=True) / 127
    return (np.clip(np.rint(flat / step), -127, 127) * step).reshape(weight.shape)


class Residual(nn.Module):
    """conv-relu, conv, add, relu, conv, mean, linear."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.stem, self.body = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.last, self.head = nn.Conv2d(4, 8, 1), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = torch.relu(x + self.body(x))
        return self.head(self.last(x).mean((2, 3)))


class Block(nn.Module):
    """One transformer block on tokens (1, N, C), and a head on the first of them, normalized."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(8)
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.up, self.down, self.head = nn.Linear(8, 16), nn.Linear(16, 8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        x = x + self.out(torch.nn.functional.scaled_dot_product_attention(q, k, v))
        x = x + self.down(torch.nn.functional.gelu(self.up(self.norm2(x))))
        return self.head(self.norm2(x)[:, 0])
