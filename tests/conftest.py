"""What holds for all tests."""

from __future__ import annotations

import os

from hypothesis import settings

if "PYTEST_XDIST_WORKER" in os.environ:  # the workers share the cores; must come before torch and numpy
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# no deadline: a busy machine is slow, not wrong; the same examples every time in CI, so that a run can be repeated
settings.register_profile("shrink", deadline=None, derandomize=bool(os.environ.get("CI")), print_blob=True)
settings.load_profile("shrink")
