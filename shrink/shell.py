"""What a shell may expect of a program: true exit codes, quiet interrupts and pipes, errors in three lines."""

from __future__ import annotations

import os
import re
import signal
from types import FrameType
from typing import Any

import typer

from shrink.errors import Problem, RequestError, nearest

STDOUT = 1
INTERRUPTED = 130  # 128 + SIGINT


def run(app: typer.Typer, argv: list[str] | None, *, name: str) -> int:
    """Run a command line and give its exit code.

    Every Problem and every mistake on the command line becomes three lines on stderr. A bug is raised on, so
    that Python shows its traceback.

    Args:
        app: the commands.
        argv: without the program's name; None takes the process's own.
        name: the program's name.
    """
    _open_standard_files()
    with _Interrupts() as interrupts:
        try:
            code = int(app(args=argv, prog_name=name, standalone_mode=False) or 0)
        except (Exception, KeyboardInterrupt) as error:
            code = INTERRUPTED if interrupts.came or isinstance(error, KeyboardInterrupt) else _failed(error)
    if code == INTERRUPTED:
        typer.echo("interrupted", err=True)
    return code


class _Interrupts:
    """Notes that Ctrl-C was pressed: converters turn the exception it raises into others of their own."""

    def __init__(self) -> None:
        self.came = False

    def __enter__(self) -> _Interrupts:
        self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        raise KeyboardInterrupt


def _failed(error: Exception) -> int:
    """Say what was wrong, and give the exit code; a bug is raised on."""
    if isinstance(error, typer.TyperException):
        return _misused(error)
    if not isinstance(error, Problem):
        raise error
    typer.echo("\n".join([f"error: {error}", *getattr(error, "__notes__", [])]), err=True)
    return error.exit_code


def _misused(error: typer.TyperException) -> int:
    """A command line that cannot be read, in the same three lines; a bare command shows its help instead."""
    context: Any = getattr(error, "ctx", None)
    path = context.command_path if context else "shrink"
    text = str(getattr(error, "format_message", error.__str__)()).strip()
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(text, err=True)
        return RequestError.exit_code
    unknown = re.fullmatch(r"No such (option:|command) '?([^' ]+)'?.*", text, re.DOTALL)
    if unknown:
        what, why = f"there is no {unknown[1].rstrip(':')} {unknown[2]!r}", f"`{path}` does not have it"
        fix = nearest(unknown[2], _names(context.command, unknown[1])) if context else f"see `{path} --help`"
    else:
        what, why, fix = text[:1].lower() + text[1:], f"`{path}` cannot be run so", f"see `{path} --help`"
    typer.echo(f"error: {RequestError(what, why, fix)}", err=True)
    return RequestError.exit_code


def _names(command: Any, kind: str) -> list[str]:
    """The options or the commands below a command."""
    if kind == "command":
        return list(command.commands)
    return ["--help", *(name for parameter in command.params for name in parameter.opts if name.startswith("-"))]


def _open_standard_files() -> None:
    """Where a shell closed stdin, stdout or stderr, the next file to be opened would take its number."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            os.open(os.devnull, os.O_RDWR)


def say(text: str) -> None:
    """A result, on stdout; whoever reads it may stop early."""
    try:
        typer.echo(text)  # and flushes
    except BrokenPipeError:
        _drop_stdout()


def _drop_stdout() -> None:
    """Let whatever is still written there vanish."""
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, STDOUT)
    os.close(null)


def results_console() -> Any:
    """A rich console on stdout whose reader may stop early."""
    from rich.console import Console

    class Results(Console):
        def on_broken_pipe(self) -> None:
            self.quiet = True
            _drop_stdout()  # the exit code stays the verdict's

    return Results()
