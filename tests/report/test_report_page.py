"""The page in a real browser: whatever a label says, nothing runs, nothing is fetched, nothing sticks out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser, browser
from run_samples import HOSTILE, hostile_run, plain_run

from shrink.report.analysis import Analysis
from shrink.report.page import whole
from shrink.steps.analysing import analyse
from shrink.steps.runs import read_run

needs_browser = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")

WIDTHS = (390, 1280)


class Tags(HTMLParser):
    """Elements and attributes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append(tag)
        self.attributes |= {name for name, _ in attrs}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("pages")
    for name, make in (("plain", plain_run), ("hostile", hostile_run)):
        run = read_run(make(root / name))
        (root / f"{name}.html").write_text(whole.render(analyse(run, []), run.pictures), encoding="utf-8")
    return {name: root / f"{name}.html" for name in ("plain", "hostile")}


@pytest.fixture(scope="module")
def analysed(pages: dict[str, Path]) -> Analysis:
    return analyse(read_run(pages["plain"].with_suffix("")), [])


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_there_are_sixty_hostile_names():
    assert len(set(HOSTILE)) == 60


def test_no_element_comes_from_a_name_and_none_can_run(pages: dict[str, Path]):
    plain, hostile = (Tags(page.read_text()) for page in pages.values())
    assert set(hostile.found) <= set(plain.found)
    assert hostile.attributes == plain.attributes
    assert {"script", "iframe", "object", "link", "base", "form", "a"} & set(plain.found) == set()
    assert [name for name in plain.attributes if name.startswith("on") or name in ("style", "href")] == []
    assert (hostile.found.count("style"), hostile.found.count("title")) == (1, plain.found.count("title"))


def test_the_browser_is_told_to_run_nothing_and_fetch_nothing(pages: dict[str, Path]):
    found = re.search(r'Content-Security-Policy" content="([^"]*)"', pages["plain"].read_text())
    assert found is not None
    rules = dict(rule.split(" ", 1) for rule in found[1].replace("&#x27;", "'").split("; "))
    assert (rules["default-src"], rules["img-src"]) == ("'none'", "data:")
    assert "unsafe" not in found[1] and rules["style-src"].startswith("'sha256-")


def test_the_verdict_comes_first_then_what_it_rests_on(pages: dict[str, Path]):
    text = pages["plain"].read_text()
    order = ["Not enough images", "loses", "Accuracy against size", "step by step", "By class", "By site",
             "Answers that changed", "Images that flipped", "What the files really are", "How it was measured",
             "Do it again", "shrink export timm:deit_tiny"]  # fmt: skip
    places = [text.index(f">{words}" if words[0].isupper() else words) for words in order]
    assert places == sorted(places)


def test_fifty_flipped_images_fit_two_megabytes(pages: dict[str, Path], tmp_path: Path):
    from dataclasses import replace

    from run_samples import photo

    from shrink.runs import pictures

    run = read_run(pages["plain"].with_suffix(""))
    assert run.predictions is not None
    wrong = (run.predictions.labels + 1) % 60
    file = replace(run.predictions.files["tflite-int8"], top1=wrong)
    many = replace(run, predictions=replace(run.predictions, files={"tflite-int8": file}), targets=("tflite-int8",))
    assert many.predictions is not None
    shown = pictures.parse(pictures.dump(many.predictions, lambda row: photo(row, (1200, 900))))
    text = whole.render(analyse(many, []), shown)
    assert text.count("<img ") == 50
    assert len(text.encode()) < 2_000_000


@needs_browser
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["plain", "hostile"])
def test_nothing_runs_is_fetched_or_sticks_out(tab: Browser, pages: dict[str, Path], name: str, width: int):
    tab.open(pages[name], width=width)
    assert tab.value("document.documentElement.dataset.ran") is None
    assert tab.value("document.scripts.length") == 0
    assert [url for url in tab.requests if not url.startswith(("file://", "data:image/"))] == []
    assert tab.value("document.documentElement.scrollWidth") <= width
    assert tab.value("document.documentElement.clientWidth") == width
    sections = "[...document.querySelectorAll('main > *, .card, figure')].map(e => e.getBoundingClientRect())"
    assert tab.value(f"{sections}.filter(b => b.right > {width} + 1 || b.left < -1 || b.height < 1).length") == 0
    assert tab.value("document.querySelectorAll('main > section').length") == 5
    assert tab.value("getComputedStyle(document.body).display") == "block"


@needs_browser
def test_the_pictures_are_seen(tab: Browser, pages: dict[str, Path]):
    tab.open(pages["plain"], width=1280)
    tab.value("document.querySelectorAll('img').forEach(i => i.loading = 'eager')")
    assert tab.value("document.images.length") == 12
    widths = "Promise.all([...document.images].map(i => i.decode().then(() => i.naturalWidth)))"
    found = tab.call("Runtime.evaluate", expression=widths, awaitPromise=True, returnByValue=True)["result"]["value"]
    assert set(found) == {160}


@needs_browser
def test_ink_and_paper_are_far_apart_in_the_light_and_in_the_dark(tab: Browser, pages: dict[str, Path]):
    def brightness(name: str) -> float:
        colour = tab.value(f"getComputedStyle(document.body).{name}")
        return sum(map(int, re.findall(r"\d+", colour)[:3])) / 765

    for dark in (False, True):
        tab.open(pages["plain"], width=390, dark=dark)
        ink, paper = brightness("color"), brightness("backgroundColor")
        assert (ink > paper) == dark and abs(ink - paper) > 0.7


@needs_browser
def test_a_page_that_runs_or_sticks_out_would_be_seen(tab: Browser, tmp_path: Path):
    page = tmp_path / "bad.html"
    page.write_text("<!doctype html>" + HOSTILE[0] + "<p style='width:3000px'>x</p><img src='http://127.0.0.1:9/x'>")
    tab.open(page, width=390)
    assert tab.value("document.documentElement.dataset.ran") == "1"
    assert tab.value("document.documentElement.scrollWidth") > 390
    assert any(url.startswith("http://127.0.0.1") for url in tab.requests)
