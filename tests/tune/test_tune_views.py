"""Batches are a function of seed, view and place alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tune_samples import HOW, made

from shrink.tune.feed import Feed, held_out
from shrink.tune.settings import Settings
from shrink.tune.views import GROUP, View

PLAIN = Settings(epochs=2, batch=32, augment=(), views=1)


def view(*, seed: tuple[int, int] = (0, 0), augment: tuple[str, ...] = ("crop", "flip", "color", "mix")) -> View:
    return View(made(64), augment, batch=32, seed=seed)  # type: ignore[arg-type]


def test_a_view_is_the_same_every_time_and_others_are_others() -> None:
    state = torch.random.get_rng_state()
    first, again = view()[3], view()[3]
    assert torch.equal(first[0], again[0]) and torch.equal(first[1], again[1])
    assert not torch.equal(view(seed=(0, 1))[3][0], first[0]) and not torch.equal(view(seed=(1, 0))[3][0], first[0])
    assert torch.equal(torch.random.get_rng_state(), state), "the generator of the program is left alone"


@pytest.mark.parametrize("name", ["crop", "flip", "color", "mix"])
def test_every_augmentation_changes_pixels(name: str) -> None:
    plain, changed = view(augment=()), view(augment=(name,))
    differ = [not torch.equal(plain[i][0], changed[i][0]) for i in range(len(plain))]
    assert any(differ)
    for i in range(len(changed)):
        torch.testing.assert_close(changed[i][1].sum(1), torch.ones(GROUP))


def test_without_augmentation_an_epoch_is_every_image_once() -> None:
    data = made(64)
    seen = torch.cat([part.images for part in Feed(data, PLAIN).parts(2)])  # the second epoch
    wanted = data.normalized(data.pixels.read(np.arange(64)))
    assert sorted(map(float, seen.sum((1, 2, 3)))) == pytest.approx(sorted(map(float, wanted.sum((1, 2, 3)))))


def test_processes_share_the_batches_of_one() -> None:
    def sums(processes: int, accumulate: int) -> list[list[float]]:
        """Of the images of each step."""
        how = Settings(epochs=2, batch=32, accumulate=accumulate)
        shares = [list(Feed(made(64), how, processes, one).parts(0)) for one in range(processes)]
        steps = [
            [part for share in shares for part in share[i : i + accumulate]]
            for i in range(0, len(shares[0]), accumulate)
        ]
        return [sorted(float(x) for part in step for x in part.images.sum((1, 2, 3))) for step in steps]

    assert sums(1, 1) == sums(2, 1) == sums(1, 4) == sums(2, 2)


def test_a_feed_goes_on_in_the_middle() -> None:
    whole = [part.images for part in Feed(made(96), HOW).parts(0)]
    rest = [part.images for part in Feed(made(96), HOW).parts(8)]
    assert len(whole) == 18 and len(rest) == 10
    assert all(torch.equal(a, b) for a, b in zip(whole[8:], rest, strict=True))


def test_balance_draws_a_rare_class_as_often() -> None:
    data = made(800, rare=10)
    plain, balanced = (View(data, (), batch=16, seed=(0, 0), balanced=one) for one in (False, True))
    rare = [sum(float(one[i][1][:, 1].sum()) for i in range(len(one))) for one in (plain, balanced)]
    assert rare[0] == 80 and 340 < rare[1] < 460  # of 800; four deviations


def test_few_images_fill_a_batch_by_coming_again() -> None:
    assert [len(part.images) for part in Feed(made(20), PLAIN).parts(0)] == [32, 32]
    assert [len(part.images) for part in held_out(made(20), 16)] == [10, 10]
