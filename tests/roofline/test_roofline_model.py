"""The estimate of latency: exact where the world is as it supposes; its error on published figures is as it says."""

from __future__ import annotations

import numpy as np
import pytest
from msgspec.structs import replace

from shrink.inspect.ops import OpRecord
from shrink.roofline.model import Point, Published, Work, estimate, features, fit, leave_one_out, published, usable
from shrink.steps.estimating import work_of

TRUE = np.array([20.0, 12.0, 60.0, 5.0, 9.0, 30.0])


def synthetic(noise: float = 0.0) -> Published:
    """Figures of two boards whose time really is linear, one 3.5 times as slow."""
    rng = np.random.default_rng(0)
    networks = {
        f"net{i}": Work(*(int(x) for x in rng.integers(1e6, 1e9, 5)), int(rng.integers(10, 90))) for i in range(12)
    }
    points = tuple(
        Point(board, "engine", 4, "int8", name, ms * slow * float(np.exp(noise * rng.normal())), "s")
        for board, slow in (("board", 1.0), ("slow board", 3.5))
        for name, work in networks.items()
        for ms in (float(features(work, "int8") @ TRUE),)
    )
    return Published(networks, points)


def test_a_linear_board_is_predicted_exactly() -> None:
    data = synthetic()
    error = leave_one_out(data)
    assert error.points == 24 and error.median < 1e-6 and error.within_30 == 1.0
    work = Work(10**9, 10**8, 10**7, 10**6, 10**6, 20)
    found = {one.where[0]: one.ms for one in estimate(work, "int8", data, error)}
    wanted = float(features(work, "int8") @ TRUE)
    assert found == pytest.approx({"board": wanted, "slow board": 3.5 * wanted}, rel=1e-6)


def test_a_board_with_two_figures_is_placed_by_its_slowness_alone() -> None:
    """What the other boards say of networks holds for it, too."""
    data = synthetic()
    few = [replace(p, board="new board", ms=7 * p.ms) for p in data.points[:2]]
    work = data.networks[data.points[5].network]
    found = fit((*data.points, *few), data.networks).ms(work, few[0].where)
    assert found == pytest.approx(7 * data.points[5].ms, rel=1e-6)


def test_figures_that_are_far_off_do_not_move_the_others() -> None:
    data = synthetic()
    wild = tuple(replace(p, ms=5 * p.ms) if p.network == "net3" else p for p in data.points)
    error = leave_one_out(Published(data.networks, wild))
    assert error.median < 0.02 and error.within_30 == pytest.approx(22 / 24)


def test_a_network_is_left_out_with_all_its_variants() -> None:
    """Otherwise its own figure on another board would predict it."""
    data = synthetic()
    odd = Work(1, 1, 1, 1, 1, 10**6)  # only it has so many ops
    networks = {**data.networks, "odd": odd, "odd@library": odd}
    points = [Point(board, "engine", 4, "int8", name, 1.0, "s")
              for board, name in (("board", "odd"), ("slow board", "odd@library"))]  # fmt: skip
    error = leave_one_out(Published(networks, (*data.points, *points)))
    assert error.ratios[:2] == pytest.approx((1 / 30000, 1 / 105000)[::-1], rel=1e-3)


def test_noise_of_the_figures_is_in_the_error() -> None:
    assert leave_one_out(synthetic(noise=0.5)).median > 0.1


def test_the_published_figures_are_predicted_as_badly_as_the_document_says() -> None:
    """docs/boards.md quotes these."""
    error = leave_one_out(published())
    assert error.points == 156
    assert (round(error.median, 2), round(error.within_30, 2)) == (0.09, 0.92)


def test_every_figure_has_a_source_and_a_network() -> None:
    data = published()
    assert all(point.source and point.network in data.networks and point.ms > 0 for point in data.points)
    assert len({(point.where, point.network) for point in data.points}) == len(data.points)
    assert {point.where[0].split()[0] for point in usable(data)} == {"cortex-a53", "cortex-a72", "cortex-a76"}
    assert data.networks["mobilenet_v2@torchvision"].macs == pytest.approx(299.5e6, rel=0.01)
    assert data.networks["resnet18@torchvision"].macs == pytest.approx(1.814e9, rel=0.01)


def record(op: str, macs: int, shape: tuple[int, ...], weight_bytes: int, *, unit_3x3: bool = False) -> OpRecord:
    return OpRecord(0, op, None, "", (), "int8", shape, macs, weight_bytes, "int8", True, "int8", True, "", unit_3x3)


def test_work_is_told_apart_by_what_each_output_sums() -> None:
    records = [
        record("CONV_2D", 8 * 8 * 16 * 27, (1, 8, 8, 16), 16 * 27),
        record("CONV_2D", 8 * 8 * 16 * 144, (1, 8, 8, 16), 16 * 144, unit_3x3=True),
        record("DEPTHWISE_CONV_2D", 8 * 8 * 16 * 9, (1, 8, 8, 16), 16 * 9),
        record("FULLY_CONNECTED", 160, (1, 10), 160),
        record("ADD", 0, (1, 8, 8, 16), 0),
    ]
    wanted = Work(dense=8 * 8 * 16 * 27, unit_3x3=8 * 8 * 16 * 144, depthwise=8 * 8 * 16 * 9, once=160,
                  outputs=3 * 1024 + 10, ops=5)  # fmt: skip
    assert work_of(records) == wanted


def test_a_network_far_smaller_than_all_published_ones_gets_no_estimate() -> None:
    data = published()
    error = leave_one_out(data)
    assert estimate(Work(10**7, 0, 10**6, 10**5, 10**5, 20), "int8", data, error) == []
    assert estimate(data.networks["mobilenet_v2"], "int8", data, error) != []
