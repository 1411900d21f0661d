"""Runs the command line in this process: importing PyTorch anew for every error would take minutes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from shrink.cli import main


@dataclass(frozen=True)
class Ran:
    """What a user sees of one command."""

    code: int
    out: str  # stdout
    err: str  # stderr

    @property
    def problem(self) -> tuple[str, str, str]:
        """What, why and fix of the one error on stderr; fails where there is none, or more than these lines."""
        lines = self.err.splitlines()
        starts = [number for number, line in enumerate(lines) if line.startswith("error: ")]
        assert len(starts) == 1 and "Traceback" not in self.err, self.err
        what, why, fix, *rest = lines[starts[0] :]
        assert why.startswith("  why: ") and fix.startswith("  fix: "), self.err
        assert not [line for line in rest if not line.startswith("  log: ")], self.err
        words = what.removeprefix("error: "), why.removeprefix("  why: "), fix.removeprefix("  fix: ")
        assert all(words), self.err
        return words


def run_cli(capfd: pytest.CaptureFixture[str], *argv: object) -> Ran:
    """`shrink ARGV`; an exception that is no Problem comes through."""
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        main([str(word) for word in argv])
    assert isinstance(ended.value.code, int)
    return Ran(ended.value.code, *capfd.readouterr())
