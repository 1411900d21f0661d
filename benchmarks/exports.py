"""`shrink export` as a user calls it: one process, judged by its exit code and its report.json."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from benchmarks import child
from benchmarks.facts import ROOT
from benchmarks.loop import Measured
from benchmarks.rows import Failure
from shrink.report import schema

LIMIT_SECONDS = 3600.0
VERDICT = 3  # exit code of an export that was done and judged, but not with "pass"


def export(arguments: Sequence[str], scratch: Path, *, data_name: str, model_name: str) -> Measured:
    """Run one export.

    Args:
        arguments: of `shrink export`, but for --out.
        scratch: existing directory.
        data_name, model_name: what the results call them, instead of paths on this machine.
    """
    out = scratch / "out"
    command = [sys.executable, "-m", "shrink.cli", "export", *arguments, "--out", str(out), "--keep-failed"]
    ended = child.run(command, cwd=ROOT, scratch=scratch, limit_seconds=LIMIT_SECONDS)
    failure = None if ended.code == VERDICT and not ended.timed_out else child.failure(ended, "shrink export")
    found = out / "report.json"
    if failure is None and not found.is_file():
        failure = Failure(what="shrink export wrote no report", why=f"exit code {ended.code}", fix="look at its output")
    result: dict[str, Any] = {"exit_code": ended.code, "wall_seconds": ended.seconds, "peak_mib": ended.peak_mib}
    if failure is None:
        report = schema.parse(found.read_bytes())
        result["report"] = without_paths(report, data_name=data_name, model_name=model_name)
    return Measured(result, failure, ended.peak_mib)


def without_paths(report: schema.Report, *, data_name: str, model_name: str) -> dict[str, Any]:
    """The report as plain data; what was typed is replaced by names that mean something elsewhere."""
    clean = msgspec.structs.replace(
        report,
        command=("shrink", "export", model_name),
        data=msgspec.structs.replace(report.data, name=data_name, notes=()),
        model=msgspec.structs.replace(report.model, spec=model_name),
    )
    plain: dict[str, Any] = msgspec.to_builtins(clean)
    return plain


def read_report(result: dict[str, Any]) -> schema.Report:
    """The report kept in a row."""
    return schema.parse(msgspec.json.encode(result["report"]))
