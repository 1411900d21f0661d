import doctest
import shlex
import shutil
import subprocess

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from shrink.report import text

HOSTILE = [
    "a|b",
    "line\nbreak",
    "tick ` and ``` fence",
    "<script>alert(1)</script>",
    '"><img src=x onerror=1>',
    "**bold** _it_ __init__ ~~gone~~",
    "[link](http://x)",
    "![image](http://x)",
    "&amp; &lt;",
    "back\\slash \\| pipe",
    "\x1b[31mred\x1b[0m",
    "\u202etxt.exe",
    "$math$",
    "[bold red]rich[/]",
    "  padded  ",
    "",
]


def rendered(source: str) -> str:
    """What a Markdown reader sees: the text of the one paragraph or cell."""
    tokens = MarkdownIt("commonmark").enable(["table", "strikethrough"]).parseInline(source)
    assert all(child.type == "text" for child in tokens[0].children or [])
    return "".join(child.content for child in tokens[0].children or [])


@pytest.mark.parametrize("name", HOSTILE)
def test_markdown_shows_a_hostile_name_as_it_is(name: str) -> None:
    assert rendered(f"x {text.markdown(name)} y") == f"x {text.plain(name)} y"


@given(st.text(max_size=40))
def test_markdown_shows_any_name_as_it_is(name: str) -> None:
    assert rendered("x " + text.markdown(name) + " y") == "x " + text.plain(name) + " y"


@given(st.text(st.sampled_from("#->+=*_1.) \t~`ab"), min_size=1))
def test_a_list_item_is_one_paragraph_of_text(name: str) -> None:
    tokens = MarkdownIt("commonmark").parse(f"{text.item(name)}\nnext")
    kinds = [token.type for token in tokens if token.type != "inline"]
    paragraph = ["bullet_list_open", "list_item_open", "paragraph_open", "paragraph_close"]
    assert kinds[:4] == paragraph or not name.strip(" ")


@given(st.text())
def test_plain_text_is_one_printable_line_of_bounded_length(name: str) -> None:
    assert text.plain(name).isprintable()
    assert len(text.plain(name)) <= text.LONGEST


@given(st.text(st.characters(categories=("L", "N", "P", "S")), max_size=text.LONGEST))
def test_a_printable_name_is_shown_unchanged(name: str) -> None:
    assert text.plain(name) == name


@given(st.lists(st.text(st.characters(categories=("L", "N", "P", "S"))), min_size=1))
def test_a_command_line_reads_back_as_its_words(words: list[str]) -> None:
    assert shlex.split(text.shell(words)) == words


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("name", [*HOSTILE, "it's\nhere", "\t\\n", "é\x07", "$(touch x)\n", "\u202e\U000e0001"])
def test_bash_reads_a_hostile_word_as_it_is(name: str) -> None:
    command = f"printf '%s' {text.shell([name])}"
    assert command.isprintable()
    done = subprocess.run(["bash", "-c", command], capture_output=True, check=True, env={"LC_ALL": "C.UTF-8"})
    assert done.stdout.decode() == name


@given(st.lists(st.text(st.sampled_from("`~a \\"), max_size=12)))
@example(["```", "~~~"])
@example(["````` x"])
def test_a_fence_cannot_be_closed_by_its_content(lines: list[str]) -> None:
    tokens = MarkdownIt("commonmark").parse("\n".join(text.fence(lines)))
    assert [token.type for token in tokens] == ["fence"]
    assert tokens[0].content == "".join(f"{line}\n" for line in lines)


def test_examples_in_the_docstrings() -> None:
    assert doctest.testmod(text).attempted >= 6
    assert doctest.testmod(text).failed == 0
