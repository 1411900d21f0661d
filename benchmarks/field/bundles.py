"""Mutated bundles: none may be loaded with other content than was signed, none may end the process."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from benchmarks.loop import Measured
from benchmarks.rows import Failure
from device_runner import __version__
from device_runner.bundle import RELEASE_FILES, open_bundle
from device_runner.errors import Problem
from device_runner.release import NAMESPACE, Release, check_release, write_release

MUTANTS = 4000


def truncate(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def flip_bit(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def zero_block(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(0, len(data), 4096)
    return data[:at] + bytes(len(data[at : at + 4096])) + data[at + 4096 :]


def overwrite(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(max(len(data) - 4, 1))
    return data[:at] + rng.randbytes(4) + data[at + 4 :]


def append(data: bytes, rng: random.Random) -> bytes:
    return data + rng.randbytes(rng.randrange(1, 5000))


def change_digit(data: bytes, rng: random.Random) -> bytes:
    """Hits numbers of the manifest: sizes, hashes, means, versions."""
    places = [i for i, byte in enumerate(data) if 48 <= byte <= 57]
    at = rng.choice(places) if places else 0
    return data[:at] + str(rng.randrange(10)).encode() + data[at + 1 :]


MUTATIONS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    truncate,
    flip_bit,
    zero_block,
    overwrite,
    append,
    change_digit,
)


def measure(bundle: Path, scale: float, scratch: Path) -> Measured:
    """Damage one file of a signed bundle at a time; also drop, add, swap and link files."""
    keys = make_keys(scratch)
    good = shutil.copytree(bundle, scratch / "good")
    opened = open_bundle(good)
    write_release(
        opened, good, Release(bundle=opened.sha256, version=1, kinds=(), min_runner=__version__), keys / "key"
    )
    content = {p.name: p.read_bytes() for p in good.iterdir()}
    rng, outcomes, loaded = random.Random(1), Counter[str](), 0
    for _ in range(int(MUTANTS * scale)):
        mutant = scratch / "mutant"
        changed = mutate(content, rng)
        mutant.mkdir()
        for name, data in changed.items():
            (mutant / name).write_bytes(data)
        try:
            found = open_bundle(mutant)
            check_release(found, str(keys / "trusted"), None, 0)
            same = all(found.files.get(n) == content[n] for n in content.keys() - RELEASE_FILES)
            outcomes["unchanged in what counts" if same else "LOADED"] += 1
            loaded += not same
        except Problem as problem:
            outcomes[type(problem).__name__] += 1
        shutil.rmtree(mutant)
    result = {"mutants": sum(outcomes.values()), "loaded": loaded, "outcomes": dict(outcomes)}
    broken = Failure(what=f"{loaded} mutants were loaded", why="they are not what was signed", fix="mend the check")
    return Measured(result, broken if loaded else None, notes=(str(result),))


def mutate(content: dict[str, bytes], rng: random.Random) -> dict[str, bytes]:
    """One change that is really one."""
    while True:
        files, name = dict(content), rng.choice(sorted(content))
        kind = rng.random()
        if kind < 0.9:
            files[name] = rng.choice(MUTATIONS)(files[name], rng)
        elif kind < 0.94:
            del files[name]
        elif kind < 0.97:
            files[rng.choice(("extra.bin", "model2.tflite", "x" * 60))] = rng.randbytes(100)
        else:
            other = rng.choice(sorted(content))
            files[name], files[other] = files[other], files[name]
        if files != content:
            return files


def make_keys(folder: Path) -> Path:
    """A key and the file that trusts it."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / "key")], check=True)
    kind, key = (folder / "key.pub").read_text().split()[:2]
    (folder / "trusted").write_text(f'release namespaces="{NAMESPACE}" {kind} {key}\n')
    return folder
