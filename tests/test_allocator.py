"""Freed memory is used again: counted in pages that the system had to provide."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import numpy as np
if sys.argv[1] == "kept":
    from shrink.allocator import keep_freed_memory
    keep_freed_memory()
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
