"""An error ends the observation of images at once, however many there still are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest
import torch
from torch import Tensor, nn

from shrink.errors import CalibrationError
from shrink.graph.capture import capture
from shrink.quantize.ranges import observe, share_out


def endless(bad: int) -> Iterator[Tensor]:
    """Images for ever, one of them NaN."""
    for number in count():
        yield torch.full((1, 1, 4, 4), float("nan") if number == bad else 1.0)


@pytest.mark.parametrize("workers", [1, 3])
def test_an_error_in_one_thread_ends_all(workers: int) -> None:
    graph = capture(nn.Sequential(nn.Flatten(), nn.Linear(16, 2)), (1, 1, 4, 4))
    names = [node.name for node in graph.graph.nodes]
    with pytest.raises(CalibrationError, match="NaN or infinity"):
        observe(graph, names, endless(bad=20), workers=workers)


def test_an_interrupt_ends_all() -> None:
    """It arrives in the thread that waits; here a job raises it."""

    def interrupted(images: object) -> None:
        raise KeyboardInterrupt

    def works(images: Iterator[Tensor]) -> None:
        for _ in images:
            pass

    with pytest.raises(KeyboardInterrupt):
        share_out(endless(bad=-1), [interrupted, works, works])


def test_every_image_goes_to_exactly_one_job() -> None:
    seen: list[float] = []
    share_out((torch.tensor(float(n)) for n in range(100)), [lambda images: seen.extend(map(float, images))] * 3)
    assert sorted(seen) == [float(n) for n in range(100)]
