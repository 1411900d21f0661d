"""Hostile labels, made fit for topics, file names and terminals; passwords, kept out of everything."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_runner.config.parts import Config
from device_runner.config.reading import parse
from device_runner.errors import ConfigError
from device_runner.programs import fill
from device_runner.sources.grammar import parse_url, redact, secrets
from device_runner.text import printable, slug

HOSTILE = (
    '<script>alert(1)</script>', '"><img onerror=x>', "../../etc/passwd", "a/b+c#d", "new\nline", "%s%n", "{{7*7}}",
    "\u202eevil", "\x1b[2J", "x" * 10_000, "\N{CAT FACE}", "", " ", ".", "..", "-rf", "; touch /tmp/x", "$(id)", "`id`",
    "nul\0", "\ud800", "CON", "Ä", "ä", "T-shirt/top", "=1+1", "@SUM", "|cat", "&&", "\\\\host", "a\tb",
)  # fmt: skip


@pytest.mark.parametrize("label", HOSTILE, ids=range(len(HOSTILE)))
def test_a_hostile_label_becomes_a_plain_slug(label: str):
    assert re.fullmatch(r"[a-z0-9][a-z0-9-]{0,47}", slug(label))


def test_two_hostile_labels_never_share_a_slug():
    assert len(set(map(slug, HOSTILE))) == len(set(HOSTILE))


@given(st.text(), st.text())
def test_slugs_tell_texts_apart(a: str, b: str):
    assert (slug(a) == slug(b)) == (a == b)


@given(st.text(max_size=50))
def test_a_program_gets_a_slug_and_never_a_label(label: str):
    argv = fill(("/bin/echo", "--what={label}", "{confidence}"), {"label": label, "confidence": 0.5})
    assert argv == ["/bin/echo", f"--what={slug(label)}", "0.5000"]


def test_printable_leaves_no_control_character():
    assert all(printable(label).isprintable() for label in HOSTILE)


@pytest.mark.parametrize(
    "url",
    [
        "rtsp://joe:s3cr%24t@cam:554/live",
        "http://joe:s3cr%24t@cam/mjpg?size=2",
        "http://cam/video?user=joe&password=s3cr%24t&size=2",
        "http://cam/video?pwd=s3cr%24t",
        "rtsp://joe:s3cr%24t@x@cam/live",
        "HTTPS://joe:s3cr%24t@cam/",
    ],
)
def test_a_password_is_nowhere_shown(url: str):
    place = parse_url(url)
    for text in (place.shown, repr(place), f"{place}", redact(f"cannot open {url}: refused")):
        assert "s3cr" not in text and "cam" in text


def test_secrets_of_a_url_in_every_spelling():
    assert set(secrets("rtsp://joe:s3cr%24t@cam/")) >= {"s3cr%24t", "s3cr$t", "joe:s3cr%24t"}
    assert secrets("shots/*.jpg") == () and secrets("http://cam/") == ()


def test_an_error_about_a_url_shows_no_password():
    for url in ("ftp://joe:s3cret@cam/", "http://joe:s3cret@cam:port/", "rtsp://joe:s3cret@:554/"):
        with pytest.raises(ConfigError) as caught:
            parse(f'bundle = "b"\n[source]\nurl = "{url}"'.encode())
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "kind", "live"),
    [
        ("shots", "images", False), ("shots/*.jpg", "images", False), ("a.png", "images", False),
        ("film.MP4", "video", False), ("-", "mjpeg", True), ("mjpeg:-", "mjpeg", True), ("raw:-", "raw", True),
        ("http://cam/", "http", True), ("https://cam/x", "http", True), ("rtsp://cam/x", "rtsp", True),
        ("0", "v4l2", True), ("/dev/video2", "v4l2", True), ("/dev/v4l/by-id/usb-cam", "v4l2", True),
        ("picamera2:0", "picamera2", True),
    ],
)  # fmt: skip
def test_the_grammar_of_sources(url: str, kind: str, live: bool):
    place = parse_url(url)
    assert (place.kind, place.live) == (kind, live)


def test_the_configuration_is_frozen():
    config = parse(b'bundle = "b"\n[source]\nurl = "x"')
    assert isinstance(config, Config)
    with pytest.raises(AttributeError):
        config.dry_run = False  # type: ignore[misc]
