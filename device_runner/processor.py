"""What the processor can do, as Linux tells it."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

FEATURES = frozenset({"asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2", "sme", "neon", "avx2", "avx512f",
                      "avx512_vnni", "avx_vnni", "amx_int8", "fma"})  # fmt: skip
"""What is worth telling: all that kernels of networks are chosen by."""


def features(root: Path = Path("/")) -> frozenset[str]:
    """Those of `FEATURES` that the first processor has; none where the system does not tell.

    Args:
        root: `proc/cpuinfo` is below it.
    """
    text = ""
    with suppress(OSError):
        text = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", text, re.MULTILINE)
    return FEATURES & set(found[1].split() if found else ())
