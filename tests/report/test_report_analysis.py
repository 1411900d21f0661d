"""From answers to what is said of them: figures by hand, forms that parse, and what is no run is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from markdown_it import MarkdownIt
from report_golden import example
from run_cli import run_cli
from run_samples import N, answers, hostile_run, plain_run, write_run

from shrink.errors import RequestError
from shrink.report import summary
from shrink.report.analysis import Analysis
from shrink.steps.analysing import analyse
from shrink.steps.runs import read_run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return plain_run(tmp_path_factory.mktemp("runs") / "one")


@pytest.fixture(scope="module")
def analysed(folder: Path) -> Analysis:
    return analyse(read_run(folder), [])


def test_the_worst_class_and_site_are_named(analysed: Analysis):
    file = analysed.files[0]
    by_class, by_site = file.grouped
    assert (by_class.by, len(by_class.groups), by_site.by) == ("class", 60, "site")
    assert sum(group.lost for group in by_class.groups) == 4 and sum(group.won for group in by_class.groups) == 8
    worst = by_class.groups[0]
    assert worst.name in {f"class {row % 60}" for row in (300, 301, 302, 400)} and worst.lost - worst.won == 1
    assert "loses most" in summary.worst(by_class) and "within chance" in summary.worst(by_class)
    assert {group.name: group.images for group in by_site.groups} == {"garage": 667, "lobby": 1333}


def test_a_site_that_really_loses_is_named_as_more_than_chance(tmp_path: Path):
    kept = answers(("a", "b"), tuple(map(str, range(N))), ("tflite-int8", "onnx-int8"))
    dark = np.array([site == "garage" for site in kept.slices["site"]])
    wrong = (kept.labels + 1) % 2
    file = replace(kept.files["tflite-int8"], top1=np.where(dark & (np.arange(N) > 1900), wrong, kept.labels))
    files = {"tflite-int8": file, "onnx-int8": kept.files["onnx-int8"]}
    run = read_run(write_run(tmp_path / "run", example(), replace(kept, files=files)))
    grouped = analyse(run, [], ["site"]).files[0].grouped[1]
    assert grouped.groups[-1].name == "lobby"
    assert [group.name for group in grouped.groups if group.is_sure] == []  # it wins 84 images early, and loses 33

    only = replace(file, top1=np.where(dark & (np.arange(N) > 1900), wrong, kept.reference.top1))
    run = read_run(write_run(tmp_path / "run", example(), replace(kept, files=files | {"tflite-int8": only})))
    grouped = analyse(run, [], ["site"]).files[0].grouped[1]
    assert summary.worst(grouped) == ("by site, garage loses most, 4.95 points of 667 images; more than chance: garage")


def test_changed_answers_are_counted(analysed: Analysis):
    changes = analysed.files[0].changes
    assert sum(change.images for change in changes) == 12
    assert all(change.before != change.now and change.label in (change.before, change.now) for change in changes)


def test_flips_are_lost_before_won(analysed: Analysis):
    flips = analysed.files[0].flips
    assert [flip.is_lost for flip in flips] == [True] * 4 + [False] * 8
    assert {flip.row for flip in flips if flip.is_lost} == {300, 301, 302, 400}
    assert all((flip.before if flip.is_lost else flip.now) == flip.label for flip in flips)


def test_a_run_without_predictions_says_so(tmp_path: Path):
    analysis = analyse(read_run(write_run(tmp_path, example(), None)), [])
    assert analysis.files == () and "has no predictions.npz" in analysis.notes[0]


def test_the_comment_is_short_markdown_with_one_table(analysed: Analysis):
    text = summary.comment(analysed)
    assert len(text) < 2500
    kinds = [token.type for token in MarkdownIt("commonmark").enable("table").parse(text)]
    assert kinds.count("table_open") == 1 and kinds[0] == "heading_open"


def test_hostile_names_leave_the_comment_and_the_xml_whole(analysed: Analysis, tmp_path: Path):
    def shape(text: str) -> set[str]:
        tokens = MarkdownIt("commonmark").enable("table").parse(text)
        return {child.type for token in tokens for child in (token, *(token.children or []))} - {"text_special"}

    hostile = analyse(read_run(hostile_run(tmp_path)), [])
    assert shape(summary.comment(hostile)) <= shape(summary.comment(analysed))
    root = ElementTree.fromstring(summary.suite(hostile))
    assert [case.tag for case in root.iter("testcase")] == ["testcase"] * 2


def test_the_xml_counts_what_did_not_pass(analysed: Analysis):
    root = ElementTree.fromstring(summary.suite(analysed))
    assert (root.attrib["tests"], root.attrib["failures"]) == ("2", "1")
    (failure,) = root.iter("failure")
    assert failure.attrib["message"] == "not enough images" and "2,400 more images" in (failure.text or "")


# --- the command


def test_every_form_is_written_where_it_is_asked_for(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    files = {form: tmp_path / f"out.{form}" for form in ("html", "json", "markdown", "junit")}
    options = [word for form, file in files.items() for word in (f"--{form}", file)]
    ran = run_cli(capfd, "report", folder, *options, "--slice-by", "site")
    assert (ran.code, ran.out.split()) == (0, [str(file) for file in files.values()])
    found = json.loads(files["json"].read_text())
    assert (found["schema"], found["files"][0]["grouped"][1]["by"]) == (1, "site")
    assert files["html"].read_text().startswith("<!doctype html>")


def test_the_page_goes_beside_the_report_unless_told(folder: Path, capfd: pytest.CaptureFixture[str]):
    ran = run_cli(capfd, "report", folder)
    assert ran.out.strip() == str(folder / "report.html") and (folder / "report.html").is_file()


def test_other_runs_are_shown_beside_it(folder: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    other = plain_run(tmp_path / "second")
    run_cli(capfd, "report", folder, other, "--html", tmp_path / "a.html")
    assert "Beside other runs" in (tmp_path / "a.html").read_text()


def bad_runs(root: Path) -> dict[str, tuple[Path, str]]:
    good = (plain_run(root / "good") / "report.json").read_text()
    texts = {
        "another schema": (good.replace('"schema": 1', '"schema": 7', 1), "the report has schema 7"),
        "deep": ("[" * 200_000, "not a report"),
        "NaN": (good.replace("0.874", "NaN", 1), "not a report"),
        "huge number": (good.replace("0.874", "1e999", 1), "not a report"),
        "out of range": (good.replace("0.874", "1.2", 1), "not a report"),
        "no JSON": ("hello", "not a report"),
        "bench": ('{"kind": "bench"}', "not a report"),
    }
    found = {"nothing": (root / "gone", "gone is not there"), "empty": (root, "is not a run")}
    for name, (text, words) in texts.items():
        (root / name).mkdir()
        (root / name / "report.json").write_text(text)
        found[name] = (root / name, words)
    (root / "no bench.json").write_text("{}")
    return found | {"no bench": (root / "no bench.json", "no result of `shrink bench`")}


@pytest.mark.parametrize(
    "name",
    [
        "nothing",
        "empty",
        "another schema",
        "deep",
        "NaN",
        "huge number",
        "out of range",
        "no JSON",
        "bench",
        "no bench",
    ],
)
def test_what_is_no_run_is_refused_in_three_lines(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]):
    path, words = bad_runs(tmp_path)[name]
    ran = run_cli(capfd, "report", path)
    assert ran.code == 2 and words in ran.problem[0]


def test_a_column_that_is_not_there_is_refused_with_the_nearest(folder: Path, capfd: pytest.CaptureFixture[str]):
    ran = run_cli(capfd, "report", folder, "--slice-by", "sight")
    assert ran.code == 2
    assert ran.problem == (
        f"{folder} cannot be sliced by 'sight'",
        "a column of the CSV is kept at export, unless it has more than 200 values",
        "did you mean 'site'?",
    )


def test_a_bundle_stands_for_its_own_file_of_the_run(tmp_path: Path):
    run = plain_run(tmp_path / "run")
    for name in ("onnx-int8", "other"):
        (run / name).mkdir()
        (run / name / "manifest.json").write_text("{}")
    assert read_run(run / "onnx-int8").targets == ("onnx-int8",)
    assert read_run(run).targets == ("tflite-int8", "onnx-int8")
    with pytest.raises(RequestError, match="no bundle of the run around it"):
        read_run(run / "other")
