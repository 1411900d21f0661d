"""`device_runner run`, from a folder of images to what is done about them."""

from __future__ import annotations

import gc
import io
import json
import os
import signal
import subprocess
import sys
import time
import weakref
from pathlib import Path

import msgspec
import pytest
from runner_bundles import LABELS, photo

from device_runner import cli, service
from device_runner.classify import Classifier
from device_runner.log import Log
from device_runner.manifest import dump, parse
from device_runner.service import Wishes
from device_runner.systemd import Notifier

CONFIG = """
bundle = "{bundle}"
state = "{state}"
dry_run = {dry_run}
isolation = "{isolation}"
[source]
url = "{url}"
[[rule]]
name = "any"
label = "{label}"
min_confidence = 0.001
action = "note"
[[action]]
name = "note"
delivery = "{delivery}"
exec = ["{program}", "{{label}}", "{{id}}"]
"""


@pytest.fixture
def folder(tmp_path: Path, bundle_path: Path) -> Path:
    shots = tmp_path / "shots"
    shots.mkdir()
    for i in range(4):
        (shots / f"{i}.jpg").write_bytes(photo(i))
    program = tmp_path / "note"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/noted\n')
    program.chmod(0o755)
    return tmp_path


def write_config(folder: Path, **values: str) -> Path:
    fields = {
        "bundle": str(folder / "tiny.bundle"),
        "state": str(folder / "state"),
        "dry_run": "false",
        "isolation": "inline",
        "url": str(folder / "shots"),
        "label": first_label(folder),
        "delivery": "alert",
        "program": str(folder / "note"),
    }
    path = folder / "c.toml"
    path.write_text(CONFIG.format(**{**fields, **values}))
    return path


def first_label(folder: Path) -> str:
    """What the model sees in the first image."""
    return Classifier.open(folder / "tiny.bundle").classify(photo(0), 1)[0].label


def start(config: Path, **options: object) -> subprocess.Popen[bytes]:
    argv = [sys.executable, "-m", "device_runner", "run", str(config)]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options)  # type: ignore[call-overload,no-any-return]


def run(config: Path) -> tuple[int, list[dict[str, object]], str]:
    child = start(config)
    out, err = child.communicate(timeout=30)
    return child.returncode, [json.loads(line) for line in out.splitlines()], err.decode()


@pytest.mark.parametrize("isolation", ["inline", "process"])
def test_every_image_is_answered_once_and_in_order(isolation: str, folder: Path):
    code, records, err = run(write_config(folder, isolation=isolation))
    assert code == 0, err
    assert [r["frame"] for r in records] == [str(folder / "shots" / f"{i}.jpg") for i in range(4)]
    assert [r["seq"] for r in records] == [1, 2, 3, 4] and all(r["schema"] == 1 for r in records)
    assert all(r["label"] in LABELS and 0 < r["confidence"] <= 1 for r in records)  # type: ignore[operator]
    assert "selftest ok: 4 golden images" in err
    (line,) = (folder / "noted").read_text().splitlines()  # held after the first: one alert
    assert line.startswith(f"{first_label(folder)} ") and line.endswith("-1-any")


def test_a_dry_run_records_and_does_nothing(folder: Path):
    code, records, _ = run(write_config(folder, dry_run="true"))
    assert code == 0 and records[0]["verdicts"] == {"any": "fired"}
    assert not (folder / "noted").exists()
    assert cli.main(["replay", str(folder / "state" / "audit.jsonl")]) == 0


def test_an_unlock_is_done_once(folder: Path):
    run(write_config(folder, delivery="unlock"))
    assert len((folder / "noted").read_text().splitlines()) == 1


def test_replay_tells_a_forged_record(folder: Path, capsys: pytest.CaptureFixture[str]):
    run(write_config(folder))
    audit = folder / "state" / "audit.jsonl"
    capsys.readouterr()
    assert cli.main(["replay", str(audit)]) == 0
    assert ", 1 fired: 4 the same, 0 not" in capsys.readouterr().out
    audit.write_text(audit.read_text().replace('"verdict":"margin"', '"verdict":"votes"'))
    assert cli.main(["replay", str(audit)]) == 1
    assert "verdict margin, recorded votes" in capsys.readouterr().out
    audit.write_text("{}\n")
    assert cli.main(["replay", str(audit)]) == 1
    assert "is not an audit file" in capsys.readouterr().err


