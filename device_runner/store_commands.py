"""The commands of a store of models, for people and for updaters: install, trial, commit, rollback, status, release."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import TextIO

import msgspec

from device_runner import __version__, release
from device_runner.bundle import open_bundle
from device_runner.store.models import Store
from device_runner.worker.process import ProcessWorker


def install(arguments: Namespace, out: TextIO, err: TextIO) -> int:
    """Verify, prove in a process of its own, store and stage; the first bundle of a store decides at once."""

    def prove(path: Path, sha256: str) -> None:
        ProcessWorker(str(path), sha256, engine=arguments.engine).wait().close()

    store = Store(arguments.store)
    sha256 = store.install(arguments.bundle, prove, keys=arguments.trusted_keys, kind=arguments.kind)
    out.write(f"installed {sha256}\n")
    return 0


def trial(arguments: Namespace, out: TextIO, err: TextIO) -> int:
    """Put the staged bundle on trial; a runner that runs begins within a second."""
    out.write(f"on trial {Store(arguments.store).start_trial()}\n")
    return 0


def commit(arguments: Namespace, out: TextIO, err: TextIO) -> int:
    """Let the bundle on trial, or the staged one, decide."""
    out.write(f"current {Store(arguments.store).commit()}\n")
    return 0


def rollback(arguments: Namespace, out: TextIO, err: TextIO) -> int:
    """End the trial, or go back to the previous bundle."""
    out.write(f"current {Store(arguments.store).rollback()}\n")
    return 0


def status(arguments: Namespace, out: TextIO, err: TextIO) -> int:
    """What decides, what is on trial, what is refused."""
    fields = msgspec.to_builtins(Store(arguments.store).state)
    if arguments.json:
        out.write(json.dumps(fields) + "\n")
    else:
        out.writelines(f"{name:12} {value if value not in (None, []) else '-'}\n" for name, value in fields.items())
    return 0


def make_release(arguments: Namespace, out: TextIO, err: TextIO) -> int:
    """Write and sign release.json into a bundle's directory."""
    bundle = open_bundle(arguments.bundle)
    statement = release.Release(
        bundle=bundle.sha256,
        version=arguments.version_number,
        kinds=tuple(arguments.kind or ()),
        min_runner=__version__,
    )
    release.write_release(bundle, arguments.bundle, statement, arguments.key)
    out.write(f"released {bundle.sha256} as version {statement.version}\n")
    return 0
