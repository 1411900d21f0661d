"""`shrink compare` as a user runs it: exit codes, what is refused, and what is written for a pull request."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from compare_samples import HOST, N, answers, board, reordered, report, write
from markdown_it import MarkdownIt
from msgspec import structs
from run_cli import Ran, run_cli

from shrink.bench.result import dump

Compare = Callable[..., Ran]


@pytest.fixture
def compare(capfd: pytest.CaptureFixture[str]) -> Compare:
    return partial(run_cli, capfd, "compare")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return write(tmp_path / "old", report(), answers())


def row(ran: Ran, target: str, metric: str) -> list[str]:
    (line,) = (line for line in ran.out.splitlines() if line.split()[:2] == [target, metric])
    return line.split()


def test_an_equal_run_passes_all_gates(compare: Compare, old: Path, tmp_path: Path):
    new = write(tmp_path / "new", report(), reordered(answers()))
    ran = compare(old, new, "--gate", "drop<=0.3", "--gate", "size<=1.0x", "--gate", "latency<=1.05x")
    assert ran.code == 0, ran
    assert row(ran, "tflite-int8", "top-1")[-1] == "pass"
    assert "0 images lost and 0 won of 5,000; McNemar p 1" in ran.out
    assert ran.out.splitlines()[-1] == "verdict: pass; every gate holds"


def test_a_worse_run_fails_with_the_figures(compare: Compare, old: Path, tmp_path: Path):
    new = write(tmp_path / "new", report(size=1_100_000, ratio=0.5), answers(lost=150, won=20))
    ran = compare(old, new, "--gate", "drop<=0.3,size<=1.0x,latency<=1.05x")
    assert ran.code == 3
    assert row(ran, "onnx-int8", "top-1")[2:7] == ["90.00", "%", "87.40", "%", "-2.60"]
    assert row(ran, "onnx-int8", "size")[-1] == "fail" and "1.100 x" in ran.out
    assert row(ran, "onnx-int8", "latency")[-1] == "fail" and "1.250 x" in ran.out
    assert "150 images lost and 20 won" in ran.out


def test_too_few_images_cannot_tell_and_do_not_pass(compare: Compare, tmp_path: Path):
    runs = [write(tmp_path / name, report(), answers(n=200)) for name in ("a", "b")]
    ran = compare(*runs, "--gate", "drop<=0.3")
    assert ran.code == 3 and row(ran, "tflite-int8", "top-1")[-2:] == ["cannot", "tell"]


def test_without_a_gate_it_only_tells(compare: Compare, old: Path, tmp_path: Path):
    ran = compare(old, write(tmp_path / "new", report(size=9_000_000), answers(lost=400)))
    assert ran.code == 0 and "no gate was given" in ran.out


@pytest.mark.parametrize("force", [(), ("--force",)])
def test_runs_of_different_images_are_refused_even_by_force(
    compare: Compare, old: Path, tmp_path: Path, force: tuple[str, ...]
):
    ran = compare(old, write(tmp_path / "new", report(), answers(seed=1)), *force)
    assert ran.code == 2
    assert ran.problem[:2] == (
        "the two runs answered different images",
        "0 images are in both, of 5,000 and 5,000; all must be in both",
    )


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"host": "Other CPU, 4 cores"}, f"machine: {HOST} against Other CPU, 4 cores"),
        ({"versions": {"ai-edge-litert": "2.4.0", "onnxruntime": "1.32.0"}}, "ai-edge-litert 2.3.0 against"),
    ],
)
def test_times_of_unlike_machines_are_refused_unless_forced(
    compare: Compare, old: Path, tmp_path: Path, change: dict[str, object], words: str
):
    new = write(tmp_path / "new", structs.replace(report(), **change), answers())
    ran = compare(old, new, "--gate", "latency<=1.05x")
    assert ran.code == 2 and "are from unlike conditions" in ran.problem[0]
    assert words in ran.problem[1] and "--force" in ran.problem[2]
    forced = compare(old, new, "--gate", "latency<=1.05x", "--force")
    assert forced.code == 0 and "compared all the same" in forced.out and words in forced.out


def test_accuracy_and_size_of_unlike_machines_are_compared_and_it_is_said(compare: Compare, old: Path, tmp_path: Path):
    new = write(tmp_path / "new", structs.replace(report(), host="Other CPU"), answers())
    ran = compare(old, new, "--gate", "drop<=0.3", "--gate", "size<=1.0x")
    assert ran.code == 0
    assert "latency is not compared: machine:" in ran.out and "unlike conditions of tflite-int8: machine:" in ran.out


def test_times_are_compared_by_the_float_file_that_both_took_turns_with(compare: Compare, old: Path, tmp_path: Path):
    """All of the new run was twice as slow, the float file too: the file itself is no slower."""
    slow = report()
    artifacts = tuple(
        structs.replace(
            a,
            latency=structs.replace(a.latency, median_ms=2 * a.latency.median_ms),
            timing=structs.replace(a.timing, samples_ms=tuple(2 * ms for ms in a.timing.samples_ms)),
        )
        for a in slow.artifacts
        if a.latency and a.timing
    )
    new = write(tmp_path / "new", structs.replace(slow, artifacts=artifacts), answers())
    ran = compare(old, new, "--gate", "latency<=1.05x")
    assert ran.code == 0 and "1.000 x" in ran.out and "over the same float file" in ran.out


def test_two_bundles_of_one_run_can_be_compared(compare: Compare, old: Path):
    for name in ("tflite-int8", "onnx-int8"):
        (old / name).mkdir()
        (old / name / "manifest.json").write_text("{}")
    ran = compare(old / "tflite-int8", old / "onnx-int8", "--gate", "drop<=0.3")
    assert ran.code == 0 and "unlike conditions of onnx-int8: runtime" in ran.out


def test_files_for_the_pull_request_and_the_server(compare: Compare, old: Path, tmp_path: Path):
    new = write(tmp_path / "n|e`w\x1b<b>", report(), answers(lost=150))
    ran = compare(old, new, "--gate", "drop<=0.3", "--markdown", tmp_path / "c.md", "--junit", tmp_path / "c.xml")
    assert ran.code == 3
    tokens = MarkdownIt("commonmark").enable("table").parse((tmp_path / "c.md").read_text())
    kinds = [child.type for token in tokens for child in (token, *(token.children or []))]
    assert kinds.count("table_open") == 1 and kinds.count("tr_open") == 7
    assert {"html_inline", "html_block", "code_inline"} & set(kinds) == set()
    root = ElementTree.parse(tmp_path / "c.xml").getroot()
    assert (root.attrib["tests"], root.attrib["failures"]) == ("2", "2")


def test_a_run_without_predictions_has_no_drop_to_judge(compare: Compare, old: Path, tmp_path: Path):
    new = write(tmp_path / "new", report(), None)
    assert compare(old, new, "--gate", "size<=1.0x").code == 0
    ran = compare(old, new, "--gate", "drop<=0.3")
    assert ran.code == 2 and ran.problem[1].endswith("new has no predictions")


def test_what_has_no_file_in_common_is_refused(compare: Compare, old: Path, tmp_path: Path):
    (target,) = report().artifacts[:1]
    other = structs.replace(report(), artifacts=(structs.replace(target, target="onnx-fp16"),))
    ran = compare(old, write(tmp_path / "new", other, None))
    assert ran.code == 2 and "no file in common" in ran.problem[0]


def test_measuring_needs_the_bundles(compare: Compare, old: Path):
    ran = compare(old, old, "--measure")
    assert ran.code == 2 and "has no bundle of tflite-int8 to run" in ran.problem[0]


# --- results of shrink bench


def results(tmp_path: Path, **changes: object) -> tuple[Path, Path]:
    files = tmp_path / "old.json", tmp_path / "new.json"
    files[0].write_bytes(dump(board(ms=changes.get("ms") and 4.0)))  # type: ignore[arg-type]
    files[1].write_bytes(dump(board(**changes)))  # type: ignore[arg-type]
    return files


def test_two_percent_more_instructions_in_one_part_are_caught(compare: Compare, tmp_path: Path):
    same = results(tmp_path)
    assert compare(*same, "--gate", "instructions<=1.01x", "--gate", "drop<=5").code == 0
    ran = compare(*results(tmp_path, preprocess=2_040_000), "--gate", "instructions<=1.01x")
    assert ran.code == 3 and "of preprocess, which grew most" in ran.out and "1.020 x" in ran.out


def test_counts_of_another_processor_are_refused(compare: Compare, tmp_path: Path):
    ran = compare(*results(tmp_path, cpu="cortex-a76"), "--gate", "instructions<=1.01x")
    assert ran.code == 2 and "emulated: cortex-a72 against cortex-a76" in ran.problem[1]


def test_emulated_times_are_no_times(compare: Compare, tmp_path: Path):
    ran = compare(*results(tmp_path), "--gate", "latency<=1.05x", "--force")
    assert ran.code == 2 and "has no times" in ran.problem[1]


def test_times_of_a_board_are_compared_by_what_they_took_turns_with(compare: Compare, tmp_path: Path):
    assert compare(*results(tmp_path, ms=4.0), "--gate", "latency<=1.05x").code == 0
    assert compare(*results(tmp_path, ms=4.8), "--gate", "latency<=1.05x").code == 3


def test_answers_of_a_board_are_compared_image_by_image(compare: Compare, tmp_path: Path):
    ran = compare(*results(tmp_path, lost=30), "--gate", "drop<=1")
    assert ran.code == 3 and "30 images lost and 0 won of 200" in ran.out


def test_a_run_and_a_result_are_not_of_one_kind(compare: Compare, old: Path, tmp_path: Path):
    ran = compare(old, results(tmp_path)[0])
    assert ran.code == 2 and "not of one kind" in ran.problem[0]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"schema": 9, "kind": "bench"}', "is of another version"),
        ("[" * 100_000, "no result of `shrink bench`"),
        ('{"schema": NaN}', "no result of `shrink bench`"),
        ("", "no result of `shrink bench`"),
    ],
)
def test_a_file_that_is_no_result_is_refused(compare: Compare, tmp_path: Path, text: str, words: str):
    (tmp_path / "bad.json").write_text(text)
    ran = compare(tmp_path / "bad.json", results(tmp_path)[0])
    assert ran.code == 2 and words in ran.problem[0]


def test_the_samples_are_what_they_say():
    p = answers(lost=7, won=3)
    right = p.files["tflite-int8"].top1 == p.labels
    before = p.reference.top1 == p.labels
    assert (int((before & ~right).sum()), int((~before & right).sum()), len(p)) == (7, 3, N)
    assert np.array_equal(np.sort(p.hashes, axis=0), np.sort(reordered(p).hashes, axis=0))
