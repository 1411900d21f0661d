"""A model is exchanged while the camera runs: tried beside the old one, and no frame is lost or answered twice."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from camera import Camera
from runner_bundles import LABELS, listing, make_files, photo, write_directory
from runner_models import CLASSES

from device_runner.manifest import dump, parse
from device_runner.store.models import Store

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
    assert runner.end()
