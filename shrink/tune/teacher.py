"""What the teacher answers; each view is asked about once, as long as there is room for the answers."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

MOST_BYTES = 2**29  # of answers that are kept


@dataclass(slots=True)
class Teacher:
    """A trained model that is asked, not trained.

    Attributes:
        network: (N, C, H, W) -> (N, classes).
        most_bytes: of answers kept; above it, a batch is answered anew each time.
    """

    network: nn.Module
    most_bytes: int = MOST_BYTES
    asked: int = 0  # batches that the network ran on
    _kept: dict[tuple[int, int], Tensor] = field(default_factory=dict)
    _bytes: int = 0

    def scores(self, view: int, place: int, images: Tensor) -> Tensor:
        """(N, classes) float32 of a batch.

        Args:
            view, place: of the batch; the same pair always comes with the same images.
            images: (N, C, H, W).
        """
        known = self._kept.get((view, place))
        return self._ask(view, place, images) if known is None else known.to(images.device)

    def _ask(self, view: int, place: int, images: Tensor) -> Tensor:
        with torch.no_grad():
            scores: Tensor = self.network(images).to(torch.float32)
        self.asked += 1
        size = scores.numel() * scores.element_size()
        if self._bytes + size <= self.most_bytes:
            self._kept[view, place] = scores.cpu()
            self._bytes += size
        return scores
