"""What this machine is, in words, for every number that was measured on it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from device_runner.probe.facts import facts

DOT_PRODUCTS = ("amx_int8", "avx512_vnni", "avx_vnni", "i8mm", "asimddp")  # as Linux names them, the best first


def host(root: Path = Path("/"), cores: int | None = None) -> str:
    """Processor, cores and what int8 gains from: "AMD EPYC 9004, 2 cores, int8 dot products (avx512_vnni)".

    Processors that share a name differ in the last part, and int8 files in their times by a factor of up to 3.
    """
    processor, count = facts(root).cpu or platform.processor() or platform.machine(), cores or os.cpu_count() or 1
    return ", ".join(filter(None, (processor, f"{count} core{'s' if count > 1 else ''}", int8_dot_products(root))))


def int8_dot_products(root: Path = Path("/")) -> str:
    """Whether the processor multiplies and adds four int8 values at once; "" where the system does not tell."""
    features = facts(root).features
    best = next((name for name in DOT_PRODUCTS if name in features), None)
    if best is not None:
        return f"int8 dot products ({best})"
    return "no int8 dot products" if features else ""
