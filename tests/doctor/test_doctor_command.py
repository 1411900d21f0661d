"""`shrink data check` as a user sees it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from doctor_samples import MODELS, arrays
from run_cli import run_cli

from shrink.doctor.findings import Finding, graded, ok, worst
from shrink.doctor.render import text


@pytest.fixture
def asked(tmp_path: Path) -> Path:
    """A recipe for good data beside it."""
    np.savez(tmp_path / "data.npz", **arrays(64, 300))
    path = tmp_path / "recipe.toml"
    path.write_text(
        f'model = "{MODELS}:nearest"\ndata = "data.npz"\n[preprocess]\ncolor = "RGB"\nexif = true\nresize = "exact"\n'
        'size = [32, 32]\nfilter = "bilinear"\nmean = [0.485, 0.456, 0.406]\nstd = [0.229, 0.224, 0.225]\n'
    )
    return path


def test_good_data_is_exit_0_with_a_line_per_check(capfd: pytest.CaptureFixture[str], asked: Path) -> None:
    ran = run_cli(capfd, "data", "check", "--recipe", asked)
    assert ran.code == 0
    assert "warning  calibration    there are 64 calibration images\n            why: ranges depend" in ran.out
    assert ran.out.splitlines()[-1] == "verdict: the data can be used; see the warnings (1 warning, 19 ok)"
    assert "[4/4] other ways to prepare images ..." in ran.err


def test_an_error_is_exit_3_and_json_says_the_same(capfd: pytest.CaptureFixture[str], asked: Path) -> None:
    asked.write_text(asked.read_text().replace('"RGB"', '"BGR"'))
    ran = run_cli(capfd, "data", "check", "--recipe", asked, "--json")
    found = json.loads(ran.out)
    assert ran.code == 3 and found["level"] == "error"
    (error,) = [one for one in found["findings"] if one["level"] == "error"]
    assert error["check"] == "preprocessing" and "red and blue exchanged" in error["what"] and error["fix"]


@pytest.mark.parametrize(
    ("argv", "what"),
    [
        (["x.npz"], "no model is given"),
        (["nowhere/", "--model", "timm:test_resnet"], "there is no data 'nowhere/'"),
        (["fashion-mnist", "--model", f"{MODELS}:nearest"], "the preprocessing of "),
    ],
)
def test_what_cannot_be_read_is_exit_2(capfd: pytest.CaptureFixture[str], argv: list[str], what: str) -> None:
    ran = run_cli(capfd, "data", "check", *argv)
    assert (ran.code, ran.out) == (2, "") and ran.problem[0].startswith(what)


def test_the_worst_level_counts_and_the_rest_is_told() -> None:
    found = [ok("a", "fine"), Finding("b", "error", "what", "why", "fix"), Finding("c", "warning", "w", "y", "f")]
    assert (worst(found), worst(found[:1]), worst([])) == ("error", "ok", "ok")
    assert text("title", found).splitlines() == [
        "title",
        "",
        "ok       a              fine",
        "error    b              what",
        "            why: why",
        "            fix: fix",
        "warning  c              w",
        "            why: y",
        "            fix: f",
        "",
        "verdict: do not use it (1 error, 1 warning, 1 ok)",
    ]


def test_a_share_is_graded_above_its_bounds() -> None:
    grades = [graded(share, warning=0.1, error=0.5) for share in (0.1, 0.11, 0.5, 0.51)]
    assert grades == ["ok", "warning", "warning", "error"] and graded(0.9, warning=0.1) == "warning"