def test_a_bad_image_is_counted_and_the_run_goes_on(folder: Path):
    (folder / "shots" / "1.jpg").write_bytes(b"no image")
    (folder / "shots" / "2.jpg").write_bytes(photo(2)[:-300])
    code, records, err = run(write_config(folder))
    assert code == 1 and [r.get("inert") for r in records] == [None, "refused", "refused", None]
    assert "cannot be decoded" in err


@pytest.mark.parametrize(("url", "words"), [("/no/such", "holds no images"), ("shots/none*.jpg", "holds no images")])
def test_a_source_without_images_is_three_lines(url: str, words: str, folder: Path):
    code, records, err = run(write_config(folder, url=url))
    assert code == 1 and records == [] and words in err and "  fix: " in err


def test_a_model_that_fails_its_selftest_serves_nothing(folder: Path):
    path = folder / "tiny.bundle" / "manifest.json"
    manifest = parse(path.read_bytes())
    wrong = msgspec.structs.replace(manifest.preprocess, color="BGR")
    path.write_bytes(dump(msgspec.structs.replace(manifest, preprocess=wrong)))
    code, records, err = run(write_config(folder))
    assert code == 1 and records == [] and "golden image 0 gives other pixels" in err


def test_the_reader_of_the_lines_may_leave(folder: Path):
    for i in range(4, 60):
        (folder / "shots" / f"{i}.jpg").write_bytes(photo(i % 4))
    child = start(write_config(folder))
    assert child.stdout is not None
    child.stdout.readline()
    child.stdout.close()
    assert child.stderr is not None
    err = child.stderr.read()
    child.stderr.close()
    assert child.wait(10) == 1 and b"Traceback" not in err


def test_sigterm_ends_it_cleanly_and_sighup_reads_the_configuration_anew(folder: Path):
    config = write_config(folder, url="http://127.0.0.1:9/")  # nobody listens: it waits for its camera
    child = start(config)
    assert child.stderr is not None
    wait_for(child, b"selftest ok")
    config.write_text("nonsense")
    child.send_signal(signal.SIGHUP)
    wait_for(child, b"the old configuration stays")
    write_config(folder, url="http://127.0.0.1:10/")
    child.send_signal(signal.SIGHUP)
    wait_for(child, b"the configuration was read anew")
    start_s = time.monotonic()
    child.terminate()
    child.communicate(timeout=10)
    assert child.returncode == 0 and time.monotonic() - start_s < 5


def wait_for(child: subprocess.Popen[bytes], words: bytes) -> None:
    assert child.stderr is not None
    while line := child.stderr.readline():
        if words in line:
            return
    raise AssertionError(f"it ended without saying {words!r}")


def test_children_die_with_a_runner_that_is_killed(folder: Path):
    child = start(write_config(folder, url="http://127.0.0.1:9/", isolation="process"))
    wait_for(child, b"selftest ok")
    time.sleep(0.2)
    pids = [int(p) for p in Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()]
    child.kill()
    child.communicate()
    assert pids
    for _ in range(100):
        alive = [pid for pid in pids if Path(f"/proc/{pid}").exists() and not is_zombie(pid)]
        if not alive:
            return
        time.sleep(0.05)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
    raise AssertionError(f"{alive} outlived the runner")


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_the_process_that_decides_needs_neither_numpy_nor_pillow():
    """They and the runtime live in the model's process; on a small board that is half of the memory."""
    code = "import sys, device_runner.field_commands; sys.exit(bool({'numpy', 'PIL'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_what_a_reload_replaces_is_gone_before_the_next_one_is_opened(monkeypatch: pytest.MonkeyPatch):
    """A bundle of tens of megabytes must not wait for a collection that seldom comes."""
    made: list[weakref.ref[object]] = []
    alive: list[int] = []

    class Cyclic:
        def __init__(self, config: object, wishes: Wishes, *others: object) -> None:
            self.me, self.wishes = self, wishes
            alive.append(sum(one() is not None for one in made))
            made.append(weakref.ref(self))

        def run(self) -> int:
            self.wishes.reload = len(made) < 3
            return 0

        def close(self) -> None: ...

    monkeypatch.setattr(service, "Service", Cyclic)
    monkeypatch.setattr(service, "reread", lambda read, old, log: old)
    gc.disable()
    try:
        assert service.serve(lambda: None, 1, Log(io.StringIO()), Wishes(), Notifier({})) == 0  # type: ignore[arg-type, return-value]
    finally:
        gc.enable()
    assert alive == [0, 0, 0]
