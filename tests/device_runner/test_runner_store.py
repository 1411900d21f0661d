"""Models in the field: whatever is interrupted or damaged, a whole and verified model is there after."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from runner_bundles import make_files, write_directory, write_zip

from device_runner import __version__, cli
from device_runner.bundle import open_bundle
from device_runner.errors import (
    BundleError,
    Downgrade,
    Mixed,
    Problem,
    Quarantined,
    RunnerTooOld,
    StoreError,
    Unsigned,
    WrongDevice,
    WrongKey,
)
from device_runner.release import NAMESPACE, Release, check_release, write_release
from device_runner.store import state as states
from device_runner.store.disk import Disk, filesystem_problem
from device_runner.store.models import Store
from device_runner.store.shadow import Health, p90
from device_runner.store.state import State


def prove(path: Path, sha256: str) -> None:
    """Stands in for the process that replays the golden images: here only the bundle is verified again."""
    open_bundle(path)


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Four sound bundles that differ by their name."""
    folder = tmp_path_factory.mktemp("bundles")
    return [write_directory(folder / f"b{i}", make_files("tflite-int8", {"name": f"model {i}"})) for i in range(4)]


@pytest.fixture
def store(tmp_path: Path, bundles: list[Path]) -> Store:
    """A store that knows three models: factory, previous, current."""
    store = Store(tmp_path / "store")
    for bundle in bundles[:3]:
        store.install(bundle, prove)
        store.commit()
    return store


def sha(bundle: Path) -> str:
    return open_bundle(bundle).sha256


def test_the_first_bundle_decides_and_later_ones_are_staged(tmp_path: Path, bundles: list[Path]):
    store = Store(tmp_path / "s")
    a, b, c = map(sha, bundles[:3])
    store.install(bundles[0], prove)
    assert store.state == State(current=a, factory=a)
    store.install(bundles[1], prove)
    assert store.state == State(current=a, factory=a, staged=b)
    assert store.start_trial() == b and store.state.trial == b
    assert store.commit() == b == store.commit()  # idempotent
    assert store.state == State(current=b, previous=a, factory=a)
    store.install(bundles[2], prove)
    store.start_trial()
    assert store.rollback() == b and store.state.quarantined == (c,)
    assert not store.path(c).exists()
    with pytest.raises(Quarantined):
        store.install(bundles[2], prove)
    assert store.rollback() == a and store.rollback() == a


def test_what_nothing_refers_to_is_removed_and_the_factory_stays(store: Store, bundles: list[Path]):
    store.install(bundles[3], prove)
    store.commit()
    assert {p.name for p in (store.folder / "models").iterdir()} == {sha(bundles[i]) for i in (0, 2, 3)}


def test_a_damaged_bundle_is_not_installed_and_the_store_stays(store: Store, bundles: list[Path], tmp_path: Path):
    before = store.state
    broken = shutil.copytree(bundles[3], tmp_path / "broken")
    (broken / "model.tflite").write_bytes(b"TFL3")
    with pytest.raises(BundleError):
        store.install(broken, prove)
    assert store.state == before


