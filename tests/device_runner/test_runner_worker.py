"""A model in a process of its own: what it answers, and what happens when it does not."""

from __future__ import annotations

import os
import signal
import sys
from io import BytesIO
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image
from runner_bundles import LABELS, photo

from device_runner.audit import Audit
from device_runner.bundle import open_bundle
from device_runner.classify import Classifier
from device_runner.config.parts import Config, Rule, Source
from device_runner.errors import BundleError, EngineError, GaveUp, ImageError
from device_runner.frames import Frame
from device_runner.loop import Loop
from device_runner.manifest import dump, parse
from device_runner.worker.model import Model
from device_runner.worker.process import Breaker, ProcessWorker
from device_runner.worker.slot import Slot, SlotView

STUB = str(Path(__file__).with_name("stub_worker.py"))


def frame(data: bytes, kind: str = "file", size: tuple[int, int] = (0, 0)) -> Frame:
    return Frame(captured_ns=0, name="", kind=kind, size=size, data=data)  # type: ignore[arg-type]


def stub(mode: str, **options: object) -> ProcessWorker:
    return ProcessWorker("b", "s", program=(sys.executable, STUB, mode), deadline_s=0.7, **options).wait()  # type: ignore[arg-type]


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_a_process_answers_as_the_classifier_does(bundle_path: Path):
    classifier = Classifier.open(bundle_path)
    worker = ProcessWorker(str(bundle_path), open_bundle(bundle_path).sha256).wait()
    try:
        assert worker.ready.sha256 == classifier.bundle.sha256 and worker.ready.golden == 4
        for i in range(3):
            best = classifier.classify(photo(i), 1)[0]
            seen = worker.see(frame(photo(i)))
            assert int(np.argmax(seen.confidences)) == best.index
            assert max(seen.confidences) == pytest.approx(best.confidence, abs=1e-7)
            assert seen.model_ms > 0 and seen.prepare_ms > 0
        with pytest.raises(ImageError):
            worker.see(frame(photo(0)[:-300]))
        assert worker.restarts == 0
    finally:
        worker.close()


def test_raw_pixels_and_the_same_pixels_in_a_file_are_answered_alike(bundle_path: Path):
    model = Model.load(open_bundle(bundle_path))
    pixels = np.random.default_rng(1).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    file = BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    raw = model.see(frame(pixels.tobytes(), "rgb", (40, 30)))
    assert raw.confidences == model.see(frame(file.getvalue())).confidences
    for data, size in ((pixels.tobytes()[:-1], (40, 30)), (b"", (0, 30)), (b"", (-1, -1)), (b"x", (99999, 99999))):
        with pytest.raises(ImageError, match="raw frame is refused"):
            model.see(frame(data, "rgb", size))


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("exit", "it ended with 4"),
        ("segfault", "it ended with -11"),
        ("hang", "it did not answer within 0.7 s"),
        ("deaf", "it did not answer within 0.7 s"),
        ("half", "it ended with"),
    ],
)
def test_a_process_that_dies_or_hangs_is_noticed_and_started_anew(mode: str, words: str):
    before = descriptors()
    worker = stub(mode)
    pids = set()
    try:
        for _ in range(2):
            with pytest.raises(EngineError, match=words):
                worker.see(frame(b"x"))
            pids.add(worker._child.pid)
    finally:
        worker.close()
    assert worker.restarts == 1 and len(pids) == 2
    assert descriptors() == before and all(not Path(f"/proc/{pid}").exists() for pid in pids)


def test_an_answer_without_sense_is_noticed():
    worker = stub("garbage")
    with pytest.raises(EngineError, match="makes no sense"):
        worker.see(frame(b"x"))
    worker.close()


