"""Fixtures of the pipeline tests: little data, and one export that many tests look at."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from pipeline_samples import MODELS, Exported, folder
from run_cli import Ran, run_cli

from shrink import pipeline
from shrink.progress import progress_on
from shrink.recipe import ExportRecipe


@pytest.fixture(scope="session")
def halves(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train/ and val/ of images that `pipeline_models.good` names rightly."""
    return folder(tmp_path_factory.mktemp("data") / "halves", train=64, val=60)


@pytest.fixture(scope="session")
def exported(halves: Path, tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """`pipeline_models.good`, exported to both int8 targets."""
    out = tmp_path_factory.mktemp("exported") / "out"
    recipe = ExportRecipe(model=f"{MODELS}:good", data=str(halves), calibrate="64", max_drop=10.0)
    command = ("shrink", "export", recipe.model, "--data", str(halves))
    progress = progress_on(sys.stderr, stages=pipeline.STAGES)
    return Exported(out, pipeline.export(recipe, out, command=command, progress=progress))


@pytest.fixture
def export(capfd: pytest.CaptureFixture[str], halves: Path, tmp_path: Path) -> Callable[..., Ran]:
    """`shrink export FACTORY OPTIONS`, of a factory in `pipeline_models`; some options are given unless they are."""

    def run(factory: str, *options: object, data: Path = halves, target: str = "onnx-int8") -> Ran:
        model = factory if ":" in factory else f"{MODELS}:{factory}"
        usual = ("--data", data, "--target", target, "--calibrate", 64, "--out", tmp_path / "out")
        return run_cli(capfd, "export", model, *usual, *options)

    return run


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """`shrink OPTIONS`."""
    return partial(run_cli, capfd)
