"""A model is exchanged while the camera runs: tried beside the old one, and no frame is lost or answered twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest
from broker import wait_until
from camera import Camera
from runner_bundles import LABELS, listing, make_files, photo, write_directory
from runner_models import CLASSES

from device_runner.bundle import open_bundle
from device_runner.config.parts import Trial
from device_runner.frames import Frame
from device_runner.manifest import dump, parse
from device_runner.store.models import Store
from device_runner.store.shadow import Shadow
from device_runner.worker.messages import Seen
from device_runner.worker.model import look_at
from device_runner.worker.process import ProcessWorker

CONFIG = """
store = "{store}"
isolation = "process"
[source]
url = "{url}"
[trial]
frames = 30
max_p90_ms = 1000
[[rule]]
name = "any"
label = "{label}"
min_confidence = 0.5
"""


def relabelled(files: dict[str, bytes], labels: tuple[str, ...]) -> dict[str, bytes]:
    """The same model that calls its classes otherwise."""
    content = {**files, "labels.txt": "".join(f"{x}\n" for x in labels).encode()}
    manifest = parse(content.pop("manifest.json"))
    return {**content, "manifest.json": dump(msgspec.structs.replace(manifest, labels=labels, files=listing(content)))}


class Runner:
    """`device_runner run` on a store, watched line by line."""

    def __init__(self, folder: Path, camera: Camera) -> None:
        config = folder / "c.toml"
        config.write_text(CONFIG.format(store=folder / "store", url=camera.url, label=LABELS[0]))
        argv = [sys.executable, "-m", "device_runner", "run", str(config)]
        self.lines = (folder / "lines").open("wb")
        self.child = subprocess.Popen(argv, stdout=self.lines, stderr=subprocess.PIPE)
        self.said: list[str] = []

    def wait_for(self, *words: str) -> str:
        assert self.child.stderr is not None
        for raw in self.child.stderr:
            self.said.append(raw.decode())
            if any(word in self.said[-1] for word in words):
                return self.said[-1]
        raise AssertionError("".join(self.said))

    def end(self) -> list[dict[str, object]]:
        self.child.send_signal(signal.SIGTERM)
        self.child.communicate(timeout=10)
        self.lines.close()
        assert self.child.returncode == 0
        return [json.loads(line) for line in Path(self.lines.name).read_bytes().splitlines()]


@pytest.fixture
def camera() -> Iterator[Camera]:
    camera = Camera([photo(i) for i in range(4)])
    yield camera
    camera.close()


@pytest.fixture
def store(tmp_path: Path, files: dict[str, bytes]) -> Store:
    store = Store(tmp_path / "store")
    store.install(write_directory(tmp_path / "first", files), lambda *_: None)
    return store


def test_a_healthy_model_takes_over_and_every_frame_is_answered_once(tmp_path: Path, store: Store, camera: Camera):
    first, runner = store.state.current, Runner(tmp_path, camera)
    runner.wait_for("selftest ok")
    second = store.install(write_directory(tmp_path / "b", make_files("tflite-int8", {"name": "b"})), lambda *_: None)
    store.start_trial()
    assert "agreed in 100.0%" in runner.wait_for("the trial passed", "the trial failed")
    assert (store.state.current, store.state.previous, store.state.trial) == (second, first, None)
    store.rollback()  # by hand: the running runner follows
    runner.wait_for(f"{first} decides")
    records = runner.end()
    assert [r["seq"] for r in records] == list(range(1, len(records) + 1))
    assert all("error" not in r and r["label"] in LABELS for r in records)
    assert len({r["captured_ns"] for r in records}) == len(records) > 30


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (LABELS[1:] + LABELS[:1], "another label in 100%"),
        (("dog", *(f"x{i}" for i in range(CLASSES - 1))), "no label is 'cat'"),
    ],
)
def test_a_model_that_answers_otherwise_is_quarantined(
    labels: tuple[str, ...], words: str, tmp_path: Path, store: Store, camera: Camera, files: dict[str, bytes]
):
    first, runner = store.state.current, Runner(tmp_path, camera)
    runner.wait_for("selftest ok")
    wrong = store.install(write_directory(tmp_path / "b", relabelled(files, labels)), lambda *_: None)
    store.start_trial()
    assert words in runner.wait_for("the trial passed", "the trial failed")
    runner.end()
    assert (store.state.current, store.state.quarantined) == (first, (wrong,))


def test_a_damaged_current_model_is_replaced_by_the_one_before_it_at_the_start(
    tmp_path: Path, store: Store, camera: Camera
):
    store.install(write_directory(tmp_path / "b", make_files("tflite-int8", {"name": "b"})), lambda *_: None)
    (store.path(store.commit()) / "model.tflite").write_bytes(b"TFL3")
    runner = Runner(tmp_path, camera)
    runner.wait_for("trying the bundle before it")
    runner.wait_for("selftest ok")
    runner.wait_for("store: model.tflite has 4 bytes")  # it follows the state no further, and goes on
    wait_until(lambda: Path(runner.lines.name).stat().st_size > 0, 30)  # its camera may take longer than that
    assert runner.end()


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("exit at load", "it ended with 3"),
        ("exit", "it ended with 4"),
        ("segfault", "it ended with -11"),
        ("hang", "it did not answer within 0.5 s"),
        ("garbage", "makes no sense"),
        ("image", "it refuses a frame that the current model took"),
    ],
)
def test_a_model_on_trial_that_misbehaves_ends_its_trial_only(mode: str, words: str, bundle_path: Path):
    program = (sys.executable, str(Path(__file__).with_name("stub_worker.py")), mode)
    worker = ProcessWorker("b", "s", program=program, deadline_s=0.5)
    shadow = Shadow(open_bundle(bundle_path), Trial(frames=5), worker)
    frame = Frame(captured_ns=0, name="", kind="file", size=(0, 0), data=b"x")
    seen = Seen(confidences=(1.0,), look=look_at(np.zeros((9, 9, 3), np.uint8)), prepare_ms=0.0, model_ms=1.0)
    deadline = time.monotonic() + 5
    while shadow.outcome is None and time.monotonic() < deadline:
        shadow.offer(frame, seen, "cat")
        time.sleep(0.01)
    shadow.close()
    assert words in str(shadow.outcome)


def test_a_trial_that_is_ended_while_it_loads_ends_at_once(bundle_path: Path):
    program = (sys.executable, str(Path(__file__).with_name("stub_worker.py")), "hang at load")
    shadow = Shadow(open_bundle(bundle_path), Trial(), ProcessWorker("b", "s", program=program))
    start = time.monotonic()
    shadow.close()
    assert time.monotonic() - start < 3 and shadow.outcome == "it was ended"


HOLES = """
from pathlib import Path
from device_runner.heap import give_back

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

bytes(8_000_000)  # from here on, blocks of up to this size are taken from the heap
models, pins = [], []
for _ in range(100):
    models.append(bytearray(400_000))
    pins.append(bytearray(2_000))
full = resident()
models.clear()
freed = resident()
give_back()
print(full - freed, freed - resident())
"""


def test_memory_between_what_is_still_held_goes_back_to_the_system():
    ended = subprocess.run([sys.executable, "-c", HOLES], capture_output=True, text=True, check=True)
    without, more = map(int, ended.stdout.split())
    assert without < 4_000_000 < 36_000_000 < more
