"""Numbers and foreign names as text that breaks neither a table, a terminal nor a shell.

Names of files, labels and models come from outside. Control and direction characters are shown as
escapes, never sent; what is markup in Markdown is escaped there.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

LONGEST = 300  # characters of a foreign text that are shown; report.json has it whole

_ALWAYS = re.compile(r"[\\`*|<\[\]&~$]")
_AT_WORD_EDGE = re.compile(r"(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")  # inside a word it is no markup
_BLOCK = re.compile(r"^(?:[#>+=-]|\d+[.)])")  # what opens a block at the start of a line or list item
_HTML = {"&": "&amp;", "<": "&lt;"}


def plain(text: str) -> str:
    """One printable line: every other character as its escape, the middle of a long text left out."""
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    if len(shown) <= LONGEST:
        return shown
    half = (LONGEST - 5) // 2
    return f"{shown[:half]} ... {shown[-half:]}"


def markdown(text: str) -> str:
    """`plain` text for a Markdown table cell or the middle of a line.

    >>> print(markdown("mobilenet_v2 a|b"))
    mobilenet_v2 a\\|b
    """
    escaped = _ALWAYS.sub(lambda m: _HTML.get(m[0], "\\" + m[0]), plain(text))
    return _AT_WORD_EDGE.sub(r"\\_", escaped)


def item(text: str) -> str:
    """`plain` text as a Markdown list item."""
    return f"- {_BLOCK.sub(lambda m: m[0][:-1] + chr(92) + m[0][-1], markdown(text).lstrip())}"


def fence(lines: Iterable[str]) -> list[str]:
    """A Markdown code block that its content cannot close."""
    body = list(lines)
    longest = max((len(run) for line in body for run in re.findall("`+", line)), default=0)
    ticks = "`" * max(3, longest + 1)
    return [f"{ticks}sh", *body, ticks]


def shell(words: Iterable[str]) -> str:
    """A command line to paste: one printable line, whatever is in the words."""
    return " ".join(map(_quoted, words))


def percent(share: float, digits: int = 2) -> str:
    """
    >>> percent(0.99214)
    '99.21 %'
    """
    return f"{100 * share:.{digits}f} %"


def points(rate: float) -> str:
    """
    >>> points(0.0031), points(-0.00001)
    ('0.31', '0.00')
    """
    return f"{100 * rate + 0.0:.2f}".replace("-0.00", "0.00")


def size(count: int) -> str:
    """
    >>> size(520_704), size(3_514_880)
    ('520.7 kB', '3.51 MB')
    """
    return f"{count / 1e6:.2f} MB" if count >= 1e6 else f"{count / 1e3:.1f} kB"


def factor(ratio: float) -> str:
    """
    >>> factor(0.2841)
    '0.28 x'
    """
    return f"{ratio:.2f} x"


def milliseconds(time: float) -> str:
    """Three significant digits, from a microcontroller's seconds to a server's microseconds.

    >>> milliseconds(1234.5), milliseconds(12.345), milliseconds(0.012345)
    ('1234 ms', '12.3 ms', '0.0123 ms')
    """
    digits = next((d for d, limit in enumerate((100, 10, 1, 0.1)) if time >= limit), 4)
    return f"{time:.{digits}f} ms"


def _quoted(word: str) -> str:
    if word.isprintable():
        return shlex.quote(word)
    inner = "".join(c if c.isprintable() and c not in "\\'" else _code(c) for c in word)
    return f"$'{inner}'"  # bash, zsh and ksh read the escapes


def _code(c: str) -> str:
    return f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}"
