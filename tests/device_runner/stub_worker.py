"""A model's process that misbehaves as its first argument says; the second is the order it was given."""

from __future__ import annotations

import json
import os
import signal
import sys
import time

from device_runner.frames import Failure, pack, read_message
from device_runner.worker.messages import Look, Ready, Seen

LOOK = Look(100.0, 50.0, b"", b"")


def main() -> None:
    mode, order = sys.argv[1], json.loads(sys.argv[2])
    if mode == "exit at load":
        sys.exit(3)
    if mode == "hang at load":
        time.sleep(60)
    with os.fdopen(order["requests"], "rb") as requests, os.fdopen(order["replies"], "wb", buffering=0) as replies:
        replies.write(pack(Ready(sha256="s", engine="stub", golden=1)))
        if mode == "deaf":
            time.sleep(60)
        while read_message(requests.read) is not None:
            if mode == "exit":
                sys.exit(4)
            if mode == "segfault":
                os.kill(os.getpid(), signal.SIGSEGV)
            if mode == "hang":
                time.sleep(60)
            if mode == "garbage":
                replies.write(b"\xff" * 64)
            elif mode == "half":
                replies.write(b"\x00\x00\x10\x00half")
                sys.exit(0)
            elif mode == "image":
                replies.write(pack(Failure(kind="ImageError", what="bad", why="it is", fix="send another")))
            else:
                replies.write(pack(Seen(confidences=(1.0,), look=LOOK, prepare_ms=0.0, model_ms=0.0)))


if __name__ == "__main__":
    main()
