"""Boards over adb: Debian's real client, against a daemon of our own on the loopback. No Android is in this."""

from __future__ import annotations

import io
import os
import shutil
import sys
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest
from adb_board import LOG, AdbBoard, adb_server, connected, make_arm
from needed import PREPARED, needs
from run_cli import Ran, run_cli

from shrink.bench import result
from shrink.boards import phone
from shrink.boards.emulator import cpuinfo, read_manifest
from shrink.boards.places import Places

CPU = "cortex-a76"
HOST_FIELDS = ("place", "command", "moments", "candidate.memory_mb", "candidate.peak_mb", "candidate.load_ms",
               "candidate.first_ms")  # fmt: skip
ARM_FIELDS = (*HOST_FIELDS, "facts", "reasons", "candidate.engine_version", "candidate.delegate")


@pytest.fixture
def adb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """An adb server of our own, for this process and those it starts."""
    needs("adb")
    with adb_server(tmp_path / "adb") as variables:
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        yield variables


@pytest.fixture
def device(adb: dict[str, str], tmp_path: Path) -> Iterator[AdbBoard]:
    with connected(tmp_path / "device", adb) as board:
        yield board


@pytest.fixture
def shrink(capfd: pytest.CaptureFixture[str], places: Places) -> Callable[..., Ran]:
    """`shrink WORDS`."""
    return lambda *words: run_cli(capfd, *words)


def url(device: AdbBoard) -> str:
    """With the Python of the tests, which has all that is needed."""
    return f"{device.url}&python={sys.executable}"


def no_runs(device: AdbBoard) -> bool:
    """Whether nothing is left, once the device has had a moment to notice."""
    end = time.monotonic() + 25
    while device.runs and time.monotonic() < end:
        time.sleep(0.1)
    return device.runs == []


def measured(shrink: Callable[..., Ran], bundle: Path, photos: Path, on: str, out: Path) -> dict[str, object]:
    ran = shrink("bench", bundle, "--data", photos, "--repeats", 0, "--on", on, "--json", out)
    assert ran.code == 0, ran.err
    found: dict[str, object] = msgspec.to_builtins(result.parse(out.read_bytes()))
    return found


def without(found: dict[str, object], names: tuple[str, ...]) -> dict[str, object]:
    kept = dict(found)
    for name in names:
        part, _, inner = name.partition(".")
        if inner:
            kept[part] = {key: value for key, value in kept[part].items() if key != inner}  # type: ignore[attr-defined]
        else:
            del kept[part]
    return kept


def test_over_adb_the_result_is_the_local_one_but_for_the_host(
    shrink: Callable[..., Ran], device: AdbBoard, bundles: dict[str, Path], photos: Path, tmp_path: Path
) -> None:
    here = measured(shrink, bundles["tflite-int8"], photos, "local", tmp_path / "here.json")
    there = measured(shrink, bundles["tflite-int8"], photos, url(device), tmp_path / "there.json")
    assert without(here, HOST_FIELDS) == without(there, HOST_FIELDS)
    assert there["place"]["kind"] == "adb"  # type: ignore[index]
    assert no_runs(device)
    (device.folder / LOG).unlink()
    measured(shrink, bundles["tflite-int8"], photos, url(device), tmp_path / "again.json")
    assert len(device.services) == 1 and "contact" in device.services[0]  # nothing is sent again


def test_a_device_without_python_gets_one_and_gives_the_answers_of_this_machine(
    shrink: Callable[..., Ran],
    device: AdbBoard,
    bundles: dict[str, Path],
    photos: Path,
    places: Places,
    tmp_path: Path,
) -> None:
    """Its kernel runs arm64 programs and it has no file of Linux: only the loader that is sent makes them start."""
    needs("emulator")
    prepared = read_manifest(PREPARED)
    assert prepared
    make_arm(device.folder, [prepared["qemu"], "-cpu", CPU], cpuinfo(CPU))
    places.cache.mkdir(parents=True)
    places.emulator.symlink_to(PREPARED)
    ran = shrink("bench", bundles["tflite-int8"], "--data", photos, "--on", device.url)
    assert ran.code == 2 and ran.problem[1] == "no Python has been sent there yet"
    assert ran.problem[2].startswith(f"shrink board setup {device.url}, or ")

    first, second = shrink("board", "setup", device.url), shrink("board", "setup", device.url)
    assert first.code == 0 and f"MB were sent to {device.folder}/board" in first.out, first.err
    assert second.code == 0 and "Python is there already" in second.out
    here = measured(shrink, bundles["tflite-int8"], photos, "local", tmp_path / "here.json")
    there = measured(shrink, bundles["tflite-int8"], photos, device.url, tmp_path / "there.json")
    assert without(here, ARM_FIELDS) == without(there, ARM_FIELDS)
    facts = there["facts"]
    assert facts["machine"] == "aarch64" and facts["cpu_parts"] == ("0xd0b",)  # type: ignore[index]
    assert there["place"]["emulated"].startswith("the process is qemu")  # type: ignore[index]
    assert no_runs(device)


