"""Batches: order, content, bounded look-ahead, and images that cannot be read."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from data_samples import GREY, folder, picture, png
from hypothesis import given, settings
from hypothesis import strategies as st

from device_runner.preprocess import prepare
from shrink.data.images import Images, from_source
from shrink.data.sources import read
from shrink.data.stream import SkipLog, stream
from shrink.errors import DataError


@dataclass
class Spy:
    """Pictures numbered by their brightness; counts how many were asked for. `bad` ones are no images."""

    bad: frozenset[int] = frozenset()
    asked: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def encoded(self, index: int) -> bytes:
        with self.lock:
            self.asked += 1
        time.sleep(0.0005 * (index % 3))  # finish out of order
        return b"not an image" if index in self.bad else png(np.full((16, 16), index % 256, np.uint8))

    def suffix(self, index: int) -> str:
        return ".png"

    def size(self, index: int) -> int:
        return 0

    def digest(self, index: int) -> bytes:
        return b""


def spied(count: int, bad: set[int] | None = None) -> tuple[Spy, Images]:
    spy = Spy(frozenset(bad or ()))
    refs = [f"img/{index}" for index in range(count)]
    return spy, from_source("spied", spy, refs, labels=list(range(count)), classes=None)


@settings(max_examples=20, deadline=None)
@given(count=st.integers(0, 40), batch=st.integers(1, 17), workers=st.integers(1, 4))
def test_every_image_once_in_order(count: int, batch: int, workers: int) -> None:
    _, images = spied(count)
    batches = list(stream(images, GREY, batch=batch, workers=workers))
    assert [len(one.indices) for one in batches] == [batch] * (count // batch) + [count % batch] * bool(count % batch)
    assert [int(index) for one in batches for index in one.indices] == list(range(count))
    for one in batches:
        assert one.x.shape == (len(one.indices), 1, 16, 16) and one.x.dtype == np.float32
        assert one.x.flags.c_contiguous
        assert one.labels is not None and (one.labels == one.indices).all()
        expected = (one.indices / 255 - 0.25) / 0.5
        np.testing.assert_allclose(one.x[:, 0, 3, 5], expected, atol=1e-6)


def test_the_pixels_are_the_runners(tmp_path: Path) -> None:
    images = read(str(folder(tmp_path, {"cat": 5}))).evaluation
    (batch,) = stream(images, GREY)
    for index in range(5):
        assert (batch.x[index] == prepare(images.encoded(index), GREY).transpose(2, 0, 1)).all()


def test_the_look_ahead_is_bounded_and_stops_with_the_reader() -> None:
    spy, images = spied(500)
    batches = stream(images, GREY, batch=8)
    next(batches)
    time.sleep(0.05)
    assert spy.asked <= 2 * 8
    batches.close()  # type: ignore[attr-defined]
    asked = spy.asked
    time.sleep(0.05)
    assert spy.asked == asked <= 2 * 8 + 2


def test_corrupt_images_are_skipped_and_written_down() -> None:
    _, images = spied(40, {3, 39})
    log = SkipLog()
    batches = list(stream(images, GREY, batch=16, skipped=log))
    assert [len(one.indices) for one in batches] == [16, 16, 6]
    assert {3, 39}.isdisjoint(int(index) for one in batches for index in one.indices)
    assert list(log.entries) == ["img/3", "img/39"] and "decoded" in log.entries["img/3"]
    list(stream(images, GREY, skipped=log))
    assert len(log) == 2  # a second pass finds the same


def test_truncated_missing_and_renamed_files(tmp_path: Path) -> None:
    images = read(str(folder(tmp_path, {"cat": 60}))).evaluation
    (tmp_path / "cat" / "001.png").write_bytes((tmp_path / "cat" / "001.png").read_bytes()[:60])
    (tmp_path / "cat" / "002.png").unlink()
    (tmp_path / "cat" / "003.png").write_text("hello")
    log = SkipLog()
    assert sum(len(one.indices) for one in stream(images, GREY, skipped=log)) == 57
    assert list(log.entries) == [f"cat/00{index}.png" for index in (1, 2, 3)]
    assert "No such file" in log.entries["cat/002.png"]


def test_over_five_percent_is_an_error_as_soon_as_it_is_certain() -> None:
    spy, images = spied(400, set(range(2, 300)))
    words = r"21 of the 400 images of spied cannot be read\n.*over 5%; the first is img/2: the image cannot be decoded"
    with pytest.raises(DataError, match=words) as caught:
        list(stream(images, GREY, batch=8))
    assert caught.value.exit_code == 2
    assert spy.asked < 50


@pytest.mark.parametrize(("bad", "fails"), [(2, False), (3, True)])
def test_exactly_five_percent_passes(bad: int, fails: bool) -> None:
    _, images = spied(40, set(range(bad)))
    if not fails:
        assert sum(len(one.indices) for one in stream(images, GREY)) == 38
        return
    with pytest.raises(DataError, match="3 of the 40"):
        list(stream(images, GREY))


def test_images_without_labels(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(picture(1)))
    (batch,) = stream(read(str(tmp_path)).evaluation, GREY)
    assert batch.labels is None
