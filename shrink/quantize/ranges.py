"""What values the activations take on calibration images, in one streaming pass."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from fractions import Fraction

import torch
from torch import Tensor, fx

from shrink.errors import CalibrationError


@dataclass(frozen=True, slots=True)
class Ends:
    """Smallest and largest value of every channel; low and high are (C,) float32."""

    axis: int  # of the channels
    low: Tensor
    high: Tensor


@dataclass(frozen=True, slots=True)
class Range:
    """Smallest and largest value seen, and how one range per image would round it.

    Attributes:
        noise: power of the rounding noise of 256 codes over each image's own range, over the power of the values.
        ends: of every channel, where that was asked for.
    """

    low: float
    high: float
    noise: float = 0.0
    ends: Ends | None = field(default=None, compare=False, repr=False)


def observe(
    graph_module: fx.GraphModule,
    names: Collection[str],
    images: Iterable[Tensor],
    *,
    axes: Mapping[str, int] | None = None,
    workers: int = 1,
) -> dict[str, Range]:
    """Run the graph on each image and keep the extremes of the named values.

    Args:
        graph_module: float graph.
        names: nodes whose output is observed.
        images: inputs of the graph, float32, each of the captured shape. Memory does not grow with their number.
        axes: value -> axis of its channels, where the extremes of each are wanted.
        workers: images run side by side. The result does not depend on it.

    Raises:
        CalibrationError: a value is NaN or infinite, with the layer it first appears in.
    """
    watches = [_Watch(graph_module, names, axes or {}) for _ in range(workers)]
    share_out(images, [watch.run_all for watch in watches])
    return {name: _merge([watch.seen[name] for watch in watches if name in watch.seen]) for name in names}


@dataclass(slots=True)
class _Seen:
    """Sums over images of one value; exact ones, which no order of the images changes."""

    low: float
    high: float
    rounding: Fraction  # of (range / 255)^2 / 12, the power of the error of rounding to 256 codes
    power: Fraction  # of the mean square
    ends: Ends | None = None


def _merge(parts: Sequence[_Seen]) -> Range:
    power = sum(part.power for part in parts)
    noise = float(sum(part.rounding for part in parts) / power) if power > 0 else 0.0
    ends = functools.reduce(_wider, (part.ends for part in parts))
    return Range(min(part.low for part in parts), max(part.high for part in parts), noise, ends)


def _wider(a: Ends | None, b: Ends | None) -> Ends | None:
    if a is None or b is None:
        return a or b
    return Ends(a.axis, torch.minimum(a.low, b.low), torch.maximum(a.high, b.high))


def _ends(value: Tensor, axis: int) -> Ends:
    return Ends(axis, *torch.aminmax(value.movedim(axis, 0).flatten(1), dim=1))


def share_out(images: Iterable[Tensor], jobs: Sequence[Callable[[Iterable[Tensor]], None]]) -> None:
    """Run every job in a thread of its own; each image goes to one of them. An error or interrupt ends them all."""
    shared = _Shared(images)
    with ThreadPoolExecutor(len(jobs)) as pool:
        try:
            for done in as_completed([pool.submit(job, shared) for job in jobs]):
                done.result()
        except BaseException:
            shared.stop()  # else the others would go on to the last image
            raise


class _Shared(Iterator[Tensor]):
    """One iterator for several threads."""

    def __init__(self, items: Iterable[Tensor]) -> None:
        self._items, self._lock = iter(items), threading.Lock()

    def __next__(self) -> Tensor:
        with self._lock:
            return next(self._items)

    def stop(self) -> None:
        with self._lock:
            self._items = iter(())


class Onlooker(fx.Interpreter):
    """Runs a float graph on images and looks at its values."""

    def run_all(self, images: Iterable[Tensor]) -> None:
        """Run every image, each (1, C, H, W)."""
        with torch.no_grad():  # the mode belongs to the thread
            for image in images:
                self.run(image)


class _Watch(Onlooker):
    def __init__(self, graph_module: fx.GraphModule, names: Collection[str], axes: Mapping[str, int]) -> None:
        super().__init__(graph_module)
        self.names, self.axes = frozenset(names), axes
        self.seen: dict[str, _Seen] = {}

    def run_node(self, n: fx.Node) -> object:
        value = super().run_node(n)
        if n.name in self.names and isinstance(value, Tensor):
            low, high = (float(x) for x in torch.aminmax(value))
            if not (math.isfinite(low) and math.isfinite(high)):
                raise CalibrationError(
                    f"the float model gives NaN or infinity in layer {n.meta.get('layer') or n.name!r}",
                    f"op {n.target} did so on a calibration image",
                    "check the checkpoint and that the preprocessing is the one the model was trained with",
                )
            seen = self._note(n.name, low, high, float(value.square().mean()))
            if n.name in self.axes:
                seen.ends = _wider(seen.ends, _ends(value, self.axes[n.name]))
        return value

    def _note(self, name: str, low: float, high: float, power: float) -> _Seen:
        seen = self.seen.setdefault(name, _Seen(low, high, Fraction(), Fraction()))
        seen.low, seen.high = min(seen.low, low), max(seen.high, high)
        seen.rounding += Fraction(((high - low) / 255) ** 2 / 12)
        seen.power += Fraction(power)
        return seen


def join(ranges: Mapping[str, Range], tied: Iterable[tuple[str, str]]) -> dict[str, Range]:
    """Give tied values their common range: the runtime moves codes between them unchanged."""
    groups = _Groups(ranges, {})
    for pair in tied:
        groups.tie(*pair)
    return groups.common


def within_ends(
    ranges: Mapping[str, Range],
    tied: Iterable[tuple[str, str]],
    spare: Iterable[tuple[str, str]],
    ends: Mapping[str, tuple[float, float]],
) -> tuple[tuple[str, str], ...]:
    """Those of the spare ties with which no common range reaches beyond the ends of a value that has it.

    Args:
        ends: what clamps keep some of the values between.
    """
    groups, kept = _Groups(ranges, ends), []
    for pair in tied:
        groups.tie(*pair)
    for pair in spare:
        if groups.may_tie(*pair):
            groups.tie(*pair)
            kept.append(pair)
    return tuple(kept)


class _Groups:
    """Values that share their range."""

    def __init__(self, ranges: Mapping[str, Range], ends: Mapping[str, tuple[float, float]]) -> None:
        self.common = dict(ranges)
        self._ends = {name: ends.get(name, (-math.inf, math.inf)) for name in ranges}  # the nearest of a group
        self._members = {name: [name] for name in ranges}

    def may_tie(self, a: str, b: str) -> bool:
        both, (low, high) = self._both(a, b)
        return low <= both.low and both.high <= high

    def tie(self, a: str, b: str) -> None:
        found, (common, ends) = self._members[a], self._both(a, b)
        if found is not self._members[b]:
            found += self._members[b]
            for name in found:
                self._members[name], self.common[name], self._ends[name] = found, common, ends

    def _both(self, a: str, b: str) -> tuple[Range, tuple[float, float]]:
        x, y, (a_low, a_high), (b_low, b_high) = self.common[a], self.common[b], self._ends[a], self._ends[b]
        return Range(min(x.low, y.low), max(x.high, y.high)), (max(a_low, b_low), min(a_high, b_high))
