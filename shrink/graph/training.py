"""A graph whose weights can be trained, on many images at once, and how fast they learn."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn

from shrink.graph.batch import batched, batched_parts
from shrink.graph.edit import copied, is_constant, telling


class Network(nn.Module):
    """A copy of a captured graph with weights of its own, (N, C, H, W) -> (N, classes).

    What is so in a captured graph stays so in training: batch norms are folded into the layers before them, so no
    statistic of a batch enters; dropout and stochastic depth are gone, so the same image gives the same scores.

    Args:
        own: copy the graph and make weights of its constants; or else it has parameters already, and they are trained.
    """

    def __init__(self, graph_module: fx.GraphModule, *, own: bool = True) -> None:
        super().__init__()
        self.graph_module = copied(graph_module) if own else graph_module
        if own:
            make_parameters(self.graph_module)
        scores_only = isinstance(self.graph_module.graph.output_node().args[0], fx.Node)
        self._run = (batched if scores_only else batched_parts)(self.graph_module)

    def forward(self, images: Tensor) -> Tensor | list[Tensor]:
        """Scores of normalized images; of a `telling` network also the values, (N, ...) each."""
        return self._run(images)

    def on(self, device: torch.device) -> Network:
        """This very network there, laid out as is fast."""
        if device.type == "cpu":
            channels_last(self.graph_module)
        return self.to(device)

    def telling(self, names: tuple[str, ...]) -> Network:
        """Another network over the same weights that gives the values of these nodes, too."""
        return Network(telling(self.graph_module, names), own=False)

    def finished(self) -> fx.GraphModule:
        """The graph with the weights as they are now, frozen: this very one."""
        return frozen(self.graph_module)


def make_parameters(graph_module: fx.GraphModule) -> list[nn.Parameter]:
    """Let weights be trained, copies of them: another graph may share them. Single numbers stay as they are."""
    found = []
    for target in dict.fromkeys(str(node.target) for node in graph_module.graph.nodes if node.op == "get_attr"):
        owner, _, leaf = target.rpartition(".")
        module = graph_module.get_submodule(owner)
        value = getattr(module, leaf)
        if value.is_floating_point() and value.numel() > 1:
            delattr(module, leaf)
            module.register_parameter(leaf, nn.Parameter(value.detach().clone()))
            found.append(getattr(module, leaf))
    return found


def channels_last(graph_module: fx.GraphModule) -> None:
    """Lay out the weights of convolutions so that the CPU computes with the channels of a place side by side.

    On x86-64 a step of training takes 0.75 to 0.8 of the time for CNNs with depthwise convolutions, 0.91 for ResNet-18,
    the same for ConvNeXt and ViT.
    """
    weights = (node.args[1] for node in graph_module.graph.nodes if node.target is torch.ops.aten.conv2d.default)
    trained = dict(graph_module.named_parameters())
    for name in trained.keys() & {str(node.target) for node in _made_of(weights)}:
        if trained[name].dim() == 4:
            trained[name].data = trained[name].data.contiguous(memory_format=torch.channels_last)


def _made_of(values: Iterable[Any]) -> Iterator[fx.Node]:
    """The constants that values are computed from: weights may be rounded on their way."""
    waiting, seen = list(values), set()
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if is_constant(node):
            yield node
        else:
            waiting += node.all_input_nodes


def frozen(graph_module: fx.GraphModule) -> fx.GraphModule:
    """The very graph, its weights laid out as usual and trained no more."""
    for weight in graph_module.parameters():
        weight.data = weight.data.contiguous()
    return graph_module.requires_grad_(False)


def rate_at(step: int, steps: int, warmup: float) -> float:
    """Share of the highest learning rate: a rise in a straight line, then a cosine to zero.

    >>> rate_at(0, 100, 0.1), round(rate_at(9, 100, 0.1), 2), round(rate_at(99, 100, 0.1), 2)
    (0.1, 0.98, 0.0)
    """
    warm = max(1, round(warmup * steps))
    return min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / steps))
