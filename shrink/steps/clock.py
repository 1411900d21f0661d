"""How long each step took, while it is shown."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from shrink.progress import Progress, Stage


@dataclass(slots=True)
class Clock:
    """Seconds per step, in the order run; a step that failed is not in it."""

    progress: Progress
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Show and time one step."""
        start = time.monotonic()
        with self.progress.stage(name) as stage:
            yield stage
        self.seconds[name] = round(time.monotonic() - start, 2)
