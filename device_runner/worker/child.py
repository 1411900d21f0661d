"""The process that runs one model: requests in on one pipe, answers out on another, the frame in shared memory.

It opens and verifies the bundle itself and loads the very bytes it verified. It is started by `process.py` as
`python -m device_runner.worker.child JSON`.
"""

from __future__ import annotations

import os
import signal
import sys

import msgspec

from device_runner import children
from device_runner.bundle import open_bundle
from device_runner.errors import BundleError, Problem
from device_runner.frames import Failure, pack, read_message
from device_runner.worker.messages import Order, Request
from device_runner.worker.model import Model
from device_runner.worker.slot import SlotView

MEMORY_BYTES = 4 << 30  # address space, of which an engine maps much more than it uses


def main() -> int:
    """Serve until the pipe of requests ends."""
    order = msgspec.json.decode(sys.argv[1], type=Order)
    children.die_with_parent()
    children.limit_memory(MEMORY_BYTES)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    try:
        serve(order)
    except BrokenPipeError:  # the parent is gone
        return 1
    return 0


def serve(order: Order) -> None:
    """Load, say so, answer."""
    with os.fdopen(order.requests, "rb") as requests, os.fdopen(order.replies, "wb", buffering=0) as replies:

        def reply(message: msgspec.Struct) -> None:
            data = memoryview(pack(message))
            while data:
                data = data[replies.write(data) :]

        try:
            bundle = open_bundle(order.bundle)
            if bundle.sha256 != order.sha256:
                raise BundleError("the bundle was exchanged", "its manifest is another", "install it with its store")
            model = Model.load(bundle, order.engine, order.threads, motion=order.motion)
        except Problem as problem:
            reply(Failure.of(problem))
            return
        reply(model.ready)
        requested, view = msgspec.msgpack.Decoder(Request), SlotView(order.slot)
        while (body := read_message(requests.read)) is not None:
            request = requested.decode(body)
            try:
                reply(model.answer(request.kind, request.size, view.get(request.length, request.slot)))
            except Problem as problem:
                reply(Failure.of(problem))
            except MemoryError:
                reply(Failure(kind="ImageError", what="the frame needs too much memory", why="", fix="send less"))


if __name__ == "__main__":
    sys.exit(main())
