"""What a machine says of itself, and how it does while it is measured. Every path is below a root, for tests."""

from __future__ import annotations

import os
import platform
import re
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from device_runner.probe.record import Facts, Moment
from device_runner.processor import features, read

PACKAGES = ("numpy", "pillow", "msgspec", "ai-edge-litert", "tflite-runtime", "onnxruntime")
NAMES = ("model name", "Model", "Hardware")  # x86, then what ARM kernels write
BOARDS_OF_EMULATORS = ("linux,dummy-virt", "QEMU")
EVERY_S = 1.0


def facts(root: Path = Path("/")) -> Facts:
    """What does not change while a program runs."""
    cpuinfo, memory = read(root, "proc/cpuinfo") or "", read(root, "proc/meminfo") or ""
    return Facts(
        machine=platform.machine(),
        model=read(root, "proc/device-tree/model"),
        cpu=next(filter(None, (_field(cpuinfo, name) for name in NAMES)), None),
        cpu_parts=tuple(dict.fromkeys(re.findall(r"^CPU part\s*:\s*(\S+)", cpuinfo, re.MULTILINE))),
        features=tuple(sorted(features(root))),
        cores=os.cpu_count() or 1,
        memory_mb=_kilobytes(memory, "MemTotal"),
        kernel=platform.release(),
        system=_distribution(read(root, "etc/os-release") or ""),
        libc=" ".join(filter(None, platform.libc_ver())) or "unknown",
        python=platform.python_version(),
        packages=dict(_packages()),
        emulated=emulated(root),
    )


def emulated(root: Path = Path("/")) -> str | None:
    """What gives an emulator away: the name of the process (user mode) or of the board (whole system)."""
    if (name := read(root, "proc/self/comm") or "").startswith("qemu-"):
        return f"the process is {name}"
    board = f"{read(root, 'proc/device-tree/compatible')} {read(root, 'sys/class/dmi/id/sys_vendor')}"
    for mark in BOARDS_OF_EMULATORS:
        if mark in board and platform.machine() != "x86_64":  # an x86 guest of QEMU runs on the processor itself
            return f"the board is {mark}"
    return None


def moment(at_s: float, root: Path = Path("/")) -> Moment:
    """The state of the machine now."""
    domains = sorted((root / "sys/devices/system/cpu/cpufreq").glob("policy*"))
    memory = read(root, "proc/meminfo") or ""
    free, total = _kilobytes(memory, "SwapFree"), _kilobytes(memory, "SwapTotal")
    return Moment(
        at_s=round(at_s, 2),
        governors=tuple(filter(None, (read(domain, "scaling_governor") for domain in domains))),
        mhz=tuple(_numbers((read(domain, "scaling_cur_freq") for domain in domains), 1e-3)),
        max_mhz=tuple(_numbers((read(domain, "cpuinfo_max_freq") for domain in domains), 1e-3)),
        celsius=_hottest(root),
        throttled=_throttled(root),
        load=next(_numbers(((read(root, "proc/loadavg") or "").partition(" ")[0],)), None),
        pressure=next(_numbers(re.findall(r"^some avg10=(\S+)", read(root, "proc/pressure/cpu") or "")), None),
        available_mb=_kilobytes(memory, "MemAvailable"),
        swap_mb=None if free is None or total is None else round(total - free, 1),
    )


class Watch:
    """Looks at the machine every second, beside the measurement, and once at each end."""

    def __init__(self, root: Path = Path("/"), every_s: float = EVERY_S) -> None:
        self._root, self._every_s = root, every_s
        self._start, self._ended = time.monotonic(), threading.Event()
        self.moments: list[Moment] = []
        self._thread = threading.Thread(target=self._work, name="watch", daemon=True)

    def __enter__(self) -> Watch:
        self.look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        self.look()

    def look(self) -> None:
        """Note the state now."""
        self.moments.append(moment(time.monotonic() - self._start, self._root))

    def _work(self) -> None:
        while not self._ended.wait(self._every_s):
            self.look()


def memory_mb(key: str, root: Path = Path("/")) -> float | None:
    """VmRSS (resident now) or VmHWM (the most so far) of this process."""
    return _kilobytes(read(root, "proc/self/status") or "", key)


def _field(text: str, name: str) -> str | None:
    found = re.search(rf"^{name}\s*:[^\S\n]*(\S.*?)\s*$", text, re.MULTILINE)
    return " ".join(found[1].split()) if found else None


def _kilobytes(text: str, name: str) -> float | None:
    found = re.search(rf"^{name}:\s*([0-9]+) kB", text, re.MULTILINE)
    return round(int(found[1]) / 1024, 1) if found else None


def _distribution(text: str) -> str | None:
    found = re.search(r'^PRETTY_NAME="?([^"\n]*)', text, re.MULTILINE)
    return found[1] if found else None


def _packages() -> Iterator[tuple[str, str]]:
    for name in PACKAGES:
        with suppress(PackageNotFoundError):
            yield name, version(name)


def _numbers(texts: Iterable[str | None], scale: float = 1.0) -> Iterator[float]:
    for text in texts:
        with suppress(ValueError, TypeError):
            yield round(float(text or "") * scale, 3)


def _hottest(root: Path) -> float | None:
    zones = (read(zone, "temp") for zone in (root / "sys/class/thermal").glob("thermal_zone*"))
    return max((c for c in _numbers(zones, 1e-3) if -40 <= c <= 150), default=None)  # a sensor may say nonsense


def _throttled(root: Path) -> int | None:
    with suppress(ValueError):
        return int(read(root, "sys/devices/platform/soc/soc:firmware/get_throttled") or "", 16)
    return None
