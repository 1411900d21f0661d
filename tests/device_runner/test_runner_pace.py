"""How old frames are when they are decided on, and how much is written, in runs of the whole program."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from camera import Camera
from runner_bundles import photo
from test_runner_chaos import write_config

from device_runner.bundle import open_bundle
from device_runner.worker.model import Model

MODEL_S, INTERVAL_S = 0.2, 1 / 30
SLOW = f"""
import sys, time
from device_runner import cli
from device_runner.worker.model import Model
see = Model.see
def slow(self, frame):
    time.sleep({MODEL_S})
    return see(self, frame)
Model.see = slow
sys.exit(cli.main(sys.argv[1:]))
"""
COUNTED = """
import re, sys
from device_runner import cli
code = cli.main(sys.argv[1:])
sys.stderr.write(open("/proc/self/io").read())
sys.exit(code)
"""


@pytest.fixture
def camera() -> Iterator[Camera]:
    camera = Camera([photo(i) for i in range(4)])
    camera.pause_s = INTERVAL_S
    yield camera
    camera.close()


def test_a_model_slower_than_the_camera_decides_on_the_newest_frame_and_every_frame_is_counted(
    tmp_path: Path, bundle_path: Path, camera: Camera
):
    config, port = write_config(tmp_path, bundle_path, camera.url, 'isolation = "inline"')
    child = subprocess.Popen(
        [sys.executable, "-c", SLOW, "run", str(config)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    time.sleep(8)
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page:
        counted = dict(re.findall(r"^device_runner_frames_(\w+)_total (\d+)$", page.read().decode(), re.MULTILINE))
    child.send_signal(signal.SIGTERM)
    out, _ = child.communicate(timeout=10)
    lines = [json.loads(line) for line in out.splitlines()]
    ages = [line["age_ms"] for line in lines]
    assert len(lines) > 15
    # the median, for a busy machine's sake; were frames queued, the last would be seconds old
    assert np.median(ages) <= 2 * 1000 * (MODEL_S + INTERVAL_S)
    received, dropped, processed = (int(counted[name]) for name in ("received", "dropped", "processed"))
    assert dropped > 3 * processed
    assert 0 <= received - dropped - processed <= 2  # one is being decided on, one waits


def test_an_event_a_minute_writes_less_than_a_mebibyte_an_hour(tmp_path: Path, bundle_path: Path):
    """One photo of four is an event, and 240 are looked at: sixty alerts, done by a program and recorded."""
    shots, state = tmp_path / "shots", tmp_path / "state"
    shots.mkdir()
    model = Model.load(open_bundle(bundle_path))
    found = [model.answer("file", (0, 0), photo(i)).confidences[0] for i in range(4)]
    second, first = sorted(found)[-2:]
    for i in range(240):
        (shots / f"{i:03}.jpg").write_bytes(photo(i % 4))
    config, _ = write_config(tmp_path, bundle_path, str(shots), f'dry_run = false\nstate = "{state}"')
    text = config.read_text().replace("min_confidence = 0.01", f"min_confidence = {(first + second) / 2}")
    tell = '[[action]]\nname = "tell"\ndelivery = "alert"\nexec = ["/bin/true"]\n'
    # frames of a folder wait for a slow disk, for longer than the second that they may be old
    config.write_text(text + 'max_age_ms = 60000\naction = "tell"\n' + tell)
    program = [sys.executable, "-c", COUNTED, "run", str(config)]
    ran = subprocess.run(program, capture_output=True, text=True, timeout=120, check=True)
    written = re.search(r"^write_bytes: (\d+)$", ran.stderr, re.MULTILINE)
    assert (state / "audit.jsonl").read_bytes().count(b'"verdict":"fired"') == 60
    assert written is not None and 0 < int(written[1]) <= 1 << 20
