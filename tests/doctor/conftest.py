"""Fixtures of the doctor's tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from doctor_samples import arrays, recipe

from shrink.doctor.findings import Finding
from shrink.progress import Quiet
from shrink.steps.doctoring import Examination, examine


@pytest.fixture(scope="session")
def good() -> dict[str, np.ndarray]:
    """Arrays of good data; tests change copies."""
    return arrays()


@pytest.fixture
def examined(good: dict[str, np.ndarray], tmp_path: Path) -> Callable[..., Examination]:
    """What the doctor says of the good arrays with some replaced."""

    def run(factory: str = "nearest", **changed: np.ndarray) -> Examination:
        np.savez(tmp_path / "data.npz", **(good | changed))
        return examine(recipe(tmp_path / "data.npz", factory), Quiet())

    return run


@pytest.fixture
def wrong(examined: Callable[..., Examination]) -> Callable[..., dict[str, Finding]]:
    """The findings that are not ok, by check."""

    def run(factory: str = "nearest", **changed: np.ndarray) -> dict[str, Finding]:
        return {found.check: found for found in examined(factory, **changed).findings if found.level != "ok"}

    return run
