"""Fixtures of the model tests."""

from pathlib import Path

import pytest

TINY = str(Path(__file__).with_name("tiny.py"))


@pytest.fixture
def tiny() -> str:
    """The path of `tiny.py`, to be followed by `:factory`."""
    return TINY
