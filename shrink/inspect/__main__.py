"""python -m shrink.inspect FILE [--json]: what a .tflite or .onnx file really is."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import msgspec

from shrink.errors import Problem
from shrink.inspect import render
from shrink.inspect.guard import inspect_untrusted


def main(argv: list[str]) -> int:
    """Inspect one file; exit code 0, or 2 with three lines on standard error."""
    parser = argparse.ArgumentParser(prog="python -m shrink.inspect", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--json", action="store_true", help="print all that is known as one JSON object")
    asked = parser.parse_args(argv)
    try:
        found = inspect_untrusted(asked.file)
    except Problem as problem:
        sys.stderr.write(f"error: {problem}\n")
        return problem.exit_code
    answer = msgspec.json.format(msgspec.json.encode(found)).decode() if asked.json else render.text(found)
    sys.stdout.write(answer + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