def test_frames_of_any_size_lie_in_the_slot_and_a_large_one_gives_its_memory_back():
    slot = Slot()
    view = SlotView(slot.fd)
    sizes = []
    for length in (0, 1, 12_000, 1 << 20, 40 << 20, 30 << 20, 5_000, 1 << 20):
        data = os.urandom(1 << 10) * (length >> 10) + b"x" * (length & 1023)
        sizes.append(slot.put(data))
        assert view.get(length, sizes[-1]) == data
    assert sizes == [1 << 20] * 4 + [80 << 20] * 2 + [1 << 20] * 2
    with pytest.raises(TypeError, match="read-only"):
        view.get(1, sizes[-1])[0] = 0
    slot.close()


def test_the_breaker_opens_at_the_fifth_restart_in_a_minute():
    worker = stub("exit", max_restarts=5)
    try:
        for _ in range(5):
            with pytest.raises(EngineError):
                worker.see(frame(b"x"))
        with pytest.raises(GaveUp, match="again and again"):
            worker.see(frame(b"x"))
    finally:
        worker.close()


def test_restarts_that_lie_apart_open_no_breaker():
    times = iter([0, 31, 62, 93, 124, 125])
    breaker = Breaker(3, now_ns=lambda: next(times) * 1_000_000_000)
    for _ in range(5):
        breaker.count()
    with pytest.raises(GaveUp):
        breaker.count()


def test_a_process_that_dies_while_loading_is_an_error_at_once():
    before = descriptors()
    with pytest.raises(EngineError, match="it ended with 3"):
        stub("exit at load")
    assert descriptors() == before


def test_a_damaged_bundle_is_refused_by_the_process_that_would_load_it(bundle_path: Path):
    sha256 = open_bundle(bundle_path).sha256
    (bundle_path / "model.tflite").write_bytes(b"TFL3" * 100)
    with pytest.raises(BundleError, match=r"model\.tflite has 400 bytes"):
        ProcessWorker(str(bundle_path), sha256).wait()


def test_a_bundle_that_is_exchanged_after_it_was_verified_is_not_loaded(bundle_path: Path, files: dict[str, bytes]):
    """Sound, but not the one whose signature was checked."""
    sha256 = open_bundle(bundle_path).sha256
    manifest = parse(files["manifest.json"])
    (bundle_path / "manifest.json").write_bytes(dump(msgspec.structs.replace(manifest, name="other")))
    with pytest.raises(BundleError, match="was exchanged"):
        ProcessWorker(str(bundle_path), sha256).wait()


def test_a_killed_process_costs_one_frame(bundle_path: Path):
    worker = ProcessWorker(str(bundle_path), open_bundle(bundle_path).sha256).wait()
    try:
        os.kill(worker._child.pid, signal.SIGKILL)
        with pytest.raises(EngineError):
            worker.see(frame(photo(0)))
        assert worker.see(frame(photo(0))).confidences
        assert worker.restarts == 1
    finally:
        worker.close()


def test_nothing_moved_nothing_asked(bundle_path: Path):
    model = Model.load(open_bundle(bundle_path), motion=8)
    assert model.see(frame(photo(0))).confidences
    assert model.see(frame(photo(0))).confidences == ()
    assert model.see(frame(photo(1))).confidences


def test_a_bundle_that_rots_while_it_serves_ends_in_giving_up_and_not_in_another_answer(bundle_path: Path):
    """The process dies, and the card no longer holds what was verified."""
    config = Config(source=Source(url="x"), bundle="b", rule=(Rule(name="r", label="cat", min_confidence=0.01),))
    worker = ProcessWorker(str(bundle_path), open_bundle(bundle_path).sha256, max_restarts=3).wait()
    loop = Loop(config, LABELS, worker, live=False, log=Audit(None, 4096), act=lambda record: None)
    assert loop.frame(frame(photo(0))).inert is None
    (bundle_path / "model.tflite").write_bytes(b"TFL3" * 100)
    worker._child.kill()
    decisions = [loop.frame(frame(photo(0))) for _ in range(3)]
    assert {d.inert for d in decisions} == {"failed"} and {d.verdicts["r"] for d in decisions} == {"failed"}
    with pytest.raises(GaveUp):
        loop.frame(frame(photo(0)))
    worker.close()
