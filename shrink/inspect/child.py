"""The other side of `guard`: inspects standard input under limits and writes one JSON object.

python -m shrink.inspect.child FORMAT BYTES NAME < FILE
"""

from __future__ import annotations

import os
import resource
import sys

import msgspec

from device_runner.errors import Problem

GIB = 1 << 30
CPU_SECONDS = 300


def limit(size_bytes: int) -> None:
    """Bound what this process may take; must come before the first look at the file.

    Args:
        size_bytes: size of the file; memory and written files may be a multiple of it.
    """
    bounds = {
        resource.RLIMIT_AS: 8 * GIB + 12 * size_bytes,  # address space, of which libraries reserve gigabytes
        resource.RLIMIT_CPU: CPU_SECONDS,
        resource.RLIMIT_FSIZE: GIB // 16 + 4 * size_bytes,  # the optimized graph, in a temporary folder
        resource.RLIMIT_CORE: 0,
    }
    for which, most in bounds.items():
        hard = resource.getrlimit(which)[1]
        bound = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (bound, bound))


def _private_stdout() -> int:
    """A copy of standard output for the answer alone; whatever a library prints goes to standard error."""
    answer = os.dup(1)
    os.dup2(2, 1)
    return answer


def _answer(fmt: str, name: str) -> bytes:
    from shrink.inspect import kind, truth  # under the limits: it brings a runtime

    return msgspec.json.encode(truth.inspect_bytes(sys.stdin.buffer.read(), kind.SUFFIXES[f".{fmt}"], name))


def main(fmt: str, size_bytes: int, name: str) -> int:
    """Inspect; the exit code is 0 with an inspection, 2 with the three lines of an error."""
    limit(size_bytes)
    answer = _private_stdout()
    try:
        content, code = _answer(fmt, name), 0
    except Problem as problem:
        content, code = msgspec.json.encode([problem.what, problem.why, problem.fix]), 2
    with os.fdopen(answer, "wb") as out:
        out.write(content)
    return code


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], int(sys.argv[2]), sys.argv[3]))
