"""Writes docs/cli.md from the command line's own help, so that the two cannot differ.

make docs                               write it
python docs/generate_cli.py --check     exit 1 if it is not current
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from shrink.cli import app

PAGE = Path(__file__).with_name("cli.md")
WIDTH = 100  # columns of the help texts, whatever the terminal has
HEAD = """\
# Command line

What `shrink --help` and the help of every command say. This page is written by `make docs`; do not edit it.
For the command line of the device see [device_runner](../device_runner/README.md).
"""


def page() -> str:
    """The whole page."""
    sections = (f"## {path}\n\n```text\n{text}\n```\n" for path, text in helps(typer.main.get_command(app), "shrink"))
    return "\n".join((HEAD, *sections))


def helps(command: Any, name: str, parent: Any = None) -> Iterator[tuple[str, str]]:
    """(how it is called, its help) of a command and of all commands below it."""
    context = command.context_class(command, info_name=name, parent=parent, terminal_width=WIDTH)
    text = command.get_help(context)
    yield context.command_path, "\n".join(line.rstrip() for line in text.splitlines())
    for below in getattr(command, "commands", {}).values():
        yield from helps(below, below.name, context)


def main(arguments: list[str]) -> int:
    """Write the page, or say whether it is current."""
    if arguments == ["--check"]:
        if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page():
            return 0
        sys.stderr.write(f"error: {PAGE.name} is not current\n  why: the help of a command changed\n  fix: make docs\n")
        return 1
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
