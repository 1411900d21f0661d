"""Bundles shared by the runner's tests; each kind is built once."""

from __future__ import annotations

from pathlib import Path

import pytest
from runner_bundles import KINDS, make_files, write_directory


@pytest.fixture(scope="session")
def all_files() -> dict[str, dict[str, bytes]]:
    """Kind of bundle -> its files."""
    return {kind: make_files(kind) for kind in KINDS}


@pytest.fixture(params=KINDS)
def any_files(request: pytest.FixtureRequest, all_files: dict[str, dict[str, bytes]]) -> dict[str, bytes]:
    """The files of each kind of bundle in turn."""
    return all_files[request.param]


@pytest.fixture
def files(all_files: dict[str, dict[str, bytes]]) -> dict[str, bytes]:
    """The files of one bundle, for tests where the kind makes no difference."""
    return all_files["tflite-int8"]


@pytest.fixture
def bundle_path(tmp_path: Path, files: dict[str, bytes]) -> Path:
    """One good bundle on disk."""
    return write_directory(tmp_path / "tiny.bundle", files)
