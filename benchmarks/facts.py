"""The conditions of a measurement: which code, which machine, which packages, and who else was at work."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import msgspec

from device_runner.probe.facts import facts
from shrink.bench.host import int8_dot_products

ROOT = Path(__file__).resolve().parents[1]
CODE = ("shrink", "device_runner", "recipes")
CODE_SUFFIXES = (".py", ".toml")
PACKAGES = (
    "torch", "torchvision", "timm", "litert-torch", "ai-edge-litert", "ai-edge-quantizer", "onnx", "onnxscript",
    "onnxruntime", "numpy", "pillow",
)  # fmt: skip
BUSY = 0.1  # cores' worth of other work above which a time is not to be trusted


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """What the numbers were measured on."""

    cpu: str
    int8: str = ""  # what int8 gains from, of `shrink.bench.host`; "" in rows from before it was noted
    cores: int
    memory_gib: float
    system: str


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """What a row was measured with and on."""

    commit: str  # of the repository, "" outside git
    dirty: bool  # files differ from that commit
    code: str  # hash of the sources of shrink, device_runner and recipes
    machine: Machine
    versions: dict[str, str]


def words(machine: Machine) -> str:
    """As `shrink.bench.host` says it."""
    return ", ".join(filter(None, (machine.cpu, f"{machine.cores} cores", machine.int8)))


def conditions() -> Conditions:
    """The conditions now."""
    return Conditions(
        commit=_git("rev-parse", "HEAD"),
        dirty=bool(_git("status", "--porcelain", "--", *CODE)),
        code=code_hash(ROOT),
        machine=Machine(
            cpu=facts().cpu or "unknown processor",
            int8=int8_dot_products(),
            cores=os.cpu_count() or 1,
            memory_gib=round(_memory_gib(), 1),
            system=f"{platform.system()} {platform.machine()}",
        ),
        versions={"python": platform.python_version()}
        | {name: found for name in PACKAGES if (found := _version(name))},
    )


def code_hash(root: Path) -> str:
    """Changes exactly when a source file of the product does; committing results or documents leaves it."""
    digest = hashlib.sha256()
    for path in sorted(p for part in CODE for p in (root / part).rglob("*") if p.suffix in CODE_SUFFIXES):
        digest.update(f"{path.relative_to(root)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


@dataclass(slots=True)
class Others:
    """Filled in when the block of `watch_others` ends."""

    busy: float = 0.0  # cores' worth, on average


@contextmanager
def watch_others() -> Iterator[Others]:
    """Measure how busy other processes kept the machine; children count as ours once they have ended."""
    found = Others()
    start, all_before, own_before = time.monotonic(), _all_cpu_seconds(), _own_cpu_seconds()
    try:
        yield found
    finally:
        elapsed = max(time.monotonic() - start, 1e-3)
        spent = (_all_cpu_seconds() - all_before) - (_own_cpu_seconds() - own_before)
        found.busy = round(max(spent, 0.0) / elapsed, 3)


def _own_cpu_seconds() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _all_cpu_seconds(stat: Path = Path("/proc/stat")) -> float:
    """Seconds all cores have worked since boot, time stolen by the hypervisor included; 0.0 where nothing tells."""
    try:
        fields = [int(text) for text in stat.read_text().splitlines()[0].split()[1:9]]
    except (OSError, ValueError, IndexError):
        return 0.0
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return done.stdout.strip()
