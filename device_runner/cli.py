"""The command line: parse, call one command, report. Answers go to stdout, everything else to stderr."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper
from pathlib import Path

from device_runner import __version__
from device_runner.errors import Problem
from device_runner.text import printable_lines

INTERRUPTED = 130
COMMANDS = {  # command -> the module with the function of that name
    "verify": "device_runner.commands",
    "selftest": "device_runner.commands",
    "classify": "device_runner.commands",
    "probe": "device_runner.probe.command",
    "run": "device_runner.field_commands",
    "check": "device_runner.field_commands",
    "replay": "device_runner.field_commands",
    "review": "device_runner.field_commands",
    "forget": "device_runner.field_commands",
    "install": "device_runner.store_commands",
    "trial": "device_runner.store_commands",
    "commit": "device_runner.store_commands",
    "rollback": "device_runner.store_commands",
    "status": "device_runner.store_commands",
    "release": "device_runner.store_commands",
}
FUNCTIONS = {"release": "make_release"}  # where the function has another name
EPILOG = "exit code: 0 all good, 1 something failed (stderr says what, why and how to fix it), 2 wrong usage"


Commands = argparse._SubParsersAction  # what `add_subparsers` returns; the library gives it no public name


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = build_parser().parse_args(argv)
    module = import_module(COMMANDS[arguments.command])  # numpy and Pillow: not needed for --help

    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without Unicode is no reason to stop
    try:
        code: int = getattr(module, FUNCTIONS.get(arguments.command, arguments.command))(
            arguments, sys.stdout, sys.stderr
        )
        sys.stdout.flush()
    except Problem as problem:
        sys.stderr.write(f"error: {printable_lines(str(problem))}\n")
        return problem.exit_code
    except BrokenPipeError:  # the reader, such as `head`, has seen enough; nothing may be flushed to it at exit
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    return code


def build_parser() -> argparse.ArgumentParser:
    """All commands with their options; each command is the function of that name in its module."""
    parser = argparse.ArgumentParser("device_runner", description="Serve a shrink bundle on a device.", epilog=EPILOG)
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    verify = commands.add_parser("verify", help="check that a bundle is whole; nothing of it is run")
    selftest = commands.add_parser("selftest", help="verify, then replay the golden images on this device")
    classify = commands.add_parser("classify", help="verify, selftest, then name what is in images")
    probe = commands.add_parser("probe", help="measure answers, times and memory on this machine, as JSON")
    for command in (verify, selftest, classify, probe):
        command.add_argument("bundle", type=Path, metavar="BUNDLE", help="a directory, or a zip of stored files")
    for command in (selftest, classify, probe):
        command.add_argument("--engine", metavar="NAME", help="litert, tflite_runtime or onnxruntime; else the first")
        command.add_argument("--threads", type=positive, default=1, metavar="N", help="for the engine (default 1)")
    _add_classify_options(classify)
    _add_probe_options(probe)
    run = commands.add_parser("run", help="serve: watch a source, decide by rules, act")
    check = commands.add_parser("check", help="explain a configuration; nothing is run")
    forget = commands.add_parser("forget", help="take back what the MQTT broker keeps of a device that was removed")
    for command in (run, check, forget):
        command.add_argument("config", type=Path, metavar="CONFIG", help="a TOML file")
    replay = commands.add_parser("replay", help="take the decisions of an audit file again, and compare")
    replay.add_argument("audit", type=Path, nargs="+", metavar="AUDIT", help="an audit.jsonl")
    review = commands.add_parser("review", help="list the frames that were kept for a person, as a CSV to fill in")
    review.add_argument("folder", type=Path, metavar="DIR", help="the folder review in the state of a runner")
    _add_store_commands(commands)
    return parser


def _add_store_commands(commands: Commands[argparse.ArgumentParser]) -> None:
    install = commands.add_parser("install", help="verify and prove a bundle, and keep it in a store")
    install.add_argument("bundle", type=Path, metavar="BUNDLE")
    install.add_argument("--engine", metavar="NAME", help="as for selftest")
    install.add_argument("--trusted-keys", metavar="FILE", help="refuse a bundle that none of these keys released")
    install.add_argument("--kind", metavar="KIND", help="of this device; a release for another kind is refused")
    trial = commands.add_parser("trial", help="let the installed bundle run beside the current one, deciding nothing")
    commit = commands.add_parser("commit", help="let the bundle on trial, or the installed one, decide")
    rollback = commands.add_parser(
        "rollback", help="end the trial and quarantine its bundle, or go back to the previous"
    )
    status = commands.add_parser("status", help="what decides, and what is on trial")
    status.add_argument("--json", action="store_true", help="one JSON object")
    for command in (install, trial, commit, rollback, status):
        command.add_argument("--store", type=Path, required=True, metavar="DIR", help="the store of models")
    release = commands.add_parser("release", help="on the host: sign a bundle as a version for kinds of devices")
    release.add_argument("bundle", type=Path, metavar="BUNDLE", help="a directory")
    release.add_argument("--version", dest="version_number", type=positive, required=True, metavar="N")
    release.add_argument("--kind", action="append", metavar="KIND", help="of device; may be given again; else any")
    release.add_argument("--key", type=Path, required=True, metavar="FILE", help="a private ssh key")


def _add_classify_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("images", type=Path, nargs="+", metavar="IMAGE|DIR", help="JPEG, PNG or BMP files, or folders of them")
    add("--top", type=positive, default=3, metavar="K", help="answers per image (default 3)")
    add("--json", action="store_true", help="one JSON object per image and line")
    add("--review-below", type=share, default=0.6, metavar="P", help="mark less confident images (default 0.6)")
    add("--no-selftest", action="store_true", help="start without replaying the golden images")


def _add_probe_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--images", type=Path, required=True, metavar="DIR|ZIP", help="JPEG, PNG or BMP files; a zip must be stored")
    add("--against", type=Path, metavar="BUNDLE", help="time it in turns with this one, such as the float one")
    add("--repeats", type=int, default=5, metavar="N", help="series of times (default 5; 0: none)")
    add("--seconds", type=float, default=60.0, metavar="S", help="of timing, at least (default 60)")
    add("--samples", type=positive, default=1024, metavar="N", help="of timing, at least (default 1024)")
    add("--pause", type=float, default=0.0, metavar="S", help="between two series (default 0)")


def positive(text: str) -> int:
    """A whole number above 0."""
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def share(text: str) -> float:
    """A number in 0..1."""
    value = float(text)
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not within 0..1")
    return value
