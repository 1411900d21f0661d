"""Counts instructions of a bundle on an emulated processor: a process of its own, started the same way every time."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from device_runner.probe.markers import PARTS
from device_runner.probe.record import Instructions, Region
from shrink.boards.board import Board
from shrink.errors import StageError

CLASSES = (
    "int", "branch", "load", "store", "vector load", "vector store", "fma", "dot", "matrix", "widening multiply",
    "simd", "sve", "other",
)  # fmt: skip
"""What the plugin sorts instructions into, in its order: fma is FMLA and its kin, dot SDOT and UDOT, matrix SMMLA and
its kin, widening multiply SMULL and SMLAL, with which int8 is computed where there is no dot."""

PROGRAM = "import sys;sys.path.insert(0,{runner!r});from device_runner.probe.counted import count;count({bundle!r})"
LIMIT_S = 600


def no_counts(board: Board, threads: int) -> str | None:
    """Why instructions are not counted there; None when they are."""
    if board.emulates is None:
        return "only an emulated board (qemu:CPU) counts them"
    if threads > 1:
        return "counts repeat with one thread only"
    return None if board.plugin else "the plugin is not built: `shrink board setup qemu --again`, with a C compiler"


def count(board: Board, runner: Path, bundle: Path, out: Path) -> Instructions:
    """Run the parts of one image's way on the emulated processor, and read what its plugin counted.

    What the counts could depend on is fixed: hash seed, addresses, environment, and one thread.

    Args:
        board: with a plugin.
        runner: the runner's zip, at a path that is the same every time.
        bundle: likewise.
        out: a file that is not there yet.

    Raises:
        StageError: it ends badly, or the plugin's lines are not understood.
    """
    text = run_counted(board, PROGRAM.format(runner=str(runner), bundle=str(bundle)), out)
    try:
        return read_counts(text, board.emulates or "")
    except ValueError as error:
        raise StageError(f"{board.url} could not count instructions", str(error), "run it again") from error


def run_counted(board: Board, program: str, out: Path) -> str:
    """Run a Python program on the emulated processor, started the same way every time; what its plugin wrote.

    Raises:
        StageError: it ends badly.
    """
    qemu, *rest = board.python
    command = [*_same_addresses(), qemu, "-seed", "1", "-plugin", f"{board.plugin},out={out}", *rest, "-c", program]
    ran = subprocess.run(
        command, env=board.environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT_S, check=False
    )
    try:
        if ran.returncode:
            raise ValueError(" ".join(ran.stderr.decode("utf-8", "replace").split())[-300:])
        return out.read_text(encoding="ascii")
    except (OSError, ValueError) as error:
        raise StageError(f"{board.url} could not count instructions", str(error), "run it again") from error


def read_counts(text: str, cpu: str) -> Instructions:
    """What the plugin wrote: a line for each end of a part, with its number and the counts by class.

    Raises:
        ValueError: no lines of all parts, or lines of another form.
    """
    lines = [tuple(map(int, line.split())) for line in text.splitlines()]
    if {line[0] for line in lines} != set(range(len(PARTS))) or any(len(line) != len(CLASSES) + 1 for line in lines):
        raise ValueError(f"{len(lines)} lines of counts are not those of {len(PARTS)} parts")
    return Instructions(cpu=cpu, regions={part: _region(lines, number) for number, part in enumerate(PARTS)})


def _region(lines: list[tuple[int, ...]], number: int) -> Region:
    mine = [counts for k, *counts in lines if k == number]
    classes = {name: count for name, count in zip(CLASSES, mine[-1], strict=True) if count}
    return Region(totals=tuple(map(sum, mine)), classes=classes)


def _same_addresses() -> list[str]:
    """The words that start a program without random addresses, where that is allowed."""
    words = [shutil.which("setarch") or "", "-R"]
    allowed = words[0] and not subprocess.run([*words, "true"], capture_output=True, check=False).returncode
    return words if allowed else []
