"""The style sheets of pages and charts, which are files beside this one."""

from __future__ import annotations

from pathlib import Path

CHARTS, PAGE = "charts.css", "page.css"


def sheet(name: str) -> str:
    """The text of a style sheet."""
    return (Path(__file__).parent / "style" / name).read_text(encoding="utf-8")
