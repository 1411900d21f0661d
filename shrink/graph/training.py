"""A graph whose weights can be trained, on many images at once, and how fast they learn."""

from __future__ import annotations

import math

from torch import Tensor, fx, nn

from shrink.graph.batch import batched, batched_parts
from shrink.graph.edit import copied, telling


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

    def telling(self, names: tuple[str, ...]) -> Network:
        """Another network over the same weights that gives the values of these nodes, too."""
        return Network(telling(self.graph_module, names), own=False)

    def finished(self) -> fx.GraphModule:
        """The graph with the weights as they are now, frozen: this very one."""
        return self.graph_module.requires_grad_(False)


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


def rate_at(step: int, steps: int, warmup: float) -> float:
    """Share of the highest learning rate: a rise in a straight line, then a cosine to zero.

    >>> rate_at(0, 100, 0.1), round(rate_at(9, 100, 0.1), 2), round(rate_at(99, 100, 0.1), 2)
    (0.1, 0.98, 0.0)
    """
    warm = max(1, round(warmup * steps))
    return min((step + 1) / warm, 0.5 + 0.5 * math.cos(math.pi * step / steps))
