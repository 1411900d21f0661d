"""The images whose answer changed, to be looked at."""

from __future__ import annotations

import base64
from collections.abc import Mapping

from shrink.report.analysis import Analysis, Flip
from shrink.report.markup import Content, Markup, el
from shrink.report.page.parts import more, name
from shrink.report.page.parts import section as _section
from shrink.report.text import percent

SHOWN, MOST = 15, 50  # pictures: at once, and once the rest is unfolded
KINDS = {b"\x89PNG": "image/png", b"\xff\xd8\xff": "image/jpeg"}


def section(analysis: Analysis, pictures: Mapping[int, bytes]) -> Markup | None:
    """A gallery; an image that several files flipped is shown once.

    Args:
        pictures: row of the predictions -> PNG or JPEG.
    """
    flips = [(file.target, flip) for file in analysis.files for flip in file.flips]
    if not flips:
        return None
    rows = list(dict.fromkeys(flip.row for _, flip in flips))
    rows.sort(key=lambda row: row not in pictures)  # those that can be seen first
    told = {row: [(target, flip) for target, flip in flips if flip.row == row] for row in rows[:MOST]}
    figures = [_figure(found, pictures.get(row)) for row, found in told.items()]
    return _section(
        "Images that flipped",
        f"Only the float model, or only the file, names these rightly: {_count(len(told), len(rows))}, the lost before "
        "the won, the surest first.",
        el("div.gallery", *figures[:SHOWN]),
        more(f"{len(figures) - SHOWN} more", el("div.gallery", *figures[SHOWN:])) if figures[SHOWN:] else None,
    )


def _count(shown: int, known: int) -> str:
    return f"{shown} of them" if shown == known else f"{shown} of {known}"


def _figure(found: list[tuple[str, Flip]], picture: bytes | None) -> Markup:
    _, flip = found[0]
    said: list[Content] = [_answer("truth", flip.label, None)]
    said.append(_answer("float", flip.before, flip.before_confidence))
    said += [_answer(target, one.now, one.now_confidence) for target, one in found]
    return el(
        f"figure.flip.{'lost' if flip.is_lost else 'won'}",
        _picture(picture, flip.ref),
        el("figcaption", el("dl", *said), el("p.small", name(flip.ref))),
    )


def _answer(who: str, answer: str, confidence: float | None) -> Markup:
    sure = None if confidence is None else el("small", f" {percent(confidence, 0)}")
    return el("div", el("dt", name(who)), el("dd", name(answer), sure))


def _picture(picture: bytes | None, ref: str) -> Markup:
    kind = next((kind for magic, kind in KINDS.items() if picture and picture.startswith(magic)), None)
    if picture is None or kind is None:
        return el("div.missing", "no picture kept")
    data = f"data:{kind};base64,{base64.b64encode(picture).decode()}"
    return el("img", {"src": data, "alt": f"image {ref}"[:80], "loading": "lazy"})
