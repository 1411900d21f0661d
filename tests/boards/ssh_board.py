"""A real ssh server on the loopback, as a process of its own: asyncssh, with scp and sftp; commands run in a shell.

python ssh_board.py FOLDER [--deny]: prints its port and fingerprint as JSON, and notes every command in a file.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncssh

LOG = "commands.log"
CHUNK = 64 * 1024


@dataclass(frozen=True)
class SshBoard:
    """The server, as a test sees it."""

    folder: Path  # the home directory of whoever logs in
    port: int
    fingerprint: str
    process: subprocess.Popen[str]

    @property
    def url(self) -> str:
        return f"ssh://pi@127.0.0.1:{self.port}"

    @property
    def commands(self) -> list[str]:
        """What was run there so far."""
        log = self.folder / LOG
        return log.read_text().splitlines() if log.exists() else []

    @property
    def runs(self) -> list[Path]:
        """Directories of runs there."""
        return list((self.folder / ".cache/shrink-board/runs").glob("*"))

    def cut(self) -> None:
        """All connections end at once."""
        self.process.kill()


@contextmanager
def served(folder: Path, *options: str) -> Iterator[SshBoard]:
    """The server runs while the block does."""
    folder.mkdir(exist_ok=True)
    command = [sys.executable, __file__, str(folder), *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        try:
            said = json.loads(process.stdout.readline())
            yield SshBoard(folder, said["port"], said["fingerprint"], process)
        finally:
            process.kill()


class _Server(asyncssh.SSHServer):
    def begin_auth(self, username: str) -> bool:
        return "--deny" in sys.argv


class _Files(asyncssh.SFTPServer):
    """Ends with an exit status, as OpenSSH's does; scp takes its absence for a failure."""

    def exit(self) -> None:
        self.channel.exit(0)


async def _run(process: asyncssh.SSHServerProcess[bytes]) -> None:
    folder = Path(sys.argv[1])
    with (folder / LOG).open("a") as log:
        log.write(f"{process.command}\n")
    child = await asyncio.create_subprocess_shell(
        process.command or "true",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={"HOME": str(folder), "PATH": "/usr/local/bin:/usr/bin:/bin"},
    )
    assert child.stdin and child.stdout and child.stderr
    feeding = asyncio.create_task(_copy(process.stdin, child.stdin))
    await asyncio.gather(_copy(child.stdout, process.stdout), _copy(child.stderr, process.stderr))
    code = await child.wait()
    feeding.cancel()
    process.exit(code)


async def _copy(source: Any, sink: Any) -> None:
    """All of it, and the end where it is a command's input. asyncssh's own redirection would close the channel at the
    end of stdout, and drop the client when something comes on stderr after that."""
    with suppress(OSError):
        while data := await source.read(CHUNK):
            sink.write(data)
            await sink.drain()
        if isinstance(sink, asyncio.StreamWriter):
            sink.close()


async def _listen() -> None:
    key = asyncssh.generate_private_key("ssh-ed25519")
    acceptor = await asyncssh.listen(
        "127.0.0.1", 0, server_factory=_Server, server_host_keys=[key], process_factory=_run, sftp_factory=_Files,
        allow_scp=True, encoding=None,
    )  # fmt: skip
    sys.stdout.write(json.dumps({"port": acceptor.get_port(), "fingerprint": key.get_fingerprint()}) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_listen())
