"""What the teacher answers; each view is asked about once, as long as there is room for the answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

Answers = Tensor | Sequence[Tensor]
"""What a network gives: scores, or scores and other values."""

MOST_BYTES = 2**29  # of answers that are kept


@dataclass(slots=True)
class Teacher:
    """A trained model that is asked, not trained.

    Attributes:
        network: (N, C, H, W) -> (N, classes), and perhaps then tokens that a student matches.
        most_bytes: of answers kept; above it, a batch is answered anew each time.
    """

    network: nn.Module
    most_bytes: int = MOST_BYTES
    asked: int = 0  # batches that the network ran on
    _kept: dict[tuple[int, int], list[Tensor]] = field(default_factory=dict)
    _bytes: int = 0

    def answers(self, view: int, place: int, images: Tensor) -> list[Tensor]:
        """Scores (N, classes) of a batch and then its tokens, if the network gives them; float32.

        Args:
            view, place: of the batch; the same pair always comes with the same images.
            images: (N, C, H, W).
        """
        known = self._kept.get((view, place))
        return self._ask(view, place, images) if known is None else [one.to(images.device) for one in known]

    def _ask(self, view: int, place: int, images: Tensor) -> list[Tensor]:
        with torch.no_grad():
            found = [one.to(torch.float32) for one in as_list(self.network(images))]
        self.asked += 1
        size = sum(one.numel() * one.element_size() for one in found)
        if self._bytes + size <= self.most_bytes:
            self._kept[view, place] = [one.cpu() for one in found]
            self._bytes += size
        return found


def as_list(answers: Answers) -> list[Tensor]:
    """The scores, then the others."""
    return [answers] if isinstance(answers, Tensor) else list(answers)
