"""kill -9 at every system call that changes a file, during each command of the store, and at random moments."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import msgspec

from benchmarks.loop import Measured
from benchmarks.rows import Failure
from device_runner.bundle import open_bundle
from device_runner.errors import Problem
from device_runner.manifest import dump, parse
from device_runner.store.models import Store

CALLS = "mkdir,write,fsync,rename,unlink,rmdir,unlinkat,link,flock"
RANDOM_KILLS = 1000


def measure(bundle: Path, scale: float, scratch: Path) -> Measured:
    """After every kill the store must hold a whole model, say so without complaint, and take the next change."""
    bundles = [variant(bundle, scratch / f"b{i}", f"model {i}") for i in range(3)]
    base = Store(scratch / "base")
    for source in bundles[:2]:
        base.install(source, lambda *_: None)
        base.commit()
    step = max(round(1 / scale), 1) if scale > 0 else 1
    killed, broken = Counter[str](), []
    for name, argv, prepared in commands(base, bundles[2], scratch):
        for at in range(1, count_calls(argv, prepared, scratch) + 1, step):
            folder = shutil.copytree(prepared, scratch / "victim")
            inject = ["-e", f"inject={CALLS}:signal=SIGKILL:when={at}"]
            run(["strace", "-o", "/dev/null", "-e", f"trace={CALLS}", *inject, *argv, "--store", str(folder)])
            killed[name] += 1
            if problem := damage(folder, bundles):
                broken.append(f"{name}, call {at}: {problem}")
            shutil.rmtree(folder)
    at_random = random_kills(base, bundles, scratch, int(RANDOM_KILLS * scale))
    broken += at_random
    result = {"at_calls": dict(killed), "at_random": int(RANDOM_KILLS * scale), "broken": broken}
    why = "; ".join(broken[:3])
    failure = Failure(what=f"{len(broken)} kills left a broken store", why=why, fix="mend the store")
    return Measured(result, failure if broken else None, notes=(str(result)[:400],))


def variant(bundle: Path, folder: Path, name: str) -> Path:
    """The same model under another name, hence another bundle."""
    shutil.copytree(bundle, folder)
    manifest = parse((folder / "manifest.json").read_bytes())
    (folder / "manifest.json").write_bytes(dump(msgspec.structs.replace(manifest, name=name)))
    return folder


def commands(base: Store, new: Path, scratch: Path) -> list[tuple[str, list[str], Path]]:
    """(name, program, the store it starts from)."""
    staged, tried = scratch / "staged", scratch / "tried"
    shutil.copytree(base.folder, staged)
    Store(staged).install(new, lambda *_: None)
    shutil.copytree(staged, tried)
    Store(tried).start_trial()
    program = [sys.executable, "-m", "device_runner"]
    return [
        ("install", [*program, "install", str(new)], base.folder),
        ("trial", [*program, "trial"], staged),
        ("commit", [*program, "commit"], tried),
        ("rollback", [*program, "rollback"], tried),
    ]


def count_calls(argv: list[str], prepared: Path, scratch: Path) -> int:
    """How many such system calls the command makes, by letting it finish on a copy."""
    folder, log = shutil.copytree(prepared, scratch / "dry"), scratch / "strace.txt"
    run(["strace", "-o", str(log), "-e", f"trace={CALLS}", *argv, "--store", str(folder)])
    shutil.rmtree(folder)
    return len(re.findall(r"^\w+\(", log.read_text(), re.MULTILINE))


def run(argv: list[str]) -> None:
    subprocess.run(argv, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL, check=False)


def damage(folder: Path, bundles: list[Path]) -> str | None:
    """What is wrong with a store, if anything."""
    said: list[str] = []
    known = {open_bundle(bundle).sha256 for bundle in bundles}
    try:
        store = Store(folder)
        if store.open_current(said.append).sha256 not in known or said:
            return f"another model decides: {said}"
        store.rollback()
        state = store.state
        if open_bundle(bundles[2]).sha256 not in state.quarantined:
            store.install(bundles[2], lambda *_: None)
            store.commit()
        store.open_current(said.append)
    except Problem as problem:
        return str(problem)
    return None if not said else said[0]


def random_kills(base: Store, bundles: list[Path], scratch: Path, n: int) -> list[str]:
    """A process that changes models without pause, killed at a random moment."""
    rng, broken = random.Random(1), []
    folder = shutil.copytree(base.folder, scratch / "random")
    for i in range(n):
        pid = os.fork()
        if pid == 0:
            while True:
                for bundle in bundles:
                    store = Store(folder)
                    store.install(bundle, lambda *_: None)
                    store.commit()
        time.sleep(rng.uniform(0.001, 0.05))
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        said: list[str] = []
        try:
            Store(folder).open_current(said.append)
        except Problem as problem:
            said.append(str(problem))
        broken += [f"random kill {i}: {text}" for text in said]
    return broken
