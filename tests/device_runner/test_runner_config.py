"""Forty wrong configurations, forty messages; and what `check` says of a right one."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from device_runner import check, cli
from device_runner.bundle import open_bundle
from device_runner.config.reading import parse, read
from device_runner.errors import ConfigError

GOOD = """
bundle = "b"
state = "s"
[source]
url = "shots"
[[rule]]
name = "cat-seen"
label = "cat"
min_confidence = 0.9
action = "tell"
[[action]]
name = "tell"
delivery = "alert"
exec = ["/bin/true", "{label}"]
"""

BAD = [  # (replace, by, what the message says)
    ('bundle = "b"', "", "neither bundle nor store is given"),
    ('bundle = "b"', 'bundle = "b"\nstore = "c"', "bundle and store are both given"),
    ('bundle = "b"', "bundle = 3", "bundle is wrong"),
    ('bundle = "b"', 'bundel = "b"', "did you mean bundle?"),
    ('bundle = "b"', 'bundle = "b', "is not TOML"),
    ('state = "s"', "", "an alert needs state"),
    ('state = "s"', 'state = "s"\nthreads = 0', "threads is wrong"),
    ('state = "s"', 'state = "s"\nisolation = "thread"', "isolation is wrong"),
    ('state = "s"', 'state = "s"\nengine = "tensorrt"', "engine is wrong"),
    ('state = "s"', 'state = "s"\ndry_run = "no"', "dry_run is wrong"),
    ('state = "s"', 'state = "s"\ndevice = "a/b"', "device is wrong"),
    ('state = "s"', 'state = "s"\ndeadline_s = 0', "deadline_s is wrong"),
    ('state = "s"', 'state = "s"\naudit_max_bytes = 10', "audit_max_bytes is wrong"),
    ('url = "shots"', "", "source.url is missing"),
    ('url = "shots"', 'url = ""', "source.url is empty"),
    ('url = "shots"', 'url = "ftp://host/x"', "unknown scheme 'ftp'"),
    ('url = "shots"', 'url = "rtsp:///stream"', "names no host"),
    ('url = "shots"', 'url = "http://host:99999/"', "source.url is no address"),
    ('url = "shots"', 'url = "-rf"', "starts with a dash"),
    ('url = "shots"', 'url = "picamera2:front"', "names no Pi camera"),
    ('url = "shots"', 'url = "raw:-"', "source.size is missing or wrong"),
    ('url = "shots"', 'url = "shots"\nsize = [2, 2]', "source.size is given"),
    ('url = "shots"', 'url = "shots"\nfps = 0', "source.fps is wrong"),
    ('url = "shots"', 'url = "shots"\nstall = 3', "did you mean source.stall_s?"),
    ('name = "cat-seen"', 'name = "Cat Seen"', "rule[0].name is wrong"),
    ('label = "cat"', "", "rule[0].label is missing"),
    ("min_confidence = 0.9", "min_confidence = 90", "rule[0].min_confidence is wrong"),
    ("min_confidence = 0.9", "min_confidence = nan", "rule[0].min_confidence is wrong"),
    ("min_confidence = 0.9", "min_confidence = 0", "min_confidence is 0"),
    ("min_confidence = 0.9", "confidence = 0.9", "did you mean rule[0].min_confidence?"),
    ("min_confidence = 0.9", "min_confidence = 0.9\nk = 3", "k is 3, above n = 1"),
    ("min_confidence = 0.9", "min_confidence = 0.9\nrelease_below = 0.95", "above min_confidence"),
    ("min_confidence = 0.9", "min_confidence = 0.9\nrelease_below = 0", "release_below is 0"),
    ("min_confidence = 0.9", 'min_confidence = 0.9\nhours = ["7-19"]', "hours '7-19' are no span"),
    (
        "min_confidence = 0.9",
        'min_confidence = 0.9\nhours = ["mon 25:00-26:00"]',
        "hours 'mon 25:00-26:00' are no span",
    ),
    ("min_confidence = 0.9", 'min_confidence = 0.9\nhours = ["07:00-07:00"]', "have no length"),
    ('action = "tell"', 'action = "yell"', "there is no action yell"),
    ('delivery = "alert"', 'delivery = "maybe"', "action[0].delivery is wrong"),
    ('delivery = "alert"', 'delivery = "alert"\nmqtt = "cat"', "needs one of exec, mqtt and webhook"),
    ('exec = ["/bin/true", "{label}"]', 'mqtt = "cat"', "there is no [mqtt]"),
    ('exec = ["/bin/true", "{label}"]', "", "needs one of exec, mqtt and webhook"),
    ('exec = ["/bin/true", "{label}"]', 'webhook = "ftp://host/x"', "webhook is no address of a web server"),
    ('exec = ["/bin/true", "{label}"]', 'webhook = "https://u:s3cret@host/"', "webhook holds a password"),
    (
        'exec = ["/bin/true", "{label}"]',
        'exec = ["/bin/true"]\ntoken_file = "t"',
        "token_file is given without webhook",
    ),
    ('exec = ["/bin/true", "{label}"]', "exec = []", "exec is empty"),
    ('exec = ["/bin/true", "{label}"]', 'exec = ["true"]', "not an absolute path"),
    ('exec = ["/bin/true", "{label}"]', 'exec = ["/bin/true", "{label.x}"]', "{label.x} cannot be filled in"),
    ('exec = ["/bin/true", "{label}"]', 'exec = ["/bin/true", "{"]', "cannot be filled in"),
    ('exec = ["/bin/true", "{label}"]', 'exec = ["/bin/true"]\nexpiry_s = 60', "action[0].expiry_s is wrong"),
    ("[source]", '[mqtt]\nhost = ""\n[source]', "mqtt.host is empty"),
    ("[source]", '[mqtt]\nhost = "b"\npassword_file = "p"\n[source]', "without mqtt.username"),
    ("[source]", '[mqtt]\nhost = "b"\nca_file = "p"\n[source]', "without mqtt.tls"),
    ("[source]", '[mqtt]\nhost = "b"\npassword = "p"\n[source]', "mqtt.password is unknown"),
    ("[source]", "[heat]\nlimit_c = 60\n[source]", "heat.resume_c is not below"),
]


def test_the_good_one_is_good():
    config = parse(GOOD.encode())
    assert config.dry_run and config.rule[0].k == 1 and config.action[0].expiry_s == 2.0


@pytest.mark.parametrize(("old", "new", "words"), BAD, ids=[f"{i}" for i in range(len(BAD))])
def test_a_bad_configuration_has_its_own_message(old: str, new: str, words: str):
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    with pytest.raises(ConfigError) as caught:
        parse(text.encode())
    _, why, fix = str(caught.value).splitlines()
    assert words in str(caught.value) and why.startswith("  why: ") and len(fix) > 10


def test_there_are_forty_of_them_and_no_two_say_the_same():
    messages = []
    for old, new, _ in BAD:
        with pytest.raises(ConfigError) as caught:
            parse(GOOD.replace(old, new, 1).encode())
        messages.append(str(caught.value))
    assert len(set(messages)) >= 40


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('label = "cat"', 'label = "cow"', "no label is 'cow'"),
        ('"/bin/true", "{label}"', '"/no/such/program"', "/no/such/program cannot be used"),
        ('"/bin/true", "{label}"', '"/etc"', "/etc cannot be run"),
    ],
)
def test_what_only_the_bundle_and_the_device_can_tell(old: str, new: str, words: str, bundle_path: Path):
    with pytest.raises(ConfigError, match=words):
        check.check(parse(GOOD.replace(old, new).encode()), open_bundle(bundle_path).manifest)


def test_a_program_that_everybody_may_change_is_refused(tmp_path: Path, bundle_path: Path):
    program = tmp_path / "open"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o777)
    config = parse(GOOD.replace("/bin/true", str(program)).encode())
    with pytest.raises(ConfigError, match="may be changed by everybody"):
        check.check(config, open_bundle(bundle_path).manifest)


def test_a_threshold_beyond_the_steps_of_a_uint8_softmax_is_told(bundle_path: Path):
    manifest = open_bundle(bundle_path).manifest
    softmax = msgspec.structs.replace(manifest.output, dtype="uint8", kind="probabilities", scale=1 / 256, zero_point=0)
    manifest = msgspec.structs.replace(manifest, output=softmax)
    assert check.effective(0.9, softmax) == 231 / 256
    assert check.effective(0.5, softmax) == 0.5
    high = parse(GOOD.replace("0.9", "0.998").encode())
    assert any("can never fire" in w and "0.99609" in w for w in check.warnings(high, manifest))
    assert not any("never" in w for w in check.warnings(parse(GOOD.encode()), manifest))
    assert any("0.90234" in line for line in check.explain(parse(GOOD.encode()), manifest))


def test_a_threshold_beyond_quantized_logits_is_told(bundle_path: Path):
    """Two labels whose logits span 3.0: softmax cannot exceed 1 / (1 + exp(-3)) = 0.9526."""
    manifest = open_bundle(bundle_path).manifest
    output = msgspec.structs.replace(manifest.output, dtype="int8", kind="logits", scale=3 / 255, zero_point=-128)
    assert check.highest(output, 2) == pytest.approx(0.952574, abs=1e-5)


def test_the_command_explains_and_a_missing_file_is_exit_2(capsys, tmp_path: Path, bundle_path: Path):
    path = tmp_path / "c.toml"
    path.write_text(GOOD.replace('"b"', f'"{bundle_path}"').replace("shots", "http://me:secret@cam/s"))
    assert cli.main(["check", str(path)]) == 0
    out = capsys.readouterr().out
    assert "rule cat-seen: cat at 0.9" in out and "dry run" in out and "http://***@cam/s" in out and "secret" not in out
    assert cli.main(["check", str(tmp_path / "none.toml")]) == 2
    with pytest.raises(ConfigError, match="too large"):
        big = tmp_path / "big.toml"
        big.write_bytes(b"#" * (1 << 20) + b"##")
        read(big)
