"""Freed memory is used again, counted in pages of the system; threads wait as OpenMP itself says that they do."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
if sys.argv[1] == "kept":
    from shrink.process import settle
    settle()
np.ones(50 << 20, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    np.ones(50 << 20, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    ran = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    return int(ran.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's allocator")
def test_the_same_memory_is_not_asked_for_twice() -> None:
    pages = (50 << 20) // resource.getpagesize()
    assert faults("kept") < pages / 100
    assert faults("as it is") > faults("kept")


def spins(**given: str) -> set[str]:
    """What every OpenMP that torch loads says of GOMP_SPINCOUNT."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_"))}
    program = "from shrink.process import settle; settle(); import torch"
    environment = {**kept, "OMP_DISPLAY_ENV": "VERBOSE", **given}
    argv = [sys.executable, "-c", program]
    ran = subprocess.run(argv, capture_output=True, text=True, check=True, env=environment)
    return set(re.findall(r"GOMP_SPINCOUNT = '(.*?)'", ran.stderr))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="libgomp")
def test_threads_spin_for_a_short_time_unless_the_user_says_otherwise() -> None:
    assert spins() == {"10000"}
    assert spins(GOMP_SPINCOUNT="77") == {"77"}
    assert "10000" not in spins(OMP_WAIT_POLICY="active")
