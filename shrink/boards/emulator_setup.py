"""Prepares emulated boards once, as an ordinary user: arm64 Python from Debian, wheels for it from PyPI, QEMU.

Nothing is installed on this system: packages are downloaded with a package state of their own and unpacked. What is
done is noted step by step, so that a setup that broke off goes on where it was.
"""

from __future__ import annotations

import compileall
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from shrink.boards.emulator import CPUS, MANIFEST, SETUP, cpuinfo
from shrink.errors import BoardError
from shrink.progress import Progress

RELEASE, PYTHON = "bookworm", "3.11"  # the Debian whose packages are used, and its Python
DEBIAN = (f"python{PYTHON}-minimal", f"libpython{PYTHON}-stdlib", "libstdc++6")
EMULATOR = ("qemu-user", "libcapstone4", "liburing2")
WHEELS = ("numpy", "pillow", "msgspec", "ai-edge-litert", "onnxruntime")
PLATFORMS = ("manylinux_2_34", "manylinux_2_28", "manylinux_2_27", "manylinux2014", "manylinux_2_17")
UNNEEDED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/lib/aarch64-linux-gnu/gconv",
    "usr/share/lintian",
)
UNNEEDED_WHEELS = (
    "onnxruntime/transformers", "onnxruntime/tools", "onnxruntime/quantization", "numpy/f2py", "numpy/distutils",
    "*/tests", "numpy/*/tests", "bin", "ai_edge_litert/libLiteRtWebGpuAccelerator.so",
)  # fmt: skip
SOURCES = (Path("/etc/apt/sources.list.d/debian.sources"), Path("/etc/apt/sources.list"))
STAMP = "done"
NO_COMPILER = "there is no C compiler here for the plugin that counts: sudo apt install gcc, then set up again"


@dataclass(frozen=True, slots=True)
class Setup:
    """One preparation, in a directory that takes its final name when all is done."""

    work: Path

    @property
    def root(self) -> Path:
        return self.work / "root"

    @property
    def site(self) -> Path:
        return self.work / "site"


Step = Callable[[Setup], None]


def set_up(folder: Path, progress: Progress, *, again: bool = False) -> dict[str, str]:
    """Prepare, and give the manifest.

    Args:
        folder: where; a preparation that is there already is kept unless `again`.

    Raises:
        BoardError: this system is not one that can, or a download failed.
    """
    _check_system()
    work = folder.with_name(folder.name + ".partial")
    if again:
        shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True, exist_ok=True)
    setup = Setup(work)
    for name, step in STEPS.items():
        with progress.stage(name):
            _once(setup, name, step)
    manifest = _manifest(setup, folder)
    (work / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    work.rename(folder)
    return manifest


def _once(setup: Setup, name: str, step: Step) -> None:
    stamp = setup.work / STAMP / hashlib.sha256(name.encode()).hexdigest()[:12]
    if not stamp.exists():
        step(setup)
        stamp.parent.mkdir(exist_ok=True)
        stamp.touch()


def _check_system() -> None:
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise BoardError("qemu cannot be set up here", f"there is no {tool}", f"use Debian 12 ({RELEASE})")
    if not any(path.is_file() and RELEASE in path.read_text(errors="replace") for path in SOURCES):
        why = f"the package sources of this system name no {RELEASE}, whose Python is used"
        raise BoardError("qemu cannot be set up here", why, f"use Debian 12 ({RELEASE})")


def run(command: Sequence[str], what: str, folder: Path, environment: Mapping[str, str] | None = None) -> str:
    """What a command prints.

    Args:
        what: is done, for the error.

    Raises:
        BoardError: it failed.
    """
    ran = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, errors="replace", check=False
    )
    if ran.returncode:
        lines = [line for line in (ran.stderr or ran.stdout).splitlines() if line.strip()]
        why = " ".join(lines[-1].split())[:300] if lines else f"{command[0]} ended with {ran.returncode}"
        raise BoardError(f"{what} failed", why, f"{SETUP}, which goes on from there")
    return ran.stdout


def apt(setup: Setup, architecture: str) -> list[str]:
    """apt-get with a state of its own, on this system's Debian sources."""
    state = setup.work / f"apt-{architecture}"
    for folder in ("state/lists/partial", "cache/archives/partial"):
        (state / folder).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    source = next(path for path in SOURCES if path.is_file() and RELEASE in path.read_text(errors="replace"))
    settings = {
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "Dir::Etc::SourceList": source,
        "Dir::Etc::SourceParts": "/nonexistent",
        "Dir::State": state / "state",
        "Dir::State::status": state / "status",
        "Dir::Cache": state / "cache",
        "APT::Install-Recommends": "false",
        "Acquire::Languages": "none",
        "Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled": "false",
        "Acquire::Retries": "3",
        "APT::Sandbox::User": "",
    }
    return ["apt-get", "-qq", *(word for name, value in settings.items() for word in ("-o", f"{name}={value}"))]


def _index(setup: Setup) -> None:
    run([*apt(setup, "arm64"), "update"], "reading the package index", setup.work)


