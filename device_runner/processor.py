"""What the system tells of itself in files, and what it says that the processor can do."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

FEATURES = frozenset({"asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2", "sme", "neon", "avx2", "avx512f",
                      "avx512_vnni", "avx_vnni", "amx_int8", "fma"})  # fmt: skip
"""What is worth telling: all that kernels of networks are chosen by."""


def read(root: Path, path: str) -> str | None:
    """The text of a file below the root, stripped; None where there is none."""
    with suppress(OSError):
        return (root / path).read_text(encoding="utf-8", errors="replace").strip("\0\n\t ")
    return None


def features(root: Path = Path("/")) -> frozenset[str]:
    """Those of `FEATURES` that the first processor has; none where the system does not tell.

    Args:
        root: `proc/cpuinfo` is below it.
    """
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", read(root, "proc/cpuinfo") or "", re.MULTILINE)
    return FEATURES & set(found[1].split() if found else ())
