"""Units: what can only be removed together, as a union-find over coordinates of tensors.

Every dimension of every tensor carries one label per coordinate: the unit that it belongs to, or `STAYS`.
Ops tie labels to each other, or freeze them with a reason. Nothing is ever untied, so the order of ops
does not matter for what is right.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

STAYS = -1
"""Label of a coordinate that cannot be removed."""

Labels = NDArray[np.int64] | None
"""One label per coordinate of a dimension, shape (size,); None: all of them stay."""


class Units:
    """Sets of labels that live and die together."""

    def __init__(self) -> None:
        self._parent = np.empty(0, np.int64)
        self._frozen: dict[int, str] = {}  # root -> why it must stay

    def fresh(self, count: int) -> NDArray[np.int64]:
        """New labels, each a unit of its own."""
        start = len(self._parent)
        new = np.arange(start, start + count)
        self._parent = np.concatenate([self._parent, new])
        return new

    def roots(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """The unit of each label; `STAYS` stays."""
        found = labels.copy()
        moving = found >= 0
        while True:
            up = self._parent[found[moving]]
            if (up == found[moving]).all():
                return found
            found[moving] = up

    def alive(self, labels: NDArray[np.int64]) -> NDArray[np.int64]:
        """The unit of each label, and `STAYS` for one that is frozen."""
        found = self.roots(labels)
        frozen = np.isin(found, np.fromiter(self._frozen, np.int64, len(self._frozen)))
        return np.where(frozen, STAYS, found)

    def tie(self, a: Labels, b: Labels, why: str) -> None:
        """Coordinate i of `a` and coordinate i of `b` are the same channel; `why` if that freezes one."""
        if a is None or b is None:
            self.freeze(b if a is None else a, why)
            return
        left, right = self.roots(a), self.roots(b)
        for i in np.flatnonzero(left != right):
            self._union(int(left[i]), int(right[i]), why)

    def freeze(self, labels: Labels, why: str) -> None:
        """These coordinates must stay; the first reason is kept."""
        if labels is not None:
            for root in np.unique(self.roots(labels)).tolist():
                if root != STAYS:
                    self._frozen.setdefault(root, why)

    def merge_rows(self, table: NDArray[np.int64], why: str) -> NDArray[np.int64]:
        """Tie all labels of a row to each other: (rows, n) -> one label per row, (rows,)."""
        for column in table.T[1:]:
            self.tie(table[:, 0], column, why)
        return table[:, 0].copy()

    def why(self, labels: NDArray[np.int64]) -> str | None:
        """Why the first frozen one of these labels must stay."""
        return next((self._frozen[root] for root in self.roots(labels).tolist() if root in self._frozen), None)

    def _union(self, a: int, b: int, why: str) -> None:
        a, b = (int(root) for root in self.roots(np.array([a, b])))
        if a == b:
            return
        if STAYS in (a, b):
            self._frozen.setdefault(max(a, b), why)
            return
        self._parent[b] = a
        if b in self._frozen:
            self._frozen.setdefault(a, self._frozen.pop(b))