def test_a_device_of_another_machine_is_sent_nothing(
    shrink: Callable[..., Ran], device: AdbBoard, places: Places
) -> None:
    ran = shrink("board", "setup", device.url)
    assert (
        ran.code == 2 and ran.problem[0] == "there is no Python to send" and ran.problem[2] == "shrink board setup qemu"
    )
    places.emulator.mkdir(parents=True)
    (places.emulator / "manifest.json").write_text(f'{{"qemu": "{sys.executable}"}}')
    ran = shrink("board", "setup", device.url)
    machine = os.uname().machine
    assert ran.code == 2 and f"it is '{machine}', and the Python that is sent is for aarch64" == ran.problem[1]
    assert [service.split("raw:")[1] for service in device.services] == ["uname -m"]


def prepare(folder: Path) -> None:
    """What a preparation looks like, with text for programs."""
    for name in ("root/usr/bin/python3.11", "root/lib/aarch64-linux-gnu/ld-linux-aarch64.so.1", "site/numpy/a.py"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    (folder / "root/lib/ld-linux-aarch64.so.1").symlink_to("aarch64-linux-gnu/ld-linux-aarch64.so.1")
    (folder / "root/lib/aarch64-linux-gnu/gone.so").symlink_to("nowhere")


def test_what_is_sent_starts_with_its_own_loader_and_needs_no_links(tmp_path: Path) -> None:
    prepare(tmp_path)
    packed = io.BytesIO()
    phone.pack(dict(phone.files_of(tmp_path)), packed)
    packed.seek(0)
    with tarfile.open(fileobj=packed) as tar:
        names = tar.getnames()
        assert all(member.isfile() for member in tar)
    loader, *_, python, _, _ = phone.python_words("/x")
    assert {loader, python} < {f"/x/python/{name}" for name in names}
    assert f"{phone.PACKAGES}/numpy/a.py" in names and not any("gone" in name for name in names)


def test_a_python_that_was_prepared_anew_is_told_from_the_one_before(tmp_path: Path) -> None:
    prepare(tmp_path)
    before = phone.fingerprint(dict(phone.files_of(tmp_path)))
    assert phone.fingerprint(dict(phone.files_of(tmp_path))) == before
    (tmp_path / "site/numpy/a.py").write_text("another")
    assert phone.fingerprint(dict(phone.files_of(tmp_path))) != before


@pytest.mark.parametrize(
    ("serial", "why", "fix"),
    [
        ("0123NONE", "adb knows no device of that serial", "connect it"),
        ("unauthorized", "has not allowed", "USB debugging"),
    ],
)
def test_a_device_that_is_not_there_or_not_allowed_says_so(
    shrink: Callable[..., Ran], adb: dict[str, str], bundles: dict[str, Path], photos: Path, tmp_path: Path,
    serial: str, why: str, fix: str,
) -> None:  # fmt: skip
    with connected(tmp_path / "device", adb, "--unauthorized") as device:
        name = device.serial if serial == "unauthorized" else serial
        ran = shrink("bench", bundles["tflite-int8"], "--data", photos, "--on", f"adb:{name}")
    assert ran.code == 2 and why in ran.problem[1] and fix in ran.problem[2]


def test_without_adb_its_package_is_named(
    shrink: Callable[..., Ran], bundles: dict[str, Path], photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert shutil.which("adb") is None
    ran = shrink("bench", bundles["tflite-int8"], "--data", photos, "--on", "adb:0123")
    assert ran.code == 2 and ran.problem[0] == "adb cannot be started"
    assert ran.problem[2] == "install it: sudo apt install adb"


def test_a_cable_pulled_in_the_middle_leaves_an_invalid_result_and_nothing_there(
    shrink: Callable[..., Ran], device: AdbBoard, bundles: dict[str, Path], photos: Path, tmp_path: Path
) -> None:
    out = tmp_path / "cut.json"

    def pull_when_it_works() -> None:
        end = time.monotonic() + 60
        while not device.runs and time.monotonic() < end:
            time.sleep(0.05)
        time.sleep(1.0)
        device.cut()

    puller = threading.Thread(target=pull_when_it_works)
    puller.start()
    words = ("--data", photos, "--on", url(device), "--seconds", 60, "--json", out)
    ran = shrink("bench", bundles["tflite-int8"], *words)
    puller.join()
    assert ran.code == 1, ran.err
    broken = result.parse(out.read_bytes())
    assert not broken.complete and broken.candidate is None and "was lost" in (broken.problem or "")
    assert no_runs(device)
