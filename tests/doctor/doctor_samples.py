"""Pictures that `doctor_models.nearest` names rightly, and what people do to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from doctor_models import CLASSES, MEAN, STD, prototypes
from numpy.typing import NDArray
from PIL import Image

from device_runner.manifest import Preprocess
from shrink.recipe import ExportRecipe

MODELS = Path(__file__).with_name("doctor_models.py")
PREPROCESS = Preprocess(
    color="RGB", exif=True, resize="exact", size=(32, 32), filter="bilinear", crop=None, mean=MEAN, std=STD
)
Pixels = NDArray[np.uint8]


def picture(label: int, rng: np.random.Generator) -> Pixels:
    """A smooth colour picture of that class, (32, 32, 3), with something else on it every time."""
    parts = (prototypes()[label], 128 + rng.integers(-127, 128, (8, 8, 3)))
    big = [np.asarray(Image.fromarray(p.astype(np.uint8)).resize((32, 32), Image.Resampling.BICUBIC)) for p in parts]
    return np.clip(big[0] + 0.6 * (big[1].astype(float) - 128), 0, 255).astype(np.uint8)


def pictures(count: int, seed: int) -> Pixels:
    """Pictures of all classes in turn."""
    rng = np.random.default_rng(seed)
    return np.stack([picture(index % CLASSES, rng) for index in range(count)])


def arrays(train: int = 160, test: int = 300) -> dict[str, NDArray[np.generic]]:
    """Good data, as the arrays of a .npz."""
    return {
        "x_train": pictures(train, 1),
        "y_train": np.arange(train) % CLASSES,
        "x_test": pictures(test, 2),
        "y_test": np.arange(test) % CLASSES,
    }


def recipe(
    data: Path, factory: str = "nearest", calibrate: str = "256", preprocess: Preprocess = PREPROCESS
) -> ExportRecipe:
    """What the doctor is asked for."""
    return ExportRecipe(
        model=f"{MODELS}:{factory}", data=str(data), calibrate=calibrate, preprocess=preprocess, max_drop=1.0
    )
