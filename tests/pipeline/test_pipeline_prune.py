"""`shrink prune`, what it writes, and `shrink export` of it; and pruning within an export."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from pipeline_samples import MODELS
from run_cli import Ran, run_cli

from shrink import models
from shrink.errors import ModelError
from shrink.models.pruned_source import FILES
from shrink.report import schema

MODEL = f"{MODELS}:prunable"


@pytest.fixture(scope="module")
def small(halves: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`pipeline_models.prunable`, pruned by the command."""
    from shrink import pipeline
    from shrink.progress import Quiet
    from shrink.recipe import ExportRecipe

    out = tmp_path_factory.mktemp("pruned") / "small"
    recipe = ExportRecipe(model=MODEL, data=str(halves), calibrate="64", prune="1.5x", prune_score="magnitude")
    found = pipeline.prune(recipe, out, dry_run=False, progress=Quiet())
    assert found.judged is not None and found.judged.images == 60
    assert found.judged.top1_before - found.judged.top1_after < 0.05
    return out


def prune(capfd: pytest.CaptureFixture[str], halves: Path, *options: object) -> Ran:
    return run_cli(capfd, "prune", MODEL, "--data", halves, "--calibrate", 64, "--prune-score", "magnitude", *options)


def test_a_dry_run_prints_the_plan_and_writes_nothing(
    capfd: pytest.CaptureFixture[str], halves: Path, tmp_path: Path
) -> None:
    ran = prune(capfd, halves, "--prune", "1.5x", "--dry-run", "--out", tmp_path / "small")
    assert ran.code == 0 and not list(tmp_path.iterdir())
    lines = ran.out.splitlines()
    assert lines[0].split() == ["layer", "weight", "pruned", "MACs", "pruned"]
    head = next(line for line in lines if line.startswith("head"))
    assert "4x16" in head
    assert next(line for line in lines if line.startswith("stays: head")) == "stays: head: the model's answers"
    macs = next(line for line in lines if line.startswith("MACs "))
    before, after = (int(part.replace(",", "")) for part in macs.split()[1:4:2])
    assert after <= before / 1.5


def test_the_plan_can_be_had_as_json(capfd: pytest.CaptureFixture[str], halves: Path) -> None:
    ran = prune(capfd, halves, "--prune-params", "40%", "--keep", "head", "--dry-run", "--json")
    plan = json.loads(ran.out)
    assert plan["parameters_after"] <= 0.6 * plan["parameters_before"]
    assert {"layer": "head", "why": "asked to be kept"} in plan["skipped"]


def test_a_pruned_model_is_read_without_its_code(small: Path) -> None:
    assert {path.name for path in small.iterdir()} == set(FILES)
    model = models.load(f"pruned:{small}")
    assert model.outputs == 4 and model.weights == "factory"
    assert model.preprocess == models.load(MODEL).preprocess
    before = sum(parameter.numel() for parameter in models.load(MODEL).module.parameters())
    assert sum(parameter.numel() for parameter in model.module.parameters()) < before


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_pruned_model_is_refused(small: Path, tmp_path: Path, name: str) -> None:
    for path in small.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    damaged = bytearray((tmp_path / name).read_bytes())
    damaged[len(damaged) // 2] ^= 1
    (tmp_path / name).write_bytes(damaged)
    with pytest.raises(ModelError):
        models.load(f"pruned:{tmp_path}")
    (tmp_path / name).unlink()
    with pytest.raises(ModelError, match="is not a pruned or tuned model"):
        models.load(f"pruned:{tmp_path}")


def test_a_pruned_model_takes_no_arguments(small: Path) -> None:
    with pytest.raises(ModelError, match="has arguments"):
        models.load(f"pruned:{small}?width=3")


def test_a_pruned_model_is_exported_like_any_other(
    capfd: pytest.CaptureFixture[str], small: Path, halves: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    ran = run_cli(
        capfd, "export", f"pruned:{small}", "--data", halves, "--target", "tflite-fp32", "--out", out, "--max-drop", 10
    )
    assert ran.code == 0, ran.err
    report = schema.parse((out / "report.json").read_bytes())
    plan = json.loads((small / "model.json").read_bytes())["plan"]
    assert report.model.macs == plan["macs_after"]


def test_pruning_within_an_export_is_judged_against_the_whole_model(
    capfd: pytest.CaptureFixture[str], halves: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    options = ("--prune", "1.5x", "--prune-score", "magnitude", "--calibrate", 64, "--max-drop", 10)
    ran = run_cli(capfd, "export", MODEL, "--data", halves, "--target", "onnx-fp32", "--out", out, *options)
    assert ran.code == 0, ran.err
    report = schema.parse((out / "report.json").read_bytes())
    (artifact,) = report.artifacts
    assert artifact.changes[0].startswith("pruned to ")
    assert {item.what for item in artifact.skipped} >= {"pruning of head"}
    (step,) = report.steps
    assert artifact.accuracy is not None
    assert (step.what, step.top1) == ("pruned 1.5x", artifact.accuracy.top1)  # the file is that graph, in float
    manifest = json.loads((out / "onnx-fp32" / "manifest.json").read_bytes())
    assert manifest["provenance"]["pruning"]["macs_after"] == report.model.macs


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ((), "nothing is to be pruned"),
        (("--prune", "1x"), "prune is '1x'"),
        (("--prune", "500x"), "pruning by 500x cannot be reached"),
        (("--prune", "2x", "--keep", "wide"), "pruning by 2x cannot be reached"),
        (("--prune-to-latency", "1.5"), "prune_to_latency is 1.5"),
        (("--prune", "2x", "--prune-to-latency", "0.5"), "prune and prune_to_latency are both given"),
        (("--prune-to-latency", "0.001"), "pruning to 0.001 of the latency cannot be reached"),
        (("--prune", "2x", "--keep", "nowhere"), "there is no layer 'nowhere' to keep"),
    ],
)
def test_what_cannot_be_pruned_is_said_in_three_lines(
    capfd: pytest.CaptureFixture[str], halves: Path, tmp_path: Path, options: tuple[str, ...], what: str
) -> None:
    ran = prune(capfd, halves, "--out", tmp_path / "small", *options)
    assert ran.code == 2 and ran.problem[0] == what
    assert not list(tmp_path.iterdir())


def test_an_output_in_the_way_is_not_touched(capfd: pytest.CaptureFixture[str], halves: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    ran = prune(capfd, halves, "--prune", "2x", "--out", tmp_path, "--force")
    assert ran.code == 2 and (tmp_path / "notes.txt").read_text() == "mine"


def test_shapes_that_depend_on_pixels_name_the_op_and_the_layer(
    capfd: pytest.CaptureFixture[str], halves: Path, tmp_path: Path
) -> None:
    ran = run_cli(capfd, "prune", f"{MODELS}:picky", "--data", halves, "--prune", "2x", "--out", tmp_path / "small")
    assert ran.code == 1 and "in layer 'pick' gives a shape that depends on pixel values" in ran.problem[0]


def test_what_is_loaded_can_be_trained(small: Path) -> None:
    module = models.load(f"pruned:{small}").module.requires_grad_(True)
    module(torch.zeros(1, 1, 16, 16)).sum().backward()
    assert all(parameter.grad is not None for parameter in module.parameters())
