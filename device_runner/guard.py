"""Is what the camera shows worth deciding on? A frozen, black, white or covered camera is not."""

from __future__ import annotations

from typing import Protocol

from device_runner.clock import SECOND

EVEN = 4.0
"""Below this standard deviation of grey levels (0..255) a picture shows nothing: lens cap, darkness, glare."""


class Picture(Protocol):
    """What is known of a frame; `worker.model.Look` is one."""

    @property
    def spread(self) -> float:
        """Standard deviation of the grey levels."""
        ...

    @property
    def digest(self) -> bytes:
        """Equal for the very same picture only."""
        ...


class Guard:
    """Watches the pictures of one source."""

    def __init__(self, frozen_s: float, covered_s: float, live: bool) -> None:
        self._frozen_ns, self._covered_ns, self._live = frozen_s * SECOND, covered_s * SECOND, live
        self._digest: bytes | None = None
        self._same_since_ns = 0
        self._even_since_ns: int | None = None
        self.tampered: str | None = None  # "frozen" or "covered", once it lasted; for the status

    def judge(self, picture: Picture, captured_ns: int) -> str | None:
        """Why this frame decides nothing, or None.

        An even picture decides nothing at once. The very same picture again is no further evidence, and after
        `frozen_s` the camera counts as frozen; both of live sources only.
        """
        even = picture.spread < EVEN
        if not even:
            self._even_since_ns = None
        elif self._even_since_ns is None:
            self._even_since_ns = captured_ns
        same = self._live and picture.digest == self._digest
        if not same:
            self._digest, self._same_since_ns = picture.digest, captured_ns
        frozen = same and captured_ns - self._same_since_ns >= self._frozen_ns
        lasted = self._even_since_ns is not None and captured_ns - self._even_since_ns >= self._covered_ns
        self.tampered = "covered" if lasted else "frozen" if frozen else None
        reasons = {"covered": even, "frozen": frozen, "same": same}
        return next((reason for reason, holds in reasons.items() if holds), None)

    def forget(self) -> None:
        """The source was lost: nothing before it counts."""
        self._digest, self._even_since_ns, self.tampered = None, None, None
