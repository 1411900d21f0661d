"""Every recipe for training loads, and trains on little data."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch
from PIL import Image

from shrink import pipeline
from shrink.models.pruned_source import FILES
from shrink.progress import Quiet
from shrink.recipe import combine

FOLDER = Path(__file__).parents[2] / "recipes" / "tuning"
RECIPES = sorted(FOLDER.glob("*.toml"))
QUICK = "fashion_cnn"  # the others take up to half a minute each
TRAINED = [pytest.param(file, id=file.stem, marks=() if file.stem == QUICK else pytest.mark.slow) for file in RECIPES]
LITTLE = {"epochs": 1, "batch": 8, "accumulate": 1}
COUNT = {"fashion": 64, "cifar10": 48, "mobilenetv2": 18, "efficientnet": 18}  # images to train on
SMALL = {  # instead of 224 x 224
    "color": "RGB", "exif": True, "resize": "exact", "size": [64, 64], "filter": "bilinear",
    "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5],
}  # fmt: skip


def pictures(file: Path, count: int, classes: int, shape: tuple[int, ...]) -> Path:
    """Blurred noise, brighter from class to class; the images of the second half judge."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 120, (2 * count, 8, 8, 3), dtype=np.uint8)
    pixels = np.stack([np.asarray(Image.fromarray(one).resize(shape[:2], Image.Resampling.BICUBIC)) for one in small])
    labels = np.arange(2 * count) % classes
    pixels = np.clip(pixels + (100 // classes * labels)[:, None, None, None], 0, 255).astype(np.uint8)
    pixels = pixels if len(shape) == 3 else pixels[..., 0]
    parts = {"x_train": pixels[:count], "y_train": labels[:count], "x_test": pixels[count:], "y_test": labels[count:]}
    np.savez(file, **parts, classes=np.array([f"class {number}" for number in range(classes)]))
    return file


@pytest.mark.parametrize("file", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_says_what_is_trained(file: Path) -> None:
    asked = combine(file, {})
    assert asked.tune is not None and asked.tune.epochs > 0
    network, _, function = asked.model.partition("?")[0].rpartition(":")
    assert not network.endswith(".py") or f"def {function}(" in Path(network).read_text()


@pytest.mark.parametrize("file", TRAINED)
def test_a_recipe_trains_on_little_data(file: Path, tmp_path: Path) -> None:
    kind = file.stem.partition("_")[0]
    folder, shape = file.stem.endswith("_folder"), (28, 28) if kind == "fashion" else (32, 32, 3)
    data = pictures(tmp_path / "data.npz", COUNT[kind], 3 if folder else 10, shape)
    asked = combine(file, {})
    flags: dict[str, object] = {"data": str(data), "calibrate": "32", "tune": LITTLE}
    if asked.pruning:  # fitting after it takes long; tests/pipeline prunes and trains
        flags["tune"] = {**LITTLE, "labels": 0.5}
    flags |= {"model": asked.model.partition("?")[0], "preprocess": SMALL} if folder else {}  # nothing is downloaded
    out = tmp_path / "tuned"
    little = msgspec.structs.replace(combine(file, flags), prune=None)
    found = pipeline.tune(little, out, head=0 if folder else None, progress=Quiet())
    assert found is not None and np.isfinite(found.tuned.fitted.losses).all()
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    assert found.judged.images == COUNT[kind]


def test_there_are_the_recipes_that_are_promised() -> None:
    assert len(RECIPES) == 6
    readme = (FOLDER / "README.md").read_text()
    assert [file.name for file in RECIPES if f"`{file.name}`" not in readme] == []


def test_the_residual_networks_are_those_of_the_paper() -> None:
    """He et al. 2016, table 6: 0.27 and 0.85 million parameters."""
    import importlib.util

    spec = importlib.util.spec_from_file_location("resnet", FOLDER / "resnet.py")
    assert spec is not None and spec.loader is not None
    resnet = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(resnet)
    for make, millions in ((resnet.resnet20, 0.27), (resnet.resnet56, 0.85)):
        network = make()
        assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(millions, abs=0.006)
        assert network(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
