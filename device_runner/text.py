"""Text from labels and files, made fit for a terminal, a topic, a file name or a metric."""

from __future__ import annotations

import hashlib
import re
import unicodedata


def printable(text: str) -> str:
    """The text with every control, format and lone surrogate character escaped: a label cannot drive a terminal."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def printable_lines(text: str) -> str:
    """As `printable`, keeping line breaks."""
    return "\n".join(map(printable, text.split("\n")))


def slug(text: str) -> str:
    """Lower-case letters, digits and single dashes only, at most 48; two different texts never share one.

    A text that is a slug already stays as it is; any other gets 8 digits of its hash.
    """
    if re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", text) and len(text) <= 39:
        return text
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")[:39].strip("-")
    digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return f"{words}-{digest}" if words else digest
