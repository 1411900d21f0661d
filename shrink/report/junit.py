"""Verdicts as JUnit XML, which every CI server can show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

from shrink.report.text import plain


@dataclass(frozen=True, slots=True)
class Case:
    """One thing that holds or does not."""

    name: str
    text: str  # what was found
    failure: str | None  # in a word or two; None: it holds


def render(suite: str, cases: Sequence[Case]) -> str:
    """The XML of one suite; names from outside are one printable line each."""
    failures = sum(case.failure is not None for case in cases)
    counts = {"tests": str(len(cases)), "failures": str(failures), "errors": "0"}
    root = ElementTree.Element("testsuites", counts)
    group = ElementTree.SubElement(root, "testsuite", {"name": plain(suite), **counts})
    for case in cases:
        one = ElementTree.SubElement(group, "testcase", {"classname": plain(suite), "name": plain(case.name)})
        if case.failure is not None:
            ElementTree.SubElement(one, "failure", {"message": plain(case.failure)}).text = plain(case.text)
        else:
            ElementTree.SubElement(one, "system-out").text = plain(case.text)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'
