import shlex
from pathlib import PurePath

import pytest
import report_golden
from markdown_it import MarkdownIt
from msgspec.structs import replace
from report_golden import GOLDEN, OUT, example, terminal

from shrink.report.markdown import SHOWN, render
from shrink.report.next_steps import next_steps
from shrink.report.schema import Report, SkippedImage
from shrink.report.text import plain

NAMES = [
    "a|b",
    "x\ny",
    "`code`",
    "```",
    "<b>x</b>",
    "\x1b[2J",
    "[red]",
    "\\|",
    "# top",
    "1. x",
    "- x",
    "     code",
    "$(reboot)",
    "名前",
    "-rf",
]


def hostile(name: str) -> Report:
    """The example with `name` wherever a name comes from outside."""
    report = example()
    artifact = replace(report.artifacts[0], target=name, bundle=name, file=name, changes=(name,))
    return replace(
        report,
        command=("shrink", "export", name),
        model=replace(report.model, spec=name, weights=name),
        data=replace(report.data, name=name, notes=(name,), skipped=(SkippedImage(ref=name, reason=name),)),
        artifacts=(artifact, report.artifacts[1]),
        host=name,
    )


def table_of(markdown: str) -> list[list[str]]:
    """Cells of the first table as a reader sees them."""
    rows: list[list[str]] = []
    for token in MarkdownIt("commonmark").enable("table").parse(markdown):
        if token.type == "tr_open":
            rows.append([])
        elif token.type == "table_close":
            break
        elif token.type == "inline" and rows:
            rows[-1].append("".join(child.content for child in token.children or []))
    return rows


@pytest.mark.parametrize("name", list(report_golden.outputs()))
def test_output_is_the_golden_file(name: str) -> None:
    fix = "if the change is meant: python tests/report/report_golden.py"
    assert (GOLDEN / name).read_text() == report_golden.outputs()[name], fix


def test_golden_files_and_outputs_are_the_same_set() -> None:
    assert {path.name for path in GOLDEN.iterdir()} == set(report_golden.outputs())


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_name_leaves_the_markdown_table_whole(name: str) -> None:
    sound, found = table_of(render(example(), OUT)), table_of(render(hostile(name), OUT))
    assert found[0] == ["", "float", plain(name).strip(), "onnx-int8"]
    assert found[1:] == sound[1:]


@pytest.mark.parametrize("name", NAMES)
def test_a_hostile_name_adds_no_heading_html_or_code(name: str) -> None:
    def shape(text: str) -> list[str]:
        parsed = MarkdownIt("commonmark").enable("table").parse(text)
        kinds = [child.type for token in parsed for child in (token, *(token.children or []))]
        return [kind for kind in kinds if kind not in ("text", "inline", "text_special")]

    assert shape(render(hostile(name), OUT)) == shape(render(example(), OUT))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_hostile_name_sends_no_control_character_to_the_terminal(name: str, is_terminal: bool) -> None:
    lines = terminal(hostile(name), width=100, is_terminal=is_terminal).split("\n")
    assert all(line.isprintable() for line in lines)
    assert any(plain(name) in line for line in lines)


@pytest.mark.parametrize("width", [60, 80, 100, 200])
def test_four_artefacts_fit_the_terminal(width: int) -> None:
    artifacts = tuple(replace(a, target=f"{a.target}-{i}") for i in (1, 2) for a in example().artifacts)
    text = terminal(replace(example(), artifacts=artifacts), width=width, is_terminal=True)
    table = text.split("verdict: ")[0].splitlines()
    assert max(map(len, table)) <= min(width, 100)
    assert any("top-1" in line and "87.40" in line for line in table)


def test_commands_are_never_broken_by_a_narrow_terminal() -> None:
    lines = [line.strip() for line in terminal(example(), width=40, is_terminal=True).splitlines()]
    assert all(command in lines for command in next_steps(example(), OUT))


def test_next_steps_are_words_the_shell_gives_back() -> None:
    steps = [shlex.split(step) for step in next_steps(example(), PurePath("my out"))]
    assert steps == [
        ["python", "-m", "device_runner", "selftest", "my out/tflite-int8"],
        ["python", "-m", "device_runner", "selftest", "my out/onnx-int8"],
        ["python", "-m", "device_runner", "classify", "my out/tflite-int8", "IMAGE"],
        ["shrink", "report", "my out"],
    ]


def test_a_directory_is_never_read_as_an_option() -> None:
    assert all(" ./-o" in step for step in next_steps(example(), PurePath("-o")))


@pytest.mark.parametrize("verdict", ["pass", "fail", "not enough images"])
def test_the_verdict_comes_first_and_in_words(verdict: str) -> None:
    report = replace(example(), verdict=verdict)
    assert render(report, OUT).splitlines()[2].startswith(f"**Verdict: {verdict}.**")
    assert f"verdict: {verdict}\n" in terminal(report, width=100, is_terminal=False)


def test_skipped_images_are_listed_up_to_a_limit_and_counted_beyond() -> None:
    skipped = tuple(SkippedImage(ref=f"{i}.jpg", reason="damaged") for i in range(SHOWN + 7))
    text = render(replace(example(), data=replace(example().data, skipped=skipped)), OUT)
    assert text.count(": damaged") == SHOWN
    assert "and 7 more images" in text and f"{SHOWN + 7} skipped" in text


def test_what_was_not_measured_is_said_not_invented() -> None:
    bare = replace(example().artifacts[0], accuracy=None, latency=None, timing=None, parity=None)
    text = render(replace(example(), artifacts=(bare,), cross=()), OUT)
    labels = {row[0] for row in table_of(text)}
    assert not {"drop, points", "latency, median", "score error, relative"} & labels
    assert "tflite-int8: accuracy was not measured" in text
    assert "- latency: not measured" in text
