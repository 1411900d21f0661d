"""Hours of the week in which a rule may act, such as "mon-fri 07:00-19:00" or "22:00-06:00".

A span that ends before it begins goes on after midnight and belongs to the day on which it began.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
DAY = 24 * 60
WEEK = 7 * DAY
_NAME, _TIME = "|".join(DAYS), "([01][0-9]|2[0-3]):[0-5][0-9]"
_SPAN = re.compile(f"((({_NAME})(-({_NAME}))?) )?{_TIME}-({_TIME}|24:00)")


def is_span(text: str) -> bool:
    """Whether the text is a span as `within` takes it."""
    return _SPAN.fullmatch(text) is not None


def within(spans: Sequence[str], minute: int) -> bool:
    """Whether a minute lies in one of the spans.

    Args:
        spans: each is one by `is_span`.
        minute: of the week, 0..10079; Monday begins at 0. The one at which a span ends is outside.
    """
    return any((minute - start) % WEEK < length for span in spans for start, length in parse(span))


@lru_cache(maxsize=256)
def parse(span: str) -> tuple[tuple[int, int], ...]:
    """(first minute of the week, minutes) on each of its days; a span of no length is empty."""
    days, _, times = span.rpartition(" ")
    first, _, last = days.partition("-")
    begin, end = (int(hour) * 60 + int(minute) for hour, minute in re.findall("([0-9]{2}):([0-9]{2})", times))
    start = DAYS.index(first) if first else 0
    count = (DAYS.index(last) - start) % 7 + 1 if last else 1 if first else 7
    length = end - begin if end >= begin else end - begin + DAY
    return tuple(((start + number) % 7 * DAY + begin, length) for number in range(count))
