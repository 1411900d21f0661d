"""What this machine is, in words, for every number that was measured on it."""

from __future__ import annotations

import os
import platform
import re
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
_NAMES = ("model name", "Model", "Hardware")  # x86, then what ARM kernels write


def host(cpuinfo: Path = CPUINFO, cores: int | None = None) -> str:
    """Processor and core count, such as "Intel(R) Xeon(R) Platinum 8370C CPU @ 2.80GHz, 2 cores"."""
    count = cores or os.cpu_count() or 1
    return f"{_processor(cpuinfo)}, {count} core{'s' if count > 1 else ''}"


def _processor(cpuinfo: Path) -> str:
    try:
        text = cpuinfo.read_text(errors="replace")
    except OSError:
        text = ""
    for name in _NAMES:
        if found := re.search(rf"^{name}\s*:[^\S\n]*(\S.*?)\s*$", text, re.MULTILINE):
            return " ".join(found[1].split())
    return platform.processor() or platform.machine() or "unknown processor"