def _python(setup: Setup) -> None:
    what = "downloading Python"
    run([*apt(setup, "arm64"), "-y", "--download-only", "install", *DEBIAN], what, setup.work)
    unpack(setup.work / "apt-arm64/cache/archives", setup.root, setup.work)
    for path in UNNEEDED:
        shutil.rmtree(setup.root / path, ignore_errors=True)
    shutil.rmtree(setup.work / "apt-arm64")


def unpack(archives: Path, root: Path, work: Path) -> None:
    """Put the files of all packages below `root`."""
    root.mkdir(exist_ok=True)
    for archive in sorted(archives.glob("*.deb")):
        run(["dpkg-deb", "-x", str(archive), str(root)], f"unpacking {archive.name}", work)


def _wheels(setup: Setup) -> None:
    """At the versions that are installed here, so that answers can be compared with this machine's."""
    shutil.rmtree(setup.site, ignore_errors=True)
    platforms = [word for name in PLATFORMS for word in ("--platform", f"{name}_aarch64")]
    command = [sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--no-compile",
               "--target", str(setup.site), "--python-version", PYTHON, "--implementation", "cp",
               "--only-binary=:all:", *platforms, *map(_pinned, WHEELS)]  # fmt: skip
    run(command, "downloading the runtimes", setup.work)
    for pattern in UNNEEDED_WHEELS:
        for path in setup.site.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _pinned(name: str) -> str:
    try:
        return f"{name}=={version(name)}"
    except PackageNotFoundError:
        return name


def _compile(setup: Setup) -> None:
    """Python's own byte code, where this Python's is the same; otherwise every start takes some seconds more."""
    if ".".join(map(str, sys.version_info[:2])) == PYTHON:
        for folder in (setup.root / "usr/lib" / f"python{PYTHON}", setup.site):
            compileall.compile_dir(folder, quiet=2, workers=1)


def _processors(setup: Setup) -> None:
    """One root per processor: links to the common one, and its own /proc/cpuinfo."""
    for cpu in CPUS:
        own = setup.work / cpu
        shutil.rmtree(own, ignore_errors=True)
        (own / "proc").mkdir(parents=True)
        for path in setup.root.iterdir():
            (own / path.name).symlink_to(Path("..") / "root" / path.name)
        (own / "proc" / "cpuinfo").write_text(cpuinfo(cpu), encoding="ascii")


def _emulator(setup: Setup) -> None:
    """The system's own qemu-aarch64 if it can load plugins, else one that is only unpacked."""
    if _usable(shutil.which("qemu-aarch64")):
        return
    host = run(["dpkg", "--print-architecture"], "asking for the architecture", setup.work).strip()
    command = apt(setup, host)
    run([*command, "update"], "reading the package index", setup.work)
    archives = setup.work / f"apt-{host}/cache/archives"
    run([*command, "download", *EMULATOR], "downloading the emulator", archives)
    unpack(archives, setup.work / "host", setup.work)
    for unneeded in ("usr/share", "usr/lib/binfmt.d"):
        shutil.rmtree(setup.work / "host" / unneeded, ignore_errors=True)
    for program in (setup.work / "host/usr/bin").iterdir():
        if program.name != "qemu-aarch64":
            program.unlink()
    shutil.rmtree(setup.work / f"apt-{host}")


def _usable(qemu: str | None) -> bool:
    """QEMU 7.2 is the one that was tried: later ones of Debian's qemu-user are static and load no plugin."""
    if qemu is None:
        return False
    said = subprocess.run([qemu, "-h"], capture_output=True, text=True, check=False).stdout
    return "-plugin" in said


def _plugin(setup: Setup) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is not None:
        source = Path(__file__).with_name("plugin") / "count.c"
        command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(setup.work / "count.so"), str(source)]
        run(command, "compiling the plugin that counts instructions", setup.work)


def _manifest(setup: Setup, folder: Path) -> dict[str, str]:
    """Paths are those of the final directory."""
    own = setup.work / "host"
    libraries = sorted({file.parent for file in own.rglob("*.so*")})
    found = own / "usr/bin/qemu-aarch64" if own.is_dir() else Path(shutil.which("qemu-aarch64") or "")
    environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(map(str, libraries))}
    said = run([str(found), "--version"], "starting the emulator", setup.work, environment)
    number = re.search(r"version (\S+)", said)
    counts = (setup.work / "count.so").is_file()
    return {
        "qemu": str(found).replace(str(setup.work), str(folder)),
        "libraries": environment["LD_LIBRARY_PATH"].replace(str(setup.work), str(folder)) if libraries else "",
        "qemu_version": number[1] if number else shlex.quote(said[:40]),
        "plugin": str(folder / "count.so") if counts else "",
        "no_plugin": "" if counts else NO_COMPILER,
    }


STEPS: Mapping[str, Step] = {
    "read the index of Debian's arm64 packages": _index,
    f"fetch Python {PYTHON} for arm64": _python,
    "fetch the runtimes for arm64": _wheels,
    "compile byte code": _compile,
    "describe the processors": _processors,
    "find QEMU": _emulator,
    "build the plugin that counts instructions": _plugin,
}
"""What is done, in this order; a step that is done is not done again."""
