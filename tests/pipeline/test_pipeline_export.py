"""The whole story: an export leaves bundles that a device can use and a report that says what was found."""

from __future__ import annotations

import hashlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from ai_edge_litert.interpreter import Interpreter, OpResolverType
from PIL import Image
from pipeline_samples import BESIDE, CLASSES, MODELS, Exported, folder
from run_cli import Ran

from device_runner.bundle import Bundle, open_bundle
from device_runner.engines import open_engine
from device_runner.golden import read_golden
from device_runner.selftest import selftest
from shrink import pipeline
from shrink.errors import OutputError
from shrink.progress import Quiet
from shrink.recipe import ExportRecipe
from shrink.report import schema
from shrink.runs import pictures, predictions

TARGETS = ("tflite-int8", "onnx-int8")
Export = Callable[..., Ran]


# --- what is written


def test_there_is_a_bundle_per_target_and_the_report(exported: Exported) -> None:
    assert sorted(path.name for path in exported.out.iterdir()) == sorted([*TARGETS, *BESIDE])


@pytest.mark.parametrize("target", TARGETS)
def test_a_device_accepts_the_bundle_and_finds_its_golden_answers(exported: Exported, target: str) -> None:
    bundle = open_bundle(exported.out / target)
    assert selftest(bundle, open_engine(bundle.model, bundle.manifest.format)).n == 16
    assert bundle.manifest.labels == CLASSES
    assert bundle.manifest.target == target
    assert bundle.manifest.provenance["weights"] == "factory"
    assert bundle.manifest.provenance["recipe"]["calibrate"] == "64"


def test_a_device_passes_pixels_through_to_a_bundle_without_floats(export: Export, tmp_path: Path) -> None:
    ran = export("good", "--input", "uint8", "--max-drop", 10, target="tflite-int8-full")
    assert ran.code == 0, ran
    bundle = open_bundle(tmp_path / "out" / "tflite-int8-full")
    spec, out = bundle.manifest.input, bundle.manifest.output
    assert (spec.dtype, spec.values, spec.scale, spec.zero_point) == ("uint8", "pixels", 1.0, 0)
    assert (out.dtype, bundle.manifest.truth.input_dtype, bundle.manifest.truth.output_dtype) == (
        "int8",
        "uint8",
        "int8",
    )
    assert selftest(bundle, open_engine(bundle.model, "tflite")).n == 16
    assert out.kernel_spread == pytest.approx(spread_of(bundle), rel=1e-6) and out.kernel_spread < 10 * out.scale


def spread_of(bundle: Bundle) -> float:
    """The largest difference between the golden outputs and those of LiteRT's interpreter without XNNPACK."""
    golden, m = read_golden(bundle.files["golden.npz"]), bundle.manifest
    alone = Interpreter(
        model_content=bundle.model, experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    )
    alone.allocate_tensors()
    assert not any(op["op_name"] == "DELEGATE" for op in alone._get_ops_details())
    worst = 0
    for pixels, want in zip(golden.pixels, golden.outputs, strict=True):
        alone.set_tensor(alone.get_input_details()[0]["index"], pixels[np.newaxis])
        alone.invoke()
        got = alone.get_tensor(alone.get_output_details()[0]["index"])
        worst = max(worst, int(np.abs(got[0].astype(int) - want.astype(int)).max()))
    return worst * float(m.output.scale or 0)


def test_the_report_on_disk_is_the_report(exported: Exported) -> None:
    assert schema.parse((exported.out / "report.json").read_bytes()) == exported.report


def test_the_manifest_and_the_report_tell_the_same_story(exported: Exported) -> None:
    for artifact in exported.report.artifacts:
        bundle = open_bundle(exported.out / artifact.target)
        manifest = bundle.manifest
        assert (manifest.truth, manifest.accuracy, manifest.latency) == (
            artifact.truth,
            artifact.accuracy,
            artifact.latency,
        )
        assert artifact.size_bytes == len(bundle.model)
        assert artifact.bundle == artifact.target


def test_the_figures_are_those_of_a_model_that_is_always_right(exported: Exported) -> None:
    report = exported.report
    assert report.verdict == "pass"
    assert [note for note in report.notes if "than its float file on this host" not in note] == []  # it is too small
    assert (report.data.calibration_images, report.data.evaluation_images, report.data.skipped) == (64, 60, ())
    assert report.reference.top1 == 1.0
    assert report.model.outputs == 4 and report.model.parameters == 2 * 256 + 2 + 4 * 2 + 4
    assert report.model.macs == 2 * 256 + 4 * 2
    assert [(cross.a, cross.b, cross.agreement) for cross in report.cross] == [(*TARGETS, 1.0)]
    for artifact in report.artifacts:
        assert artifact.accuracy is not None and artifact.latency is not None and artifact.timing is not None
        assert (artifact.accuracy.top1, artifact.accuracy.agreement, artifact.accuracy.max_drop) == (1.0, 1.0, 0.1)
        assert artifact.truth.int8_mac_share > 0.9
        assert artifact.latency.samples == len(artifact.timing.samples_ms)


