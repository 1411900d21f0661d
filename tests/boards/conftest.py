"""A bundle, labelled images of it, and directories of its own for every test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from shrink.boards.places import Places

sys.path.insert(0, str(Path(__file__).parents[1] / "device_runner"))  # its bundles serve here too
from runner_bundles import LABELS, make_files, photo, write_directory


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    """Where shrink keeps its things during this test, in this process and in those it starts."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return Places(tmp_path / "cache" / "shrink", tmp_path / "config" / "shrink")


@pytest.fixture(scope="session")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Kind -> a tiny bundle on disk."""
    folder = tmp_path_factory.mktemp("bundles")
    kinds = ("tflite-int8", "tflite-float32", "onnx-int8", "onnx-float32")
    return {kind: write_directory(folder / kind, make_files(kind)) for kind in kinds}


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images, two of each class; their classes have nothing to do with what they show."""
    folder = tmp_path_factory.mktemp("photos")
    for index in range(10):
        path = folder / LABELS[index % 5] / f"{index}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(photo(100 + index))
    return folder
