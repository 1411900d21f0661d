"""`shrink bench` on this machine: the answers are the runner's own, and the result says what it is worth."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from run_cli import run_cli

from device_runner.classify import Classifier
from shrink.bench import result
from shrink.boards.places import Places
from shrink.errors import RequestError

FAST = ("--repeats", 2, "--seconds", 0.2)


def test_the_result_holds_the_answers_of_the_runner_image_by_image(
    capfd: pytest.CaptureFixture[str], bundles: dict[str, Path], photos: Path, places: Places, tmp_path: Path
) -> None:
    out = tmp_path / "result.json"
    bundle, float_one = bundles["tflite-int8"], bundles["tflite-float32"]
    ran = run_cli(capfd, "bench", bundle, "--against", float_one, "--data", photos, *FAST, "--json", out)
    assert ran.code == 0, ran.err
    found = result.parse(out.read_bytes())
    assert found.complete and found.candidate and found.against and found.ratio
    classifier = Classifier.open(bundle)
    wanted = [classifier.classify((photos / image.ref).read_bytes(), 1)[0].index for image in found.data.images]
    assert list(found.candidate.answers) == wanted
    right = sum(a == image.label for a, image in zip(wanted, found.data.images, strict=True))
    assert found.candidate.accuracy.right == right and found.candidate.accuracy.images == 10
    assert found.candidate.bundle_sha256 == classifier.bundle.sha256 != found.against.bundle_sha256
    assert [len(repeat) for repeat in found.candidate.samples_ms] == [len(r) for r in found.against.samples_ms]
    assert found.verdict == "indicative" and any("samples in" in reason for reason in found.reasons)
    assert "verdict: indicative" in ran.out and "top-1" in ran.out


def test_both_engines_answer_and_one_result_reads_as_it_was_written(
    capfd: pytest.CaptureFixture[str], bundles: dict[str, Path], photos: Path, places: Places, tmp_path: Path
) -> None:
    out = tmp_path / "result.json"
    ran = run_cli(capfd, "bench", bundles["onnx-int8"], "--data", photos, "--repeats", 0, "--json", out)
    assert ran.code == 0, ran.err
    found = result.parse(out.read_bytes())
    assert found.candidate and found.candidate.engine == "onnxruntime" and found.candidate.times is None
    assert found.verdict == "functional-only"
    assert result.dump(found) == out.read_bytes()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"schema": 7, "kind": "bench"}', "it has schema 7, and this version of shrink reads 1"),
        ("[]", "no result of `shrink bench`"),
        ("{", "no result of `shrink bench`"),
    ],
)
def test_a_result_of_another_schema_is_refused(text: str, words: str) -> None:
    with pytest.raises(RequestError, match=words):
        result.parse(text.encode())


def test_a_result_with_a_field_that_nobody_knows_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError, match="unknown field"):
        msgspec.json.decode(
            b'{"ref": "a", "sha256": "' + b"0" * 64 + b'", "label": 1, "more": 2}', type=result.ImageRef
        )


def test_data_of_other_classes_is_refused(
    capfd: pytest.CaptureFixture[str], bundles: dict[str, Path], places: Places
) -> None:
    ran = run_cli(capfd, "bench", bundles["tflite-int8"], "--data", "fashion-mnist", *FAST)
    assert ran.code == 2 and ran.problem[0] == "fashion-mnist is not data of this bundle"


def test_a_bundle_that_fails_its_self_test_there_names_the_golden_vector(
    capfd: pytest.CaptureFixture[str], bundles: dict[str, Path], photos: Path, places: Places, tmp_path: Path
) -> None:
    from runner_bundles import PREPROCESS, make_files, write_directory

    files = make_files("tflite-float32")
    wrong = make_files("tflite-float32", preprocess=msgspec.structs.replace(PREPROCESS, filter="nearest"))
    manifest = msgspec.json.decode(files["manifest.json"])
    manifest["files"] = msgspec.json.decode(wrong["manifest.json"])["files"]
    files |= {"golden.npz": wrong["golden.npz"], "manifest.json": _dumped(manifest)}
    bundle = write_directory(tmp_path / "wrong", files)
    ran = run_cli(capfd, "bench", bundle, "--data", photos, *FAST)
    assert ran.code == 1
    assert ran.problem[0] == "on local: golden image 0 gives other pixels" and "of 255" in ran.problem[1]


def _dumped(manifest: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
