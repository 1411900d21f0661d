"""Evaluation images as files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from data_samples import folder, listing, write
from PIL import Image

from shrink.data.sources import read
from shrink.data.unpack import slug, unpack
from shrink.errors import OutputError


def test_built_in_images_are_written_losslessly(tmp_path: Path) -> None:
    paths = unpack("fashion-mnist", tmp_path / "out", 12)
    assert [path.name for path in paths[:4]] == [
        "t-shirt-top_0.png",
        "t-shirt-top_1.png",
        "trouser_0.png",
        "trouser_1.png",
    ]
    assert len(set(paths)) == 12 and sorted(paths) == sorted((tmp_path / "out").iterdir())
    images = read("fashion-mnist").evaluation
    assert images.labels is not None
    first = int(np.flatnonzero(images.labels == 1)[0])
    assert paths[2].read_bytes() == images.encoded(first)
    assert Image.open(paths[2]).size == (28, 28)


def test_files_keep_their_bytes_and_ending(tmp_path: Path) -> None:
    folder(tmp_path / "data", {"cat": 2})
    (tmp_path / "data" / "cat" / "001.png").rename(tmp_path / "data" / "cat" / "001.JPEG")
    paths = unpack(str(tmp_path / "data"), tmp_path / "out", 9)
    assert [path.name for path in paths] == ["cat_0.png", "cat_1.jpeg"]
    assert paths[1].read_bytes() == (tmp_path / "data" / "cat" / "001.JPEG").read_bytes()


def test_names_that_look_alike_and_hostile_names_stay_apart(tmp_path: Path) -> None:
    lines = ["path,label", "a.png,../../x", "a.png,X", "a.png,;", "a.png,x;"]
    write(tmp_path / "a.png", 1)
    paths = unpack(str(listing(tmp_path / "t.csv", lines)), tmp_path / "out", 4)
    assert {path.name for path in paths} == {"x_0.png", "x_1.png", "x_2.png", "class_0.png"}
    assert all(path.parent == tmp_path / "out" for path in paths)


def test_labels_without_names(tmp_path: Path) -> None:
    write(tmp_path / "a.png", 1)
    table = listing(tmp_path / "t.csv", ["path,label,name", "a.png,7,", "a.png,1,goldfish"])
    assert [path.name for path in unpack(str(table), tmp_path / "out", 2)] == ["goldfish_0.png", "class-7_0.png"]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot write images"):
        unpack("fashion-mnist", tmp_path / "file", 1)


def test_slug() -> None:
    assert [slug(text) for text in ("T-shirt/top", "  Ankle boot ", "日本")] == ["t-shirt-top", "ankle-boot", "class"]
