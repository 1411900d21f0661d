"""Boards that QEMU emulates in user mode: which processors, and how Python is started on them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from shrink.boards.board import Board
from shrink.boards.places import Places
from shrink.errors import BoardError, nearest

CPUS: Mapping[str, str] = {"cortex-a53": "0xd03", "cortex-a72": "0xd08", "cortex-a76": "0xd0b"}
"""Processor as QEMU names it -> its "CPU part", by which the runtimes choose kernels: the two must agree."""

FEATURES: Mapping[str, str] = {
    "cortex-a53": "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid",
    "cortex-a72": "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid",
    "cortex-a76": "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp",
}
CORES = 4
MANIFEST = "manifest.json"
SETUP = "shrink board setup qemu"


def emulated(url: str, places: Places) -> Board:
    """The emulated board of a URL such as `qemu:cortex-a72`.

    Raises:
        BoardError: not one of CPUS, or the emulator is not set up.
    """
    cpu = url.removeprefix("qemu:")
    if cpu == "max":
        why = "with this set of features QEMU 7.2 gives wrong int8 answers"
        raise BoardError("qemu:max is refused", why, f"use one of: {', '.join(CPUS)}")
    if not url.startswith("qemu:") or cpu not in CPUS:
        raise BoardError(f"{url!r} is no emulated board", "it is not qemu:CPU", nearest(cpu, CPUS))
    prepared = read_manifest(places.emulator)
    if prepared is None:
        raise BoardError(f"{url} is not set up", f"nothing is in {places.emulator}", SETUP)
    root = places.emulator / cpu
    words = [prepared["qemu"], "-cpu", cpu, "-L", str(root), "-U", "LD_LIBRARY_PATH", *_guest(places.emulator)]
    return Board(
        url=url,
        kind="qemu",
        python=(*words, str(root / "usr/bin/python3.11"), "-s"),
        base=str(places.here),
        environment={"LD_LIBRARY_PATH": prepared["libraries"]} if prepared["libraries"] else {},
        emulates=cpu,
        plugin=prepared["plugin"],
        pip=SETUP + " #",
    )


def _guest(folder: Path) -> list[str]:
    """The guest's environment: the same hash seed every time, so that counts of instructions repeat."""
    given = {"PYTHONPATH": str(folder / "site"), "PYTHONDONTWRITEBYTECODE": "1", "PYTHONHASHSEED": "0"}
    return [word for name, value in given.items() for word in ("-E", f"{name}={value}")]


def read_manifest(folder: Path) -> dict[str, str] | None:
    """What the setup wrote when it was complete: "qemu", the program, and "libraries", a path for it or ""."""
    try:
        content = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) and Path(content.get("qemu", "")).is_file() else None


def cpuinfo(cpu: str) -> str:
    """/proc/cpuinfo of that processor: QEMU 7.2 shows the host's, which the runtimes cannot read."""
    core = (
        "processor\t: {}\nBogoMIPS\t: 108.00\nFeatures\t: {}\nCPU implementer\t: 0x41\n"
        "CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: {}\nCPU revision\t: 3\n"
    )
    return "\n".join(core.format(number, FEATURES[cpu], CPUS[cpu]) for number in range(CORES))
