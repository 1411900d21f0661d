"""What a row of `benchmarks.pruning` reads from the command's progress, and what it gives a peer."""

import io
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.facts import ROOT
from benchmarks.peers import torch_pruning
from benchmarks.pruning import stage_seconds, write_images
from shrink.progress import progress_on


@pytest.mark.parametrize(("told", "seconds"), [("4.2 s", 4.2), ("4 min 8 s", 248.0), ("4 min", None)])
def test_the_time_of_pruning_is_read_in_minutes_and_seconds(told: str, seconds: float | None) -> None:
    assert stage_seconds(f"load ... 1.0 s\ncapture and prune graph ... {told}\nwrite ... 3.0 s\n") == seconds


def test_it_is_found_in_what_the_command_says() -> None:
    stream = io.StringIO()
    with progress_on(stream, stages=1).stage("capture and prune graph"):
        pass
    assert stage_seconds(stream.getvalue()) == pytest.approx(0, abs=5)


@pytest.mark.parametrize(("limit", "judged"), [(7, 7), (10_000, 5_830)])
def test_a_peer_is_judged_by_as_many_images_as_there_are(tmp_path: Path, limit: int, judged: int) -> None:
    given = ["--recipe", str(ROOT / "recipes" / "fashion_vit.toml"), "--calibrate", "32"]
    told = write_images(given, limit, tmp_path / "c.npy", tmp_path / "j.npz")
    assert told[0] == "--model" and np.load(tmp_path / "c.npy").shape == (32, 1, 28, 28)
    assert np.load(tmp_path / "j.npz")["y"].shape == (judged,)


def test_a_peer_finds_the_preprocessing_in_a_recipe_that_names_no_data(tmp_path: Path) -> None:
    """Such as those of the photographs, whose data stand on the command line."""
    recipe, demo = tmp_path / "recipe.toml", ROOT / "recipes" / "demo"
    whole = (ROOT / "recipes" / "fashion_vit.toml").read_text(encoding="utf-8")
    recipe.write_text(whole[whole.index("[preprocess]") :], encoding="utf-8")
    given = [f"{demo / 'models.py'}:vit", "--recipe", str(recipe), "--checkpoint", str(demo / "vit.safetensors")]
    given += ["--data", "fashion-mnist", "--calibrate", "32"]
    told = write_images(given, 7, tmp_path / "c.npy", tmp_path / "j.npz")
    asked = {flag.removeprefix("--"): word for flag, word in zip(told[::2], told[1::2], strict=True)}
    module, shape = torch_pruning.load(Namespace(**asked | {"recipe": recipe, "checkpoint": demo / "vit.safetensors"}))
    assert shape == (1, 1, 28, 28) and not module.training
