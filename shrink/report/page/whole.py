"""The page around its sections."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

from shrink.report.analysis import Analysis
from shrink.report.markup import Content, Markup, el, join
from shrink.report.page import conditions, cost, flips, groups, truth, verdict
from shrink.report.sheets import CHARTS, PAGE, sheet

RULES = "default-src 'none'; img-src data:; style-src '{style}'; base-uri 'none'; form-action 'none'"
"""What the browser may do: show pictures that are in the page, and use the one style sheet with that hash. No script,
no request, and no style from an attribute, whatever a label says."""


def render(analysis: Analysis, pictures: Mapping[int, bytes]) -> str:
    """The page as one HTML file.

    Args:
        pictures: row of the predictions -> PNG or JPEG, of flipped images.
    """
    style = sheet(CHARTS) + sheet(PAGE)
    sections = (
        verdict.section(analysis),
        cost.section(analysis),
        groups.section(analysis),
        flips.section(analysis, pictures),
        truth.section(analysis.report),
        conditions.section(analysis),
    )
    page = el("html", {"lang": "en"}, _head(style, analysis), el("body", el("main", *sections), _foot(analysis)))
    return f"<!doctype html>\n{page.text}\n"


def _head(style: str, analysis: Analysis) -> Markup:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    rules = RULES.format(style=f"sha256-{digest}")
    return el(
        "head",
        el("meta", {"charset": "utf-8"}),
        el("meta", {"http-equiv": "Content-Security-Policy", "content": rules}),
        el("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}),
        el("meta", {"name": "color-scheme", "content": "light dark"}),
        el("meta", {"name": "referrer", "content": "no-referrer"}),
        el("title", f"{analysis.report.model.spec}: {analysis.report.verdict}"),
        el("style", Markup(style)),
    )


def _foot(analysis: Analysis) -> Content:
    version = analysis.report.versions.get("shrink-vision", "")
    return join([el("footer", f"Made by shrink {version}".strip(), ". No script, nothing fetched: it can be kept.")])
