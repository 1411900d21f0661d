"""Milliseconds of a network on a board from what its layers multiply, read and write.

    ms = a * dense MACs + b * depthwise MACs + c * bytes of weights + d * bytes of outputs + e * layers

with coefficients of at least 0 for each board, runtime, number of threads and dtype, fitted to the relative error of
published figures (`published.json`, each with its source). How far off that is, is measured by leaving out one
network at a time, in all its figures, and predicting them from the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

PUBLISHED = Path(__file__).with_name("published.json")
BYTES = {"fp32": 4, "int8": 1}
UNITS = np.array([1e-9, 1e-9, 1e-9, 1e-9, 1e-3])  # giga-MACs, gigabytes, thousands of layers
FEWEST = 5  # points of a configuration below which it predicts nothing


class Work(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a network does for one image."""

    dense: int  # multiply-accumulates of convolutions over all channels, and of matrix products over tokens
    depthwise: int  # of convolutions of one channel each
    weights: int  # elements that are read
    outputs: int  # elements that the layers with weights write
    layers: int  # with weights

    @property
    def macs(self) -> int:
        """All multiply-accumulates but those of a classifier's last layers, which only read weights."""
        return self.dense + self.depthwise


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One published figure."""

    board: str
    runtime: str
    threads: int
    dtype: str  # fp32 or int8
    network: str
    ms: float
    source: str

    @property
    def where(self) -> Where:
        """The configuration it belongs to."""
        return self.board, self.runtime, self.threads, self.dtype


Where = tuple[str, str, int, str]
"""Board, runtime, threads, dtype."""


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The figures, and the work of their networks."""

    networks: dict[str, Work]
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Estimate:
    """Of one configuration. The range held 80 % of the published figures that were left out."""

    where: Where
    ms: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Error:
    """Of predictions of networks that were left out, relative to the published figures."""

    points: int
    median: float
    within_30: float  # share
    ratios: tuple[float, ...]  # published / predicted, ascending


def published(path: Path = PUBLISHED) -> Published:
    """The figures that come with shrink."""
    return msgspec.json.decode(path.read_bytes(), type=Published)


def features(work: Work, dtype: str) -> NDArray[np.float64]:
    """What the time is linear in, shape (5,)."""
    size = BYTES[dtype]
    return UNITS * [work.dense, work.depthwise, work.weights * size, work.outputs * size, work.layers]


def fit(points: Iterable[Point], networks: Mapping[str, Work]) -> dict[Where, NDArray[np.float64]]:
    """Coefficients of every configuration with enough points, by the least squares of the relative error."""
    found: dict[Where, list[Point]] = {}
    for point in points:
        found.setdefault(point.where, []).append(point)
    return {where: _fit_one(mine, networks) for where, mine in found.items() if len(mine) >= FEWEST - 1}


def _fit_one(points: Sequence[Point], networks: Mapping[str, Work]) -> NDArray[np.float64]:
    rows = np.array([features(networks[point.network], point.dtype) / point.ms for point in points])
    coefficients: NDArray[np.float64] = nnls(rows, np.ones(len(points)))[0]
    return coefficients


def usable(data: Published) -> tuple[Point, ...]:
    """The points of configurations that have enough of them."""
    counts: dict[Where, int] = {}
    for point in data.points:
        counts[point.where] = counts.get(point.where, 0) + 1
    return tuple(point for point in data.points if counts[point.where] >= FEWEST)


def leave_one_out(data: Published) -> Error:
    """Predict every network from the others."""
    points, ratios = usable(data), []
    for name in sorted({point.network for point in points}):
        fitted = fit((point for point in points if point.network != name), data.networks)
        for point in points:
            if point.network == name:
                predicted = float(features(data.networks[name], point.dtype) @ fitted[point.where])
                ratios.append(point.ms / predicted)
    off = np.abs(1 / np.array(ratios) - 1)
    return Error(len(ratios), float(np.median(off)), float(np.mean(off <= 0.3)), tuple(sorted(ratios)))


def estimate(work: Work, dtype: str, data: Published, error: Error) -> list[Estimate]:
    """For every configuration of that dtype with enough figures, and figures of networks of like size: between half
    the multiply-accumulates of the smallest and twice those of the largest."""
    low, high = np.quantile(error.ratios, [0.1, 0.9])
    found = []
    for where, coefficients in fit(usable(data), data.networks).items():
        sizes = [data.networks[point.network].macs for point in data.points if point.where == where]
        if where[3] == dtype and min(sizes) / 2 <= work.macs <= max(sizes) * 2:
            ms = float(features(work, dtype) @ coefficients)
            found.append(Estimate(where, ms, ms * float(low), ms * float(high)))
    return found
