"""Quantization-aware training: the graph of a plan in which rounding lets gradients through and scales are learned.

What goes forward is what the runtime computes: weights and activations on the codes of the plan. What goes back ignores
the rounding (straight-through) and tells each scale how it should be (Esser et al., "Learned step size quantization",
ICLR 2020). A scale is trained as the logarithm of its change, so that it stays positive and a step changes large and
small scales by as much; zero points stay where calibration put them. Biases are as in the plan: float here, 32 bits in
the file, which is finer than any effect.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, fx, nn

from shrink.graph.edit import add_constant, call, constant, copied
from shrink.graph.training import Network, frozen, make_parameters
from shrink.quantize.apply import nearest
from shrink.quantize.codes import HIGH, LOW, WEIGHT_LIMIT, nearest_codes
from shrink.quantize.plan import Plan
from shrink.quantize.ranges import Range
from shrink.quantize.rounding import WEIGHTED, Rounded
from shrink.quantize.simulate import round_dynamic
from shrink.quantize.state import State
from shrink.targets import Target

FREEDOM = 0.7  # most that the logarithm of a scale may change: half to twice what calibration found


class Learner:
    """A state while it is trained.

    Attributes:
        network: (N, C, H, W) -> (N, classes) on codes; its parameters are the weights, and the logarithms of the
            changes of all scales.
    """

    def __init__(self, state: State, target: Target) -> None:
        self._state, self._plan = state, state.plan(target)
        graph, self._layers = _baked(state.graph, self._plan)
        self._scales = {name: rounded.scales for name, rounded in self._layers.items()}
        self._leaders = _leaders(self._plan)
        make_parameters(graph)
        self._float = copied(graph)  # shares the parameters, and stays without rounding
        _insert(graph, self._plan, self._scales, self._leaders)
        self.network = Network(graph, own=False)

    def state(self) -> State:
        """The trained state, frozen: its graph, its codes and scales are those the network computes with."""
        graph = frozen(copied(self._float))
        nodes = {node.name: node for node in graph.graph.nodes}
        rounded = {}
        for name in self._layers:
            weight = constant(graph, nodes[name].args[1]).clone()
            scales = self._scales[name] * self._change(_weight_key(name))
            rounded[name] = Rounded(nearest_codes(weight, scales).to(torch.int8), scales, torch.zeros(len(scales)))
        ranges = dict(self._state.ranges)
        for name, codes in self._plan.codes.items():
            if name in self._leaders:
                scale = codes.scale * float(self._change(_value_key(self._leaders[name])))
                low, high = ((end - codes.zero_point) * scale for end in (LOW, HIGH))
                ranges[name] = replace(ranges.get(name, Range(low, high)), low=low, high=high)
        return replace(self._state, graph=graph, ranges=ranges, rounded=rounded)

    def _change(self, key: str) -> Tensor:
        return _change(self.network.graph_module.get_parameter(key).detach()).cpu()


def _baked(graph_module: fx.GraphModule, plan: Plan) -> tuple[fx.GraphModule, dict[str, Rounded]]:
    """A copy whose weights are those that the plan's codes stand for, each layer with its own, biases corrected."""
    result = copied(graph_module)
    layers: dict[str, Rounded] = {}
    for node in list(result.graph.nodes):
        if node.name in plan.scheme.static | plan.scheme.dynamic.keys() and node.target in WEIGHTED:
            rounded = layers[node.name] = plan.rounded.get(node.name) or nearest(result, node)
            real = rounded.codes * rounded.scales.reshape(-1, *[1] * (rounded.codes.dim() - 1))
            bias = constant(result, node.args[2]) if len(node.args) > 2 and node.args[2] is not None else 0.0
            with result.graph.inserting_before(node):
                parts = [
                    add_constant(result, f"{node.name}_{word}", value)
                    for word, value in (("weight", real), ("bias", bias + rounded.bias))
                ]
            node.args = (node.args[0], *parts, *node.args[3:])
    result.graph.eliminate_dead_code()
    result.recompile()
    return result, layers


def _leaders(plan: Plan) -> dict[str, str]:
    """value -> the one whose scale it shares; without those whose range is known beforehand."""
    together = plan.scheme.together()
    groups = {name: together.get(name, {name}) for name in plan.codes}
    return {name: min(group) for name, group in groups.items() if not group & plan.scheme.fixed.keys()}


