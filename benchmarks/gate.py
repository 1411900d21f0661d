"""How often `shrink compare` passes a model whose drop is the limit, and one that has none: simulated.

python -m benchmarks.gate [--draws 20000]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from shrink.compare.gates import LEVEL
from shrink.verify.exact import surely_below
from shrink.verify.statistics import decide

RESULT = Path(__file__).parent / "results" / "gate" / "draws.json"
SETTINGS = ((500, 0.002, 0.005), (200, 0.005, 0.01), (1000, 0.005, 0.005), (2000, 0.003, 0.01), (10_000, 0.003, 0.0),
            (10_000, 0.003, 0.005))  # fmt: skip
"""(images, limit, rate of won images)"""

Passes = Callable[[int, int], bool]
Counts = NDArray[np.int64]


def most_lost(passes: Passes, won: int, n: int) -> int:
    """The most lost images that still pass, with so many won; -1: none. More lost never pass again."""
    low, high = -1, n - won
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if passes(middle, won) else (low, middle - 1)
    return low


def share(passes: Passes, n: int, draws: Counts) -> float:
    """Of the draws, rows of (lost, won, neither), that pass."""
    edges = {int(won): most_lost(passes, int(won), n) for won in np.unique(draws[:, 1])}
    return float(np.mean([lost <= edges[won] for lost, won, _ in draws.tolist()]))


def row(n: int, limit: float, won: float, times: int, rng: np.random.Generator) -> dict[str, float]:
    """Shares for a model at the limit, by the interval alone and by the gate, and for one without a drop."""

    def alone(a: int, b: int) -> bool:
        return decide(a, b, n, max_drop=limit) == "pass"

    def gate(a: int, b: int) -> bool:
        return alone(a, b) and surely_below(a, b, n, limit) <= LEVEL

    bad, good = (rng.multinomial(n, (won + drop, won, 1 - 2 * won - drop), size=times) for drop in (limit, 0.0))
    found = {"images": n, "limit": limit, "won": won, "draws": times}
    return found | {
        "bad_by_interval": share(alone, n, bad),
        "bad_by_gate": share(gate, n, bad),
        "good_by_gate": share(gate, n, good),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=20_000)
    times, rng = parser.parse_args().draws, np.random.default_rng(0)
    rows = [row(*setting, times, rng) for setting in SETTINGS]
    RESULT.parent.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps({"level": LEVEL, "rows": rows}, indent=2) + "\n")
    for one in rows:
        print(one)


if __name__ == "__main__":
    main()