MOUNTS = """\
overlay / overlay rw 0 0
/dev/sda1 /data ext4 rw 0 0
/dev/sda2 /boot vfat rw 0 0
/dev/sda3 /data/my\\040card exfat rw 0 0
/dev/sda4 /twice vfat rw 0 0
/dev/sda5 /twice ext4 rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/data/store", None),
        ("/boot/store", "vfat"),
        ("/bootleg", None),
        ("/data/my card/store", "exfat"),
        ("/twice/store", None),
    ],
)
def test_a_file_system_that_loses_names_with_the_power_is_known(path: str, kind: str | None, tmp_path: Path):
    table = tmp_path / "mounts"
    table.write_text(MOUNTS)
    assert filesystem_problem(Path(path), table) == kind


def test_no_model_is_stored_there(tmp_path: Path, bundles: list[Path], monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("device_runner.store.models.filesystem_problem", lambda path: "vfat")
    with pytest.raises(StoreError, match="vfat"):
        Store(tmp_path / "store").install(bundles[0], prove)
    assert not list((tmp_path / "store" / "models").iterdir())


def test_a_bundle_that_fails_its_proof_is_not_staged(store: Store, bundles: list[Path]):
    def fails(path: Path, sha256: str) -> None:
        raise StoreError("no", "it fails", "none")

    before = store.state
    with pytest.raises(StoreError):
        store.install(bundles[3], fails)
    assert store.state == before


def change(store: Store, disk: Disk, bundle: Path) -> None:
    """A whole change of model."""
    again = Store(store.folder, disk)
    again.install(bundle, prove)
    again.start_trial()
    again.count_attempt()
    again.commit()
    again.rollback()


def steps_of(store: Store, bundle: Path, folder: Path) -> list[str]:
    """The file operations of a change, by doing it on a copy."""
    steps: list[str] = []
    copy = Store(shutil.copytree(store.folder, folder))
    change(copy, Disk(steps.append), bundle)
    return steps


def killer(at: int) -> Callable[[str], None]:
    """Ends this process right before its operation number `at`."""
    countdown = iter(range(at, -1, -1))

    def before(step: str) -> None:
        if next(countdown) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    return before


@pytest.mark.filterwarnings("ignore:This process .*multi-threaded:DeprecationWarning")  # it forks on purpose
def test_a_kill_at_every_file_operation_leaves_a_whole_model(store: Store, bundles: list[Path], tmp_path: Path):
    """Each in a process that is killed with SIGKILL right before the operation."""
    steps = steps_of(store, bundles[3], tmp_path / "dry")
    assert len(steps) > 50 and {"create", "write", "fsync", "rename", "fsync directory", "mkdir", "remove"} <= {*steps}
    known = {sha(bundle) for bundle in bundles}
    for kill_at in range(len(steps)):
        folder = shutil.copytree(store.folder, tmp_path / f"{kill_at}")
        pid = os.fork()
        if pid == 0:
            try:
                change(Store(folder), Disk(killer(kill_at)), bundles[3])
            except BaseException:
                traceback.print_exc()
            finally:  # whatever happens, this process must not go on with the tests
                os._exit(0)
        assert os.WIFSIGNALED(os.waitpid(pid, 0)[1]), (kill_at, steps[kill_at])
        after = Store(folder)
        told: list[str] = []
        assert after.open_current(told.append).sha256 in known and told == [], (kill_at, steps[kill_at])
        after.install(bundles[3], prove)  # and it can be done again
        after.commit()
        assert after.state.current in known and after.state.staged is None
        shutil.rmtree(folder)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS])
def test_a_disk_that_fails_at_any_operation_is_an_error_and_the_old_model_stays(
    code: int, store: Store, bundles: list[Path], tmp_path: Path
):
    steps = steps_of(store, bundles[3], tmp_path / "dry")
    for fail_at in range(0, len(steps), 5):
        folder = shutil.copytree(store.folder, tmp_path / f"{fail_at}")
        countdown = iter(range(fail_at, -1000, -1))

        def fail(step: str, countdown: object = countdown) -> None:
            if next(countdown) == 0:  # type: ignore[call-overload]
                raise OSError(code, os.strerror(code))

        with pytest.raises(StoreError, match="cannot be changed"):
            change(Store(folder), Disk(fail), bundles[3])
        told: list[str] = []
        Store(folder).open_current(told.append)
        assert told == []
        shutil.rmtree(folder)


def test_every_damaged_block_is_noticed_and_the_bundle_before_it_decides(store: Store, bundles: list[Path]):
    current, previous, factory = (sha(bundles[i]) for i in (2, 1, 0))
    for file in sorted(store.path(current).iterdir()):
        good = file.read_bytes()
        for at in range(0, len(good), 4096):
            block = good[at : at + 4096]
            file.write_bytes(good[:at] + bytes(len(block)) + good[at + 4096 :])
            told: list[str] = []
            damaged = any(block)  # a block of zeros is no damage
            assert store.open_current(told.append).sha256 == (previous if damaged else current)
            assert bool(told) is damaged
        file.write_bytes(good)
    (store.path(current) / "model.tflite").unlink()
    (store.path(previous) / "labels.txt").write_text("no")
    assert store.open_current(lambda text: None).sha256 == factory
    (store.path(factory) / "manifest.json").write_text("{}")
    with pytest.raises(StoreError, match="holds no sound bundle"):
        store.open_current(lambda text: None)


def test_a_bundle_under_anothers_name_does_not_decide(store: Store, bundles: list[Path]):
    shutil.rmtree(store.path(sha(bundles[2])))
    shutil.copytree(bundles[3], store.path(sha(bundles[2])))
    told: list[str] = []
    assert store.open_current(told.append).sha256 == sha(bundles[1]) and "another bundle" in told[0]


def test_a_damaged_state_is_the_one_before_it(store: Store):
    path = store.folder / "state.json"
    good, old = path.read_bytes(), states.read(store.folder)
    for damage in (b"", good[:-1], good[:40], good.replace(b"1", b"2", 1), b"\0" * len(good), good + b"x"):
        path.write_bytes(damage)
        assert store.state.current == old.previous and store.state.staged == old.current  # before the last commit
    (store.folder / "state.json.old").unlink()
    with pytest.raises(StoreError, match="is damaged"):
        _ = store.state


def test_a_trial_that_always_ends_the_device_is_quarantined(store: Store, bundles: list[Path]):
    store.install(bundles[3], prove)
    store.start_trial()
    assert [store.count_attempt().attempts for _ in range(3)] == [1, 2, 3]
    state = store.count_attempt()
    assert state.trial is None and state.quarantined == (sha(bundles[3]),) and state.current == sha(bundles[2])


# --- who may install what


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trusted key, one that is not, and the file of trusted keys."""
    if shutil.which("ssh-keygen") is None:
        pytest.skip("ssh-keygen is not installed: apt install openssh-client")
    folder = tmp_path_factory.mktemp("keys")
    for name in ("good", "bad"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    public = (folder / "good.pub").read_text().split()
    (folder / "trusted").write_text(f'release namespaces="{NAMESPACE}" {public[0]} {public[1]}\n')
    return folder


def release(folder: Path, source: Path, key: Path, **changes: object) -> Path:
    """A copy of the bundle with a release."""
    copy = shutil.copytree(source, folder)
    opened = open_bundle(copy)
    fields = {"bundle": opened.sha256, "version": 3, "kinds": ("door",), "min_runner": __version__, **changes}
    write_release(opened, copy, msgspec.convert(fields, Release), key)
    return copy


@pytest.mark.parametrize(("until", "code"), [("20200101", 11), ("20990101", 0)])
def test_a_key_that_has_expired_signs_nothing(
    until: str, code: int, tmp_path: Path, bundles: list[Path], keys: Path, capsys: pytest.CaptureFixture[str]
):
    """By the device's clock; counters, not dates, keep old releases out."""
    trusted = tmp_path / "trusted"
    trusted.write_text((keys / "trusted").read_text().replace("release ", f'release valid-before="{until}",', 1))
    signed = release(tmp_path / "r", bundles[0], keys / "good")
    words = ["install", str(signed), "--store", str(tmp_path / "store"), "--trusted-keys", str(trusted)]
    assert cli.main(words) == code
    assert ("expired" in capsys.readouterr().err) == (code == 11)


Break = Callable[[Path, Path], None]


def drop_signature(bundle: Path, keys: Path) -> None:
    (bundle / "release.json.sig").unlink()


def edit_release(bundle: Path, keys: Path) -> None:
    path = bundle / "release.json"
    path.write_text(path.read_text().replace('"version": 3', '"version": 9'))


def append_to_release(bundle: Path, keys: Path) -> None:
    with (bundle / "release.json").open("a") as file:
        file.write(" ")


def other_namespace(bundle: Path, keys: Path) -> None:
    (bundle / "release.json.sig").unlink()
    argv = ["ssh-keygen", "-q", "-Y", "sign", "-f", str(keys / "good"), "-n", "file", str(bundle / "release.json")]
    subprocess.run(argv, check=True, capture_output=True)


def nothing(bundle: Path, keys: Path) -> None:
    pass


@pytest.mark.parametrize(
    ("changes", "key", "spoil", "error", "code"),
    [
        ({}, "good", drop_signature, Unsigned, 10),
        ({}, "bad", nothing, WrongKey, 11),
        ({}, "good", edit_release, WrongKey, 11),
        ({}, "good", append_to_release, WrongKey, 11),
        ({}, "good", other_namespace, WrongKey, 11),
        ({"version": 2}, "good", nothing, Downgrade, 12),
        ({"kinds": ("gate",)}, "good", nothing, WrongDevice, 13),
        ({"min_runner": "99.0.0"}, "good", nothing, RunnerTooOld, 14),
        ({"bundle": "0" * 64}, "good", nothing, Mixed, 16),
    ],
)
def test_a_release_is_refused(
    changes: dict[str, object],
    key: str,
    spoil: Break,
    error: type[Problem],
    code: int,
    tmp_path: Path,
    bundles: list[Path],
    keys: Path,
    capsys: pytest.CaptureFixture[str],
):
    store = Store(tmp_path / "store")
    trusted = str(keys / "trusted")
    store.install(release(tmp_path / "first", bundles[0], keys / "good"), prove, keys=trusted, kind="door")
    before = store.state
    assert before.version == 3
    bundle = release(tmp_path / "second", bundles[1], keys / key, **changes)
    spoil(bundle, keys)
    with pytest.raises(error):
        store.install(bundle, prove, keys=trusted, kind="door")
    argv = ["install", bundle, "--store", store.folder, "--trusted-keys", trusted, "--kind", "door"]
    assert cli.main([str(a) for a in argv]) == code
    assert capsys.readouterr().err.count("\n") == 3 and store.state == before


def test_a_signed_release_is_accepted_and_an_unsigned_bundle_where_keys_are_trusted_is_not(
    tmp_path: Path, bundles: list[Path], keys: Path
):
    signed = open_bundle(release(tmp_path / "b", bundles[0], keys / "good"))
    found = check_release(signed, str(keys / "trusted"), "door", 3)
    assert found is not None and found.version == 3
    assert check_release(open_bundle(bundles[0]), None, "door", 3) is None
    with pytest.raises(Unsigned):
        check_release(open_bundle(bundles[0]), str(keys / "trusted"), "door", 0)
    with pytest.raises(Problem, match="cannot be read"):
        check_release(signed, str(tmp_path / "none"), "door", 0)


def test_the_commands_speak_to_an_updater(
    tmp_path: Path, bundles: list[Path], keys: Path, capsys: pytest.CaptureFixture[str]
):
    copy = shutil.copytree(bundles[0], tmp_path / "b")
    store = str(tmp_path / "store")

    def command(*argv: str) -> str:
        assert cli.main([*argv, "--store", store]) == 0
        return capsys.readouterr().out

    assert cli.main(["release", str(copy), "--version", "7", "--kind", "door", "--key", str(keys / "good")]) == 0
    capsys.readouterr()
    name = sha(copy)
    assert (
        command("install", str(copy), "--trusted-keys", str(keys / "trusted"), "--kind", "door")
        == f"installed {name}\n"
    )
    assert json.loads(command("status", "--json"))["version"] == 7
    command("install", str(copy))
    assert command("commit") == f"current {name}\n" and command("rollback") == f"current {name}\n"
    assert name in command("status")
    assert cli.main(["trial", "--store", store]) == 1
    assert "there is nothing to try" in capsys.readouterr().err


DEPLOY = Path(__file__).parents[2] / "device_runner" / "deploy"


@pytest.fixture
def updater(tmp_path: Path, keys: Path) -> dict[str, str]:
    """What an updater's script finds on a device: the runner on its path, a store, trusted keys."""
    program = tmp_path / "bin" / "device_runner"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m device_runner "$@"\n')
    program.chmod(0o755)
    return {
        **os.environ,
        "PATH": f"{program.parent}:{os.environ['PATH']}",
        "DEVICE_RUNNER_STORE": str(tmp_path / "store"),
        "DEVICE_RUNNER_KEYS": str(keys / "trusted"),
        "DEVICE_RUNNER_KIND": "door",
    }


@pytest.fixture
def mender(tmp_path: Path, updater: dict[str, str]) -> Callable[[str], str]:
    """Runs the update module in one state, as Mender does."""

    def run(state: str) -> str:
        argv = [str(DEPLOY / "mender-module"), state, str(tmp_path / "payload")]
        done = subprocess.run(argv, env=updater, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else f"exit {done.returncode}"

    return run


def test_a_rauc_update_may_bring_a_model_which_goes_on_trial(
    updater: dict[str, str], tmp_path: Path, bundles: list[Path], keys: Path
):
    mounted, store = tmp_path / "mounted", Store(tmp_path / "store")
    mounted.mkdir()

    def rauc(**names: str) -> int:
        argv = [str(DEPLOY / "rauc-post-install")]
        return subprocess.run(argv, env={**updater, **names}, capture_output=True, check=False).returncode

    bundle = {"RAUC_BUNDLE_MOUNT_POINT": str(mounted)}
    assert rauc(**bundle) == 0 and not (tmp_path / "store").exists()  # an update without a model
    first, second = (release(tmp_path / f"r{i}", bundles[i], keys / "good") for i in range(2))
    for source, name in ((first, "RAUC_BUNDLE_MOUNT_POINT"), (second, "RAUC_UPDATE_SOURCE")):
        write_zip(mounted / "bundle.zip", {p.name: p.read_bytes() for p in source.iterdir()})
        assert rauc(**{name: str(mounted)}) == 0
    assert (store.state.current, store.state.trial) == (sha(first), sha(second))
    write_zip(mounted / "bundle.zip", {p.name: p.read_bytes() for p in bundles[2].iterdir()})  # unsigned
    assert rauc(**bundle) == 10 and rauc() != 0 and store.state.trial == sha(second)


def test_mender_installs_commits_and_rolls_back(
    mender: Callable[[str], str], tmp_path: Path, bundles: list[Path], keys: Path
):
    files = tmp_path / "payload" / "files"
    files.mkdir(parents=True)
    first, second = (release(tmp_path / f"r{i}", bundles[i], keys / "good") for i in range(2))
    store = Store(tmp_path / "store")
    assert (mender("SupportsRollback"), mender("NeedsArtifactReboot"), mender("Download")) == ("Yes", "No", "")
    for bundle in (first, second):  # the first decides at once
        write_zip(files / "bundle.zip", {p.name: p.read_bytes() for p in bundle.iterdir()})
        assert mender("ArtifactInstall") == ""
    assert (store.state.current, store.state.staged) == (sha(first), sha(second))
    assert mender("ArtifactRollback") == "" == mender("Cleanup")
    assert (store.state.current, store.state.staged) == (sha(first), None)
    mender("ArtifactInstall")
    assert mender("ArtifactCommit") == "" and store.state.current == sha(second)
    write_zip(files / "bundle.zip", {p.name: p.read_bytes() for p in bundles[2].iterdir()})  # unsigned
    assert mender("ArtifactInstall") == "exit 10" and store.state.current == sha(second)


# --- is a model on trial healthy?


def health(**limits: object) -> Health:
    from device_runner.config.parts import Trial

    return Health(msgspec.convert({"frames": 10, **limits}, Trial))


@pytest.mark.parametrize(
    ("new_ms", "label", "limits", "words"),
    [
        (1.0, "a", {}, ""),
        (2.9, "a", {}, ""),
        (3.1, "a", {}, "p90 of the model is 3.1 ms, 3 ms allowed"),
        (2.0, "a", {"max_p90_ms": 1.5}, "1.5 ms allowed"),
        (1.0, "b", {}, "another label in 100% of frames"),
        (1.0, "b", {"max_disagreement": 1.0}, ""),
    ],
)
def test_a_trial_is_judged(new_ms: float, label: str, limits: dict[str, object], words: str):
    judged = health(**limits)
    for _ in range(10):
        assert judged.verdict() is None
        judged.count(("a", 1.0), (label, new_ms))
    verdict = judged.verdict()
    assert verdict is not None and words in verdict and bool(verdict) == bool(words)


def test_p90_is_the_value_that_nine_of_ten_do_not_exceed():
    assert p90([float(i) for i in range(1, 11)]) == 9.0 and p90([5.0]) == 5.0
