"""Fewer frames while the device is hot: steps down and up with a gap between, so that the rate does not swing."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from device_runner.clock import SECOND
from device_runner.config.parts import Heat as HeatConfig

SLOWEST = 8.0
STEP_S = 10.0  # between two steps: heat follows slowly
UNDER_VOLTAGE_NOW = 0x1  # bit of the Raspberry Pi's get_throttled


class Heat:
    """Reads the sensors of a device below `sysfs`."""

    def __init__(self, config: HeatConfig) -> None:
        self._config, self._root = config, Path(config.sysfs)
        self._next_ns = 0
        self.slowdown = 1.0  # 1, 2, 4 or 8
        self.celsius: float | None = None  # None: no sensor
        self.undervoltage: bool | None = None  # None: the device does not say

    def step(self, now_ns: int) -> float:
        """Look at the sensors; how much less often than at full rate frames should be looked at."""
        self.celsius, self.undervoltage = self._read_celsius(), self._read_undervoltage()
        if self.celsius is None or now_ns < self._next_ns:
            return self.slowdown
        before = self.slowdown
        if self.celsius >= self._config.limit_c:
            self.slowdown = min(self.slowdown * 2, SLOWEST)
        elif self.celsius <= self._config.resume_c:
            self.slowdown = max(self.slowdown / 2, 1.0)
        if self.slowdown != before:
            self._next_ns = now_ns + int(STEP_S * SECOND)
        return self.slowdown

    def _read_celsius(self) -> float | None:
        """The hottest zone; a sensor that says nonsense does not count."""
        values = []
        for path in self._root.glob("class/thermal/thermal_zone*/temp"):
            with suppress(OSError, ValueError):
                values.append(int(path.read_text(encoding="ascii")) / 1000)
        return max((v for v in values if -40 <= v <= 150), default=None)

    def _read_undervoltage(self) -> bool | None:
        with suppress(OSError, ValueError):
            path = self._root / "devices/platform/soc/soc:firmware/get_throttled"
            return bool(int(path.read_text(encoding="ascii"), 16) & UNDER_VOLTAGE_NOW)
        return None
