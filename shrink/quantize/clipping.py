"""Ranges that leave out the rarest values, so that all others are rounded finer.

The error of 8-bit codes over a range is a sum of two: values inside are off by up to half a step,
values outside by their distance to the end. The range that makes the sum least is searched on a
histogram, with errors raised to a power: 2 is the mean square (Sung et al., "Resiliency of Deep
Neural Networks under Quantization", 2015); a higher one minds the few large values more.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, fx

from shrink.quantize.ranges import Onlooker, Range, share_out

BINS = 2048
CODES = 255  # steps between the lowest and the highest code
KEPT = torch.logspace(-5, 0, 151, base=2, dtype=torch.float64)  # shares of an end that are tried
SWEEPS = 3  # over the two ends in turn


def histograms(
    graph_module: fx.GraphModule, ranges: Mapping[str, Range], images: Iterable[Tensor], *, workers: int = 1
) -> dict[str, Tensor]:
    """Count the values of nodes in `BINS` equal bins from the lowest to the highest of their range.

    Args:
        graph_module: float graph.
        ranges: of the values wanted, by name; what lies outside is not counted.
        images: inputs of the graph.
        workers: images run side by side; the result, int64 of shape (BINS,), does not depend on it.
    """
    counters = [_Count(graph_module, ranges) for _ in range(workers)]
    share_out(images, [counter.run_all for counter in counters])
    total: dict[str, Tensor] = {}
    for name, counts in (item for counter in counters for item in counter.found.items()):
        total[name] = total[name] + counts if name in total else counts
    return total


class _Count(Onlooker):
    def __init__(self, graph_module: fx.GraphModule, ranges: Mapping[str, Range]) -> None:
        super().__init__(graph_module)
        self.ranges, self.found = ranges, dict[str, Tensor]()

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        found = self.ranges.get(n.name)
        if found is not None and isinstance(value, Tensor) and found.low < found.high:
            counts = torch.histc(value.to(torch.float32), BINS, found.low, found.high).to(torch.int64)
            self.found[n.name] = self.found.get(n.name, 0) + counts
        return value


def clipped(ranges: Mapping[str, Range], counts: Mapping[str, Tensor], power: float) -> dict[str, Range]:
    """Every range that has a histogram, with the ends that make the error least; the others as they are."""
    return {name: clip(found, counts[name], power) if name in counts else found for name, found in ranges.items()}


def clip(found: Range, counts: Tensor, power: float) -> Range:
    """The part of a range, holding 0, that makes the sum of |error|^power least.

    Args:
        found: what the histogram covers.
        counts: (BINS,) of values.
        power: > 0, 2 for the mean square error.
    """
    low, high = min(found.low, 0.0), max(found.high, 0.0)
    values = _centres(found)
    for _ in range(SWEEPS):
        before = low, high
        high = _best_end(values, counts, low, max(found.high, 0.0), power)
        low = -_best_end(-values, counts, -high, max(-found.low, 0.0), power)
        if (low, high) == before:
            break
    return Range(low, high, found.noise)


def _centres(found: Range) -> Tensor:
    step = (found.high - found.low) / BINS
    return found.low + step * (torch.arange(BINS, dtype=torch.float64) + 0.5)


def _best_end(values: Tensor, counts: Tensor, low: float, farthest: float, power: float) -> float:
    """The upper end, a share of `farthest`, with the least error, for values clamped below at `low`."""
    if farthest <= 0:
        return 0.0
    ends = farthest * KEPT  # (E,)
    inside = ((ends - low) / CODES / 2) ** power / (power + 1)  # mean of |error|^power over half a step each way
    beyond = torch.maximum(values - ends[:, None], low - values).clamp_min(0)  # (E, BINS)
    errors = torch.where(beyond > 0, beyond**power, inside[:, None])
    return float(ends[(errors * counts).sum(1).argmin()])
