"""What holds for all tests."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest
from hypothesis import settings

from shrink.process import settle

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores; must come before torch and numpy
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# no deadline: a busy machine is slow, not wrong; the same examples every time in CI, so that a run can be repeated
settings.register_profile("shrink", deadline=None, derandomize=bool(os.environ.get("CI")), print_blob=True)
settings.load_profile("shrink")

settle()  # as the command line does


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.CallInfo[None], None]:
    """Where ALL_PARTS is set, as in CI, a test that is skipped because a program "is not installed" has failed."""
    report = (yield).get_result()
    if report.skipped and os.environ.get("ALL_PARTS") and "is not installed" in str(report.longrepr):
        report.outcome = "failed"
