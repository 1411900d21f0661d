"""A diagnosis as text: the culprit first, then the steps, then the layers."""

from __future__ import annotations

from collections.abc import Sequence

from shrink.debug.layers import LayerError
from shrink.debug.parity import Step

SHOWN = 12  # layers
BAR = 20  # characters of the longest


def text(culprit: Sequence[str], steps: Sequence[Step], layers: Sequence[LayerError], images: int) -> str:
    """All of it, without colours."""
    parts = ["\n".join(culprit), _steps(steps, images)]
    if layers:
        parts.append(_layers(layers))
    return "\n\n".join(parts)


def _steps(steps: Sequence[Step], images: int) -> str:
    width = max(len(f"{one.what} against {one.against}") for one in steps)
    head = f"{f'step, on {images} images':{width}}   error   worst  same answer"
    lines = [
        f"{f'{one.what} against {one.against}':{width}}  {one.error:6.2%}  {one.worst:6.2%}  {one.agreement:11.1%}"
        f"{'' if one.is_sound else f'  above {one.most:.1%}'}"
        for one in steps
    ]
    return "\n".join([head, *lines, "error: rms of the scores' difference over their deviation; worst: of any score"])


def _layers(layers: Sequence[LayerError]) -> str:
    shown = layers[:SHOWN]
    names = [f"{one.layer or one.name} ({one.op})" for one in shown]
    width, most = max(map(len, names)), max(one.scores for one in shown) or 1.0
    head = f"{'layer, the most harmful first':{max(width, 29)}}  own SQNR  so far  in file  scores, by it alone"
    lines = [
        f"{name:{max(width, 29)}}  {one.own_db:8.1f}  {one.total_db:6.1f}  {_known(one.file_db):>7}  "
        f"{one.scores:6.2%}  "
        f"{'#' * round(BAR * one.scores / most)}".rstrip()
        for name, one in zip(names, shown, strict=True)
    ]
    more = len(layers) - len(shown)
    lines.append(
        "SQNR in dB; so far: in the whole quantized graph; in file: of the file's value against the simulated one"
    )
    return "\n".join([head, *lines, *([f"and {more} more, less harmful; --json lists all"] if more > 0 else [])])


def _known(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"