def _insert(graph_module: fx.GraphModule, plan: Plan, scales: Mapping[str, Tensor], leaders: Mapping[str, str]) -> None:
    """Round every value and weight of the plan, in place."""
    graph = graph_module.graph
    nodes = {node.name: node for node in graph.nodes}
    for name in dict.fromkeys(leaders.values()):
        _parameter(graph_module, _value_key(name), torch.zeros(1))
    for name, codes in plan.codes.items():
        node = nodes[name]
        readers = [user for user in node.users if name in plan.scheme.static or user.name in plan.scheme.static]
        with graph.inserting_after(node):
            rounded = graph.call_function(round_value, (node, None, codes.scale, codes.zero_point))
        if name in leaders:
            with graph.inserting_before(rounded):
                rounded.update_arg(1, graph.get_attr(_value_key(leaders[name])))
        for user in readers:
            user.replace_input_with(node, rounded)
    for name, steps in scales.items():
        node = nodes[name]
        _parameter(graph_module, _weight_key(name), torch.zeros(len(steps)))
        with graph.inserting_before(node):
            base, change = add_constant(graph_module, f"{name}_steps", steps), graph.get_attr(_weight_key(name))
            node.update_arg(1, graph.call_function(round_weight, (node.args[1], base, change)))
        if name in plan.scheme.dynamic:
            rows = name in plan.rows and node.target is torch.ops.aten.linear.default
            node.update_arg(0, call(node, _round_dynamic, node.args[0], rows))
    graph.lint()
    graph_module.recompile()


def _parameter(graph_module: fx.GraphModule, name: str, value: Tensor) -> None:
    graph_module.register_parameter(name, nn.Parameter(value))


def _weight_key(name: str) -> str:
    return f"{name}_weight_scale_change"


def _value_key(name: str) -> str:
    return f"{name}_scale_change"


def _change(logarithm: Tensor) -> Tensor:
    return logarithm.clamp(-FREEDOM, FREEDOM).exp()


def round_value(x: Tensor, change: Tensor | None, scale: float, zero_point: int) -> Tensor:
    """An activation on its codes.

    Args:
        change: (1,), logarithm of the change of the scale; None: it is not trained.
    """
    step = torch.full((1,), scale, device=x.device) if change is None else scale * _change(change)
    given: Tensor = _Rounding.apply(x, step, LOW - zero_point, HIGH - zero_point)  # type: ignore[no-untyped-call]
    return given


def round_weight(weight: Tensor, scales: Tensor, change: Tensor) -> Tensor:
    """A weight (O, ...) on symmetric codes of a scale (O,) per output channel."""
    steps = (scales * _change(change)).reshape(-1, *[1] * (weight.dim() - 1))
    given: Tensor = _Rounding.apply(weight, steps, -WEIGHT_LIMIT, WEIGHT_LIMIT)  # type: ignore[no-untyped-call]
    return given


def _round_dynamic(x: Tensor, rows: bool) -> Tensor:
    return x + (round_dynamic(x, rows) - x).detach()


class _Rounding(torch.autograd.Function):
    """x to the nearest multiple of a step from `low` to `high` times it; x (...), step of one element or (O, 1, ...).

    Esser et al., equations 1 to 3: within the range the gradient goes through, beyond it none does; a step is told
    the difference of code and x / step within the range, and the end of the range beyond it.
    """

    @staticmethod
    def forward(x: Tensor, step: Tensor, low: int, high: int) -> Tensor:
        return (x / step).round_().clamp_(low, high).mul_(step)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, int, int], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[:2], output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        x, step, rounded = ctx.saved_tensors
        through = grad * ((x - rounded).abs_() <= WITHIN * step)
        if not ctx.needs_input_grad[1]:
            return through, None, None, None
        if step.numel() == 1:
            told = torch.dot(grad.flatten(), rounded.flatten()) - torch.dot(through.flatten(), x.flatten())
            return through, (told / step).reshape(step.shape), None, None
        rest = tuple(range(1, x.dim()))
        return through, (grad * rounded - through * x).sum(rest, keepdim=True) / step, None, None

    @staticmethod
    def vmap(
        info: Any, in_dims: Iterable[int | None], x: Tensor, step: Tensor, low: int, high: int
    ) -> tuple[Tensor, int | None]:
        """One step for all images, so that they are rounded as one tensor."""
        given: Tensor = _Rounding.apply(x, step, low, high)  # type: ignore[no-untyped-call]
        return given, next(iter(in_dims))


WITHIN = 0.50001  # steps between a value and its code, unless it was beyond the range
