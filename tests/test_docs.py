"""The documents are true: commands parse, links lead somewhere, recipes load, examples give what they show."""

from __future__ import annotations

import doctest
import importlib
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import generate_cli
import pytest
import typer.main
from markdown_it import MarkdownIt

from device_runner.cli import build_parser
from shrink import models, recipe, targets
from shrink.cli import app
from shrink.data.sources import read

ROOT = Path(__file__).parents[1]
FOLDERS = (".", "docs", "device_runner", "recipes", "recipes/demo", "benchmarks")
DOCUMENTS = sorted(file for folder in FOLDERS for file in (ROOT / folder).glob("*.md"))
RECIPES = sorted(ROOT.glob("recipes/*.toml"))
SOURCES = [file for package in ("shrink", "device_runner") for file in sorted((ROOT / package).rglob("*.py"))]
EXAMPLES = [file for file in SOURCES if ">>>" in file.read_text(encoding="utf-8")]
RUNNER = (["device_runner"], ["python", "-m", "device_runner"])


@dataclass(frozen=True)
class Block:
    """A fenced block of a document."""

    language: str
    text: str


def blocks(text: str) -> list[Block]:
    return [Block(token.info.strip(), token.content) for token in MarkdownIt().parse(text) if token.type == "fence"]


def commands(text: str) -> list[str]:
    """The command lines of a document: what follows "$ " in any fenced block; a backslash continues a line."""
    joined = (block.text.replace("\\\n", " ") for block in blocks(text))
    return [line[2:] for body in joined for line in body.splitlines() if line.startswith("$ ")]


def check_command(line: str) -> str:
    """Parse a command of ours as its program would, running nothing; "" or what the program says against it."""
    words = shlex.split(line, comments=True)
    for program in RUNNER:
        if words[: len(program)] == program:
            return _runner_says(words[len(program) :])
    return _shrink_says(words[1:]) if words[:1] == ["shrink"] else ""


def _runner_says(words: list[str]) -> str:
    try:
        build_parser().parse_args(words)
    except SystemExit as stop:
        return f"exit code {stop.code}" if stop.code else ""
    return ""


def _shrink_says(words: list[str]) -> str:
    command: Any = typer.main.get_command(app)
    while hasattr(command, "commands") and words and not words[0].startswith("-"):
        if words[0] not in command.commands:
            return f"there is no command {words[0]}"
        command, words = command.commands[words[0]], words[1:]
    try:
        command.make_context(command.name, list(words))
    except typer.Exit as stop:  # --help
        return f"exit code {stop.exit_code}" if stop.exit_code else ""
    except Exception as error:  # the errors of the parser, which typer does not name in public
        return f"{type(error).__name__}: {error}"
    return ""


def links(text: str) -> Iterator[str]:
    """Targets of all links and images."""
    for token in MarkdownIt().parse(text):
        for child in token.children or ():
            if (target := child.attrGet("href") or child.attrGet("src")) is not None:
                yield str(target)


def dead_links(document: Path) -> list[str]:
    """Relative links of a document that lead to no file, or to no heading of it."""
    found = []
    for target in links(document.read_text(encoding="utf-8")):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, heading = target.partition("#")
        file = (document.parent / path) if path else document
        if not file.exists() or (heading and heading not in headings(file.read_text(encoding="utf-8"))):
            found.append(target)
    return found


def headings(text: str) -> set[str]:
    """Headings as a link names them: lower case, dashes for blanks, no punctuation."""
    tokens = MarkdownIt().parse(text)
    titles = [tokens[i + 1].content for i, token in enumerate(tokens) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_command_in_a_document_parses(document: Path):
    found = {line: check_command(line) for line in commands(document.read_text(encoding="utf-8"))}
    assert {line: words for line, words in found.items() if words} == {}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(document: Path):
    assert dead_links(document) == []


def test_the_readme_shows_commands_of_both_programs():
    shown = commands((ROOT / "README.md").read_text(encoding="utf-8"))
    assert any(line.startswith("shrink export ") for line in shown)
    assert any(line.startswith("python -m device_runner classify ") for line in shown)


@pytest.mark.parametrize(
    "line",
    [
        "shrink exprot timm:resnet18",
        "shrink export timm:resnet18 --dat photos/",
        "shrink export --max-drop much",
        "shrink targets show",
        "python -m device_runner clasify bundle image.jpg",
        "device_runner classify bundle image.jpg --topp 3",
    ],
)
def test_a_command_that_is_wrong_is_noticed(line: str, capsys: pytest.CaptureFixture[str]):
    assert check_command(line) != ""


@pytest.mark.parametrize("line", ["shrink --help", "shrink export --help", "shrink targets list", "make demo"])
def test_a_command_that_is_right_is_not(line: str, capsys: pytest.CaptureFixture[str]):
    assert check_command(line) == ""


def test_commands_are_found_in_fences_and_joined():
    assert commands("$ shrink no\n\n```console\n$ shrink export \\\n    m --force\nits answer\n```\n") == [
        "shrink export      m --force"
    ]


def test_a_dead_link_is_noticed(tmp_path: Path):
    page = tmp_path / "page.md"
    page.write_text(
        "# A title, here\n\n[a](page.md) [b](#a-title-here) [c](gone.md) [d](#gone) ![e](gone.svg) [f](https://x.y)\n"
    )
    assert dead_links(page) == ["gone.md", "#gone", "gone.svg"]


def test_the_command_reference_is_current(capsys: pytest.CaptureFixture[str]):
    code = generate_cli.main(["--check"])
    assert (code, capsys.readouterr().err) == (0, "")


def test_an_old_command_reference_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(generate_cli, "PAGE", tmp_path / "cli.md")
    assert generate_cli.main([]) == 0
    assert generate_cli.main(["--check"]) == 0
    (tmp_path / "cli.md").write_text(generate_cli.page().replace("--force", "--violence"))
    assert generate_cli.main(["--check"]) == 1
    assert "fix: make docs" in capsys.readouterr().err


def test_there_are_recipes():
    assert RECIPES


@pytest.mark.parametrize("file", RECIPES, ids=lambda path: path.name)
def test_a_recipe_loads_with_its_model_weights_data_and_targets(file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    asked = recipe.combine(file, {})
    model = models.load(
        asked.model, checkpoint=Path(asked.checkpoint) if asked.checkpoint else None, preprocess=asked.preprocess
    )
    classes = read(asked.data).evaluation.classes
    assert classes is None or len(classes) == model.outputs
    assert [targets.load(name).name for name in asked.targets] == list(asked.targets)


@pytest.mark.parametrize("file", RECIPES, ids=lambda path: path.name)
def test_a_recipe_is_named_in_a_document(file: Path):
    assert any(f"recipes/{file.name}" in document.read_text(encoding="utf-8") for document in DOCUMENTS)


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_examples_in_docstrings_give_what_they_show(file: Path):
    name = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0


def test_the_makefile_tells_of_every_target():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    declared = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)
    assert declared is not None
    assert set(re.findall(r"^([a-z]+):.*  ## \S", makefile, re.MULTILINE)) == set(declared[1].split())