def test_seconds_are_of_the_steps_in_order(exported: Exported) -> None:
    assert list(exported.report.seconds) == [
        "load model and data",
        "capture graph",
        "calibrate and quantize",
        "write files",
        "verify on the real runtimes",
        "time against float",
    ]
    assert len(exported.report.seconds) + 1 == pipeline.STAGES  # the report cannot hold the time of its own saving


def test_the_next_commands_work_as_they_are_written(exported: Exported, halves: Path) -> None:
    text = (exported.out / "report.md").read_text()
    lines = [line for line in text.splitlines() if line.startswith("python -m device_runner")]
    assert len(lines) == len(TARGETS) + 1
    image = next((halves / "val" / CLASSES[2]).iterdir())
    command = shlex.split(lines[-1].replace("IMAGE", shlex.quote(str(image))))
    run = subprocess.run([sys.executable, *command[1:]], capture_output=True, text=True, check=True, timeout=60)
    assert CLASSES[2] in run.stdout


# --- what is kept of every image


def test_the_answers_to_every_image_are_kept(exported: Exported) -> None:
    kept = predictions.parse((exported.out / "predictions.npz").read_bytes())
    assert (kept.classes, tuple(kept.files), len(kept)) == (CLASSES, TARGETS, 60)
    assert all(ref.split("/")[1] == kept.classes[label] for ref, label in zip(kept.refs, kept.labels, strict=True))
    assert (kept.reference.top1 == kept.labels).all()
    assert pictures.parse((exported.out / "flips.npz").read_bytes()) == {}  # this model is always right


def test_answers_pictures_and_columns_of_the_csv_are_those_of_the_data(export: Export, tmp_path: Path) -> None:
    data = folder(tmp_path / "data", train=1, val=104)
    paths = sorted((data / "val").rglob("*.png"))
    lines = [f"{path.relative_to(data)},{path.parent.name},site {i % 3},{i}" for i, path in enumerate(paths)]
    (data / "all.csv").write_text("\n".join(["path,label,site,serial", *lines]))
    assert export("blunt", "--max-drop", 100, "--calibrate", 32, data=data / "all.csv").code == 0
    kept = predictions.parse((tmp_path / "out" / "predictions.npz").read_bytes())
    sites = {line.split(",")[0]: line.split(",")[2] for line in lines}
    assert kept.slices == {"site": tuple(sites[ref] for ref in kept.refs), "serial": kept.slices["serial"]}
    report = schema.parse((tmp_path / "out" / "report.json").read_bytes())
    accuracy = report.artifacts[0].accuracy
    assert accuracy is not None
    right = kept.files["onnx-int8"].top1 == kept.labels
    assert (len(kept), float(right.mean())) == (accuracy.images, accuracy.top1)
    assert int(((kept.reference.top1 == kept.labels) & ~right).sum()) == accuracy.flips_lost > 0
    shown = pictures.parse((tmp_path / "out" / "flips.npz").read_bytes())
    assert set(shown) <= set(pictures.flipped(kept).tolist()) and len(shown) == min(50, accuracy.flips_lost)
    for row, picture in shown.items():
        digest = hashlib.sha256((data / kept.refs[row]).read_bytes()).digest()
        assert kept.hashes[row].tobytes() == digest[:16]
        assert np.array_equal(Image.open(io.BytesIO(picture)).convert("L"), Image.open(data / kept.refs[row]))


# --- what is said


