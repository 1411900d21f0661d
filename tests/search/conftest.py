"""Little images for the search: four grey levels."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def greys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """train/ and val/ of 16 x 16 pictures that `search_models.grey` names rightly, but for a few near a border."""
    root, rng = tmp_path_factory.mktemp("data") / "greys", np.random.default_rng(0)
    for part, count in (("train", 64), ("val", 120)):
        for index in range(count):
            level = 32 + 64 * (index % 4) + int(rng.integers(-25, 26))
            small = Image.fromarray(np.clip(level + rng.integers(-30, 31, (4, 4)), 0, 255).astype(np.uint8))
            pixels = small.resize((16, 16), Image.Resampling.BICUBIC)
            path = root / part / "abcd"[index % 4] / f"{index:03}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels.save(path)
    return root
