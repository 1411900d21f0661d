"""Milliseconds of a network on a board from what its layers multiply, read and write.

    ms = slowness * (a * dense MACs + b * MACs of 3x3 at stride 1 + c * depthwise MACs
                     + d * bytes of weights that are used once + e * bytes of outputs + f * ops)

The six coefficients, at least 0, belong to the dtype and are shared by all boards and runtimes; one factor, the
slowness, belongs to a configuration: board, runtime, threads, dtype. A configuration has few published figures, too few
for coefficients of its own. A 3x3 at stride 1 is a term of its own because runtimes compute it with fewer products
(Winograd), and weights that are used once, those of a classifier, because reading them takes longer than multiplying.

Fitted to the relative error of published figures (`published.json`, each with its source). How far off that is, is
measured by leaving out one network at a time, in all its figures, and predicting them from the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

PUBLISHED = Path(__file__).with_name("published.json")
BYTES = {"fp32": 4, "int8": 1}
UNITS = np.array([1e-9, 1e-9, 1e-9, 1e-9, 1e-9, 1e-3])  # giga-MACs, gigabytes, thousands of ops
FEWEST = 3  # figures of a configuration below which it predicts nothing: one left out leaves two
ROUNDS = 30  # of fitting; the figures stand still to three digits after ten
FLOOR = 0.05  # relative error below which all figures weigh the same

Floats = NDArray[np.float64]


class Work(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a network does for one image."""

    dense: int  # multiply-accumulates of convolutions and matrix products, but for what follows
    unit_3x3: int  # of ungrouped 3x3 convolutions at stride 1
    depthwise: int  # of convolutions of one channel each
    once: int  # weights that serve one place each, as those of a classifier's last layers
    outputs: int  # elements that the layers with weights write
    ops: int  # of any kind

    @property
    def macs(self) -> int:
        """All multiply-accumulates but those of weights that are used once, which only read them."""
        return self.dense + self.unit_3x3 + self.depthwise


class Point(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One published figure."""

    board: str
    runtime: str
    threads: int
    dtype: str  # fp32 or int8
    network: str  # "name", or "name@library" where that one's layers differ
    ms: float
    source: str

    @property
    def where(self) -> Where:
        """The configuration it belongs to."""
        return self.board, self.runtime, self.threads, self.dtype

    @property
    def family(self) -> str:
        """What is left out together."""
        return self.network.partition("@")[0]


Where = tuple[str, str, int, str]
"""Board, runtime, threads, dtype."""


class Published(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The figures, and the work of their networks."""

    networks: dict[str, Work]
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class Fitted:
    """What was learned from figures."""

    shape: Mapping[str, Floats]  # dtype -> coefficients (6,) of `features`
    slowness: Mapping[Where, float]

    def ms(self, work: Work, where: Where) -> float:
        """The prediction."""
        return self.slowness[where] * float(features(work, where[3]) @ self.shape[where[3]])


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


def features(work: Work, dtype: str) -> Floats:
    """What the time is linear in, shape (6,)."""
    size = BYTES[dtype]
    counts = [work.dense, work.unit_3x3, work.depthwise, work.once * size, work.outputs * size, work.ops]
    return UNITS * counts


def fit(points: Iterable[Point], networks: Mapping[str, Work]) -> Fitted:
    """The coefficients of each dtype and the slowness of each configuration."""
    known = list(points)
    shape: dict[str, Floats] = {}
    slowness: dict[Where, float] = {}
    for dtype in sorted({point.dtype for point in known}):
        mine = [point for point in known if point.dtype == dtype]
        shape[dtype], found = _fit_dtype(mine, networks)
        slowness |= found
    return Fitted(shape, slowness)


def _fit_dtype(points: list[Point], networks: Mapping[str, Work]) -> tuple[Floats, dict[Where, float]]:
    """In turns: the coefficients by weighted least squares, every slowness by the median, and the weights so that in
    the end the sum of the relative errors is least, not that of their squares: some figures are far off."""
    places = sorted({point.where for point in points})
    at = np.array([places.index(point.where) for point in points])
    ms = np.array([point.ms for point in points])
    rows = np.array([features(networks[point.network], point.dtype) for point in points])
    slow = np.array([np.median(ms[at == k]) for k in range(len(places))]) / np.median(ms)
    weights, shape = np.ones(len(points)), np.zeros(len(UNITS))
    for _ in range(ROUNDS):
        shape = nnls(rows * (slow[at] / ms * weights)[:, None], weights)[0]
        time = np.maximum(rows @ shape, np.finfo(float).tiny)
        slow = np.array([np.median(ms[at == k] / time[at == k]) for k in range(len(places))])
        weights = 1 / np.sqrt(np.maximum(np.abs(np.log(time * slow[at] / ms)), FLOOR))
    return shape, dict(zip(places, slow.tolist(), strict=True))


def usable(data: Published) -> tuple[Point, ...]:
    """The points of configurations that have enough of them."""
    counts: dict[Where, int] = {}
    for point in data.points:
        counts[point.where] = counts.get(point.where, 0) + 1
    return tuple(point for point in data.points if counts[point.where] >= FEWEST)


def leave_one_out(data: Published) -> Error:
    """Predict every network from the others."""
    points, ratios = usable(data), []
    for name in sorted({point.family for point in points}):
        fitted = fit((point for point in points if point.family != name), data.networks)
        ratios += [point.ms / fitted.ms(data.networks[point.network], point.where)
                   for point in points if point.family == name]  # fmt: skip
    off = np.abs(1 / np.array(ratios) - 1)
    return Error(len(ratios), float(np.median(off)), float(np.mean(off <= 0.3)), tuple(sorted(ratios)))


def estimate(work: Work, dtype: str, data: Published, error: Error) -> list[Estimate]:
    """For every configuration of that dtype with enough figures, and figures of networks of like size: between half
    the multiply-accumulates of the smallest and twice those of the largest."""
    low, high = np.quantile(error.ratios, [0.1, 0.9])
    fitted, found = fit(usable(data), data.networks), []
    for where in fitted.slowness:
        sizes = [data.networks[point.network].macs for point in data.points if point.where == where]
        if where[3] == dtype and min(sizes) / 2 <= work.macs <= max(sizes) * 2:
            ms = fitted.ms(work, where)
            found.append(Estimate(where, ms, ms * float(low), ms * float(high)))
    return found
