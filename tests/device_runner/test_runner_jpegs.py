"""Cutting a stream into JPEG images, however it is cut into reads, and whatever lies in between."""

from __future__ import annotations

import random
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from runner_bundles import photo

from device_runner.errors import SourceError
from device_runner.sources import ffmpeg, jpegs, readers
from device_runner.sources.jpegs import Garbage, Splitter

PART = b"\r\n--frame\r\nContent-Type: image/jpeg\r\nContent-Length: 4294967295\r\n\r\n"


def with_thumbnail(seed: int) -> bytes:
    """A JPEG whose EXIF holds another whole JPEG, as cameras write them."""
    inner = photo(seed, 16, 16)
    segment = b"Exif\0\0" + inner
    outer = photo(seed + 1)
    return outer[:2] + b"\xff\xe1" + (len(segment) + 2).to_bytes(2, "big") + segment + outer[2:]


def progressive(seed: int) -> bytes:
    out = BytesIO()
    Image.open(BytesIO(photo(seed, 64, 64))).save(out, "JPEG", progressive=True, quality=90)
    return out.getvalue()


IMAGES = [photo(0), with_thumbnail(5), progressive(2), photo(3, 5, 400)]


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=30), st.sampled_from([b"", PART, b"\xff", b"\xff\x00"]))
def test_images_come_out_whole_wherever_the_stream_is_cut(cuts: list[int], between: bytes):
    stream, splitter, found, i = between.join([b"", *IMAGES]), Splitter(), [], 0
    while i < len(stream):
        step = cuts[i % len(cuts)]
        found += splitter.feed(stream[i : i + step])
        i += step
    assert found == IMAGES and not splitter.started


def test_garbage_is_given_up_and_memory_stays_small():
    splitter = Splitter()
    with pytest.raises(Garbage, match="bytes without a JPEG"):
        for _ in range(1000):
            list(splitter.feed(b"\0" * 1024))
    assert len(splitter._buffer) < 4096


def test_an_image_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(jpegs, "MAX_IMAGE_BYTES", 1 << 16)
    splitter = Splitter()
    with pytest.raises(Garbage, match="over 65536 bytes"):
        list(splitter.feed(photo(0)[:-2] + b"\0" * (1 << 17)))


@pytest.mark.parametrize("seed", range(20))
def test_random_bytes_end_and_raise_nothing_else(seed: int):
    rng, splitter = random.Random(seed), Splitter()
    image = bytearray(photo(seed))
    for _ in range(30):
        image[rng.randrange(len(image))] = rng.randrange(256)
    try:
        for part in splitter.feed(bytes(image) * 3):
            assert part.startswith(b"\xff\xd8")
    except Garbage:
        pass


def test_raw_frames_and_half_a_frame():
    stream = BytesIO(b"abcdef" * 2 + b"abc")
    assert [p.data for p in readers.raw_frames(stream, (2, 1))] == [b"abcdef", b"abcdef"]


def test_ppm_frames_change_their_size_and_a_cut_one_is_dropped():
    stream = BytesIO(b"P6\n2 1\n255\nabcdefP6\n1 1\n255\nxyzP6\n9 9\n255\nab")
    assert [(p.size, p.data) for p in ffmpeg.ppm_frames(stream)] == [((2, 1), b"abcdef"), ((1, 1), b"xyz")]


@pytest.mark.parametrize(
    "stream", [b"P5\n1 1\n255\nx", b"P6\n-1 1\n255\n", b"P6\n1 1\n65535\n", b"P6\n16000 16000\n255\n", b"\xff" * 100]
)
def test_another_stream_than_ppm_is_refused(stream: bytes):
    with pytest.raises(SourceError):
        list(ffmpeg.ppm_frames(BytesIO(stream)))
