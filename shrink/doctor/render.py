"""Findings as text for a terminal: those that are not ok come with why and fix."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from shrink.doctor.findings import LEVELS, Finding, worst

VERDICTS = {"ok": "the data can be used", "warning": "the data can be used; see the warnings", "error": "do not use it"}


def text(title: str, findings: Sequence[Finding]) -> str:
    """All findings, a line each and two more where something is wrong, and the verdict."""
    counts = Counter(finding.level for finding in findings)
    counted = ", ".join(f"{counts[level]} {level}{'s' * (level != 'ok' and counts[level] != 1)}"
                        for level in reversed(LEVELS) if counts[level])  # fmt: skip
    lines = [title, "", *_lines(findings), "", f"verdict: {VERDICTS[worst(findings)]} ({counted})"]
    return "\n".join(lines)


def _lines(findings: Iterable[Finding]) -> Iterable[str]:
    for finding in findings:
        yield f"{finding.level:8} {finding.check:14} {finding.what}"
        if finding.level != "ok":
            yield f"{'':12}why: {finding.why}"
            yield f"{'':12}fix: {finding.fix}"
