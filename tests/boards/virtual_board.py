"""A whole ARM computer in QEMU, with its own kernel and an ssh server: what `ssh://` meets on a real board.

Everything in it is Debian's: the cloud kernel, busybox, dropbear, OpenSSH's sftp server, and the Python and the
runtimes that `shrink board setup qemu` prepared. All of it is one file in memory: no disk is needed, nothing stays.
"""

from __future__ import annotations

import re
import shutil
import socket
import stat
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from needed import PREPARED

from shrink.boards.emulator_setup import PYTHON, Setup, apt, run, unpack

KERNEL = "linux-image-cloud-arm64"
PACKAGES = ("busybox-static", "dropbear-bin", "openssh-sftp-server")
DRIVERS = ("virtio_pci", "virtio_net")
BOOT_SECONDS = 180.0  # emulated, perhaps beside other tests; five on a machine that does nothing else
INTERPRETER = f"/usr/bin/python{PYTHON}"
FILES = {
    "init": """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /var/log
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
/bin/busybox mount -t devtmpfs none /dev
/bin/busybox --install -s /bin
export PATH=/bin:/sbin:/usr/bin:/usr/sbin
mkdir -p /dev/pts && mount -t devpts none /dev/pts
exec >/dev/ttyAMA0 2>&1
for driver in $(cat /drivers); do insmod /$driver; done
ip link set lo up; ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up
chown -R 1000:1000 /home/pi; chmod 1777 /tmp
dropbearkey -t ed25519 -f /etc/key
dropbear -E -B -r /etc/key -p 22
until grep -q ':0016 .* 0A ' /proc/net/tcp /proc/net/tcp6; do sleep 0.1; done
echo READY
while true; do sleep 1000; done
""",
    "etc/passwd": "root:x:0:0::/root:/bin/sh\npi::1000:1000::/home/pi:/bin/sh\n",
    "etc/group": "root:x:0:\npi:x:1000:\n",
    "etc/shells": "/bin/sh\n",
}


@dataclass(frozen=True)
class VirtualBoard:
    """A computer that runs."""

    port: int
    fingerprint: str  # of its host key, as it said on its serial line
    process: subprocess.Popen[bytes]

    @property
    def url(self) -> str:
        return f"ssh://pi@127.0.0.1:{self.port}/?python={INTERPRETER}"


def build(work: Path) -> tuple[Path, Path]:
    """Its kernel, and all of its files in one."""
    root = work / "board"
    shutil.copytree(PREPARED / "root", root, symlinks=True)
    shutil.copytree(PREPARED / "site", root / f"usr/local/lib/python{PYTHON}/dist-packages", symlinks=True)
    command = apt(Setup(work), "arm64")
    run([*command, "update"], "reading the package index", work)
    run([*command, "-y", "--download-only", "install", KERNEL, *PACKAGES], "downloading the board", work)
    unpack(work / "apt-arm64/cache/archives", root, work)
    (kernel,) = (root / "boot").glob("vmlinuz-*")
    kernel = kernel.rename(work / "vmlinuz")
    drivers = _drivers(next((root / "lib/modules").iterdir()))
    for path in drivers:
        path.rename(root / path.name)
    for folder in ("boot", "lib/modules", "usr/share"):
        shutil.rmtree(root / folder)
    (root / "home/pi").mkdir(parents=True)
    for name, content in {**FILES, "drivers": "\n".join(path.name for path in drivers)}.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(content)
    (root / "init").chmod(0o755)
    _server_of_files(root)
    write_archive(root, work / "board.cpio")
    return kernel, work / "board.cpio"


def _server_of_files(root: Path) -> None:
    """Where dropbear looks for it differs between versions."""
    for place in ("usr/lib/sftp-server", "usr/libexec/sftp-server"):
        (root / place).parent.mkdir(exist_ok=True)
        if not (root / place).is_symlink():
            (root / place).symlink_to("/usr/lib/openssh/sftp-server")


def _drivers(modules: Path) -> list[Path]:
    """The modules of a network card, each behind those that it needs."""
    known = {path.name.removesuffix(".ko").replace("-", "_"): path for path in modules.rglob("*.ko")}
    found: dict[str, Path] = {}

    def add(name: str) -> None:
        needs = re.search(rb"\0depends=([^\0]*)\0", known[name].read_bytes())
        for other in filter(None, needs[1].decode().split(",")) if needs else ():
            add(other)
        found.setdefault(name, known[name])

    for name in DRIVERS:
        add(name)
    return list(found.values())


def write_archive(root: Path, target: Path) -> None:
    """A directory as the kernel reads one into memory: cpio's format "newc", everything root's."""
    paths = [(path.relative_to(root).as_posix(), path) for path in sorted(root.rglob("*"))]
    with target.open("wb") as file:
        for number, (name, path) in enumerate(paths, start=1):
            about = path.lstat()
            data = str(path.readlink()).encode() if path.is_symlink() else b"" if path.is_dir() else path.read_bytes()
            file.write(_entry(number, name, about.st_mode, data, about.st_mtime))
        console = stat.S_IFCHR | 0o600
        file.write(_entry(0, "dev", stat.S_IFDIR | 0o755, b""))
        file.write(_entry(0, "dev/console", console, b"", device=(5, 1)))
        file.write(_entry(0, "TRAILER!!!", 0, b""))


def _entry(
    number: int, name: str, mode: int, data: bytes, changed: float = 0.0, *, device: tuple[int, int] = (0, 0)
) -> bytes:
    """By when a module was changed, Python knows that its byte code is still good."""
    fields = (number, mode, 0, 0, 1, int(changed), len(data), 0, 0, *device, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)


@contextmanager
def booted(kernel: Path, files: Path, log: Path) -> Iterator[VirtualBoard]:
    """It runs while the block does."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        "qemu-system-aarch64", "-M", "virt", "-cpu", "cortex-a72", "-smp", "2", "-m", "2048", "-no-reboot",
        "-kernel", str(kernel), "-initrd", str(files), "-append", "console=ttyAMA0 quiet rdinit=/init panic=-1",
        "-display", "none", "-monitor", "none", "-serial", f"file:{log}",
        "-netdev", f"user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22",
        "-device", "virtio-net-pci,netdev=n0,romfile=",
    ]  # fmt: skip
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            said = _wait(process, log)
            found = re.search(r"SHA256:\S+", said)
            assert found, said
            yield VirtualBoard(port, found[0], process)
        finally:
            process.kill()


def _wait(process: subprocess.Popen[bytes], log: Path) -> str:
    end = time.monotonic() + BOOT_SECONDS
    while time.monotonic() < end and process.poll() is None:
        said = log.read_text(errors="replace") if log.exists() else ""
        if "READY" in said:
            return said
        time.sleep(0.2)
    raise AssertionError(f"it did not boot: {said[-2000:]}")