def test_results_go_to_stdout_and_all_else_to_stderr(halves: Path, tmp_path: Path) -> None:
    """As a user runs it: a process of its own, whose libraries and model have much to say."""
    out = tmp_path / "out"
    options = ["--data", str(halves), "--target", "tflite-int8", "--calibrate", "64", "--max-drop", "10"]
    run = subprocess.run(
        [sys.executable, "-m", "shrink.cli", "export", f"{MODELS}:talkative", *options, "--out", str(out)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        env=os.environ | {"COLUMNS": "80"},
    )
    assert run.returncode == 0
    lines = run.stdout.splitlines()
    assert lines[0].split() == ["float", "tflite-int8"] and max(map(len, lines[:19])) <= 80
    assert "verdict: pass" in lines and f"report: {out}/report.md" in lines
    steps = [line for line in run.stderr.splitlines() if line.startswith("[")]
    assert {line[:5] for line in steps} == {f"[{n}/{pipeline.STAGES}]" for n in range(1, pipeline.STAGES + 1)}
    assert all(line.startswith(("[", "  ")) for line in run.stderr.splitlines())


def test_too_few_images_is_exit_3_and_the_bundle_is_there(export: Export, tmp_path: Path) -> None:
    ran = export("good", "--max-drop", 1)
    assert ran.code == 3
    assert re.search(r"onnx-int8: not enough images; .* about \d+ more images are needed\n", ran.out)
    assert "selftest" in ran.out
    assert open_bundle(tmp_path / "out" / "onnx-int8").manifest.accuracy is not None


def test_a_failed_target_leaves_its_report_and_no_bundle(export: Export, tmp_path: Path) -> None:
    ran = export("blunt", "--max-drop", 10)
    assert ran.code == 3
    assert "verdict: fail\n" in ran.out
    assert re.search(r"onnx-int8: fail; loses 50\.00 .*; no bundle was written \(--keep-failed writes it\)\n", ran.out)
    assert "next:" not in ran.out and "device_runner" not in ran.out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(BESIDE)
    report = schema.parse((tmp_path / "out" / "report.json").read_bytes())
    assert report.verdict == "fail" and report.artifacts[0].bundle is None
    assert "device_runner" not in (tmp_path / "out" / "report.md").read_text()
    (note,) = (note for note in report.notes if note.startswith("onnx-int8: its scores err by"))
    assert re.search(r"with one layer alone in float the least are \w+ \([\d.]+%\)", note)

    ran = export("blunt", "--max-drop", 10, "--keep-failed", "--force")
    assert ran.code == 3
    assert "no bundle" not in ran.out and "selftest" in ran.out
    manifest = open_bundle(tmp_path / "out" / "onnx-int8").manifest
    assert manifest.accuracy is not None and manifest.accuracy.verdict == "fail"


def test_float_targets_need_no_calibration_images(export: Export, tmp_path: Path) -> None:
    """Ten images are too few to calibrate with, and enough to compare float with float."""
    data = folder(tmp_path / "few", train=4, val=10)
    ran = export("good", "--max-drop", 50, data=data, target="onnx-fp32")
    assert ran.code == 0
    report = schema.parse((tmp_path / "out" / "report.json").read_bytes())
    assert (report.data.calibration_images, report.data.evaluation_images) == (0, 10)
    artifact = report.artifacts[0]
    assert artifact.parity is not None and artifact.parity.max_relative_error < 1e-5
    assert (
        artifact.float_size_bytes is None and artifact.latency is not None and artifact.latency.ratio_to_float is None
    )


def test_a_model_that_takes_one_image_only_is_run_so(export: Export, tmp_path: Path) -> None:
    ran = export("one_at_a_time", "--max-drop", 10)
    assert ran.code == 0
    assert schema.parse((tmp_path / "out" / "report.json").read_bytes()).reference.top1 == 1.0


def test_corrupt_images_are_left_out_counted_and_named(export: Export, tmp_path: Path) -> None:
    data = folder(tmp_path / "data", train=64, val=60)
    bad = [
        data / "train" / CLASSES[0] / "000.png",
        data / "val" / CLASSES[1] / "001.png",
        data / "val" / CLASSES[3] / "003.png",
    ]
    bad[0].write_bytes(b"no image")
    bad[1].write_bytes(bad[1].read_bytes()[:-30])
    bad[2].write_bytes(b"")
    ran = export("good", "--max-drop", 10, data=data)
    assert ran.code == 0
    assert "note: 3 images could not be read and were left out; the report names them\n" in ran.out
    report = schema.parse((tmp_path / "out" / "report.json").read_bytes())
    assert (report.data.calibration_images, report.data.evaluation_images) == (63, 58)
    assert {image.ref for image in report.data.skipped} == {str(path.relative_to(data)) for path in bad}
    assert all(image.reason for image in report.data.skipped)
    text = (tmp_path / "out" / "report.md").read_text()
    assert all(str(path.relative_to(data)) in text for path in bad)


def test_random_weights_are_named_plainly(export: Export, tmp_path: Path) -> None:
    ran = export("timm:test_vit?num_classes=4&img_size=32", "--max-drop", 100, target="onnx-fp32")
    assert ran.code == 0
    words = "the weights are random: accuracy and agreement say nothing about a trained model"
    assert f"note: {words}" in ran.out
    assert words in (tmp_path / "out" / "report.md").read_text()
    assert open_bundle(tmp_path / "out" / "onnx-fp32").manifest.provenance["weights"] == "random"


def test_labels_in_another_order_are_suspected(export: Export) -> None:
    ran = export("mixed_up", "--max-drop", 10)
    assert "note: float names 0 of 60 images rightly, no more than chance: is class number i" in ran.out


# --- what it does to the rest


def test_the_number_of_threads_is_as_before(exported: Exported, halves: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(before + 1)
    try:
        recipe = ExportRecipe(model=f"{MODELS}:constant", data=str(halves), calibrate="64")
        with pytest.raises(Exception, match="very same scores"):
            pipeline.export(recipe, tmp_path / "out", progress=Quiet())
        assert torch.get_num_threads() == before + 1
    finally:
        torch.set_num_threads(before)


def test_an_older_export_is_kept_unless_it_may_go(exported: Exported, halves: Path) -> None:
    before = {path: path.read_bytes() for path in exported.out.rglob("*") if path.is_file()}
    recipe = ExportRecipe(model=f"{MODELS}:good", data=str(halves))
    with pytest.raises(OutputError, match="exists"):
        pipeline.export(recipe, exported.out, progress=Quiet())
    with pytest.raises(OutputError, match="is not an earlier export"):
        pipeline.export(recipe, halves, force=True, progress=Quiet())
    assert {path: path.read_bytes() for path in exported.out.rglob("*") if path.is_file()} == before
