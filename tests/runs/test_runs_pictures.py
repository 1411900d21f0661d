"""Pictures of flipped images: the surest losses first, small, and refused when crafted."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from device_runner import npz
from shrink.errors import RequestError
from shrink.runs import pictures
from shrink.runs.predictions import Answered, Predictions


def one_file(labels: list[int], reference: list[int], file: list[int], sure: list[float]) -> Predictions:
    def rows(top1: list[int]) -> Answered:
        return Answered(np.array(top1, np.int32), np.array(sure, np.float16), np.zeros(len(top1), np.float16))

    n = len(labels)
    hashes = np.zeros((n, 16), np.uint8)
    refs = tuple(map(str, range(n)))
    return Predictions(
        ("a", "b", "c"), refs, hashes, np.array(labels, np.int32), {}, rows(reference), {"x": rows(file)}
    )


def noise(size: tuple[int, int], seed: int = 0) -> bytes:
    out = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def test_flips_are_the_images_that_only_one_names_rightly_losses_first_then_the_surest():
    #            kept  lost  lost  won   changed but wrong both times
    p = one_file([0, 0, 1, 2, 1], [0, 0, 1, 0, 0], [0, 1, 2, 2, 2], [0.9, 0.5, 0.8, 0.9, 0.9])
    assert pictures.flipped(p).tolist() == [2, 1, 3]


def test_no_file_is_no_flip():
    assert pictures.flipped(replace(one_file([0], [0], [1], [0.5]), files={})).tolist() == []


def test_pictures_are_small_and_of_the_right_rows():
    n = 60
    p = one_file([0] * n, [0] * n, [1] * n, [1 - i / 100 for i in range(n)])
    data = pictures.dump(p, lambda row: noise((400 + row, 300), row))
    found = pictures.parse(data)
    assert list(found) == list(range(pictures.MOST))
    assert len(data) < 1_200_000  # noise is the worst there is
    for picture in found.values():
        image = Image.open(io.BytesIO(picture))
        assert max(image.size) == pictures.SIDE and pictures.mime(picture) == "image/jpeg"


def test_a_tiny_image_keeps_every_pixel():
    small = noise((28, 20))
    found = pictures.thumbnail(small)
    assert pictures.mime(found) == "image/png"
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(found))), np.asarray(Image.open(io.BytesIO(small))))


def test_an_image_that_can_no_longer_be_read_has_no_picture():
    p = one_file([0, 0], [0, 0], [1, 1], [0.5, 0.6])
    found = pictures.parse(pictures.dump(p, lambda row: b"no image" if row else noise((8, 8))))
    assert list(found) == [0]


def crafted() -> dict[str, bytes]:
    def held(rows: list[int], offsets: list[int], files: bytes) -> bytes:
        arrays = {"rows": np.array(rows, np.int32), "offsets": np.array(offsets, np.int64)}
        return npz.pack(arrays | {"files": np.frombuffer(files, np.uint8)})

    good = pictures.thumbnail(noise((8, 8)))
    return {
        "nothing": b"",
        "svg": held([0], [0, 11], b"<svg></svg>"),
        "too many": held([0] * 51, [0] * 52, b""),
        "backwards": held([0, 1], [0, len(good), 0], good),
        "wraps": held([0, 1], [0, 2**63 - 1, len(good)], good),
        "too large": held([0], [0, 30_000], good.ljust(30_000)),
        "no offsets": held([], [], b""),
    }


@pytest.mark.parametrize("name", crafted())
def test_crafted_pictures_are_refused(name: str):
    with pytest.raises(RequestError, match=r"not pictures that can be read\n  why: .+\n  fix: "):
        pictures.parse(crafted()[name])
