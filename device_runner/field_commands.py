"""The commands of a runner in the field: each takes the arguments and two streams."""

from __future__ import annotations

import csv
import os
from argparse import Namespace
from pathlib import Path
from typing import TextIO

import msgspec

from device_runner import audit, bus, service
from device_runner import check as checking
from device_runner.bundle import open_bundle
from device_runner.config.reading import read
from device_runner.errors import ConfigError, Problem
from device_runner.log import Log
from device_runner.review import COLUMNS, kept
from device_runner.store.models import Store
from device_runner.systemd import Notifier
from device_runner.text import printable


def run(arguments: Namespace, out: TextIO, err: TextIO) -> int:
    """Serve until the source ends or a signal asks to stop."""
    wishes = service.Wishes()
    service.heed_signals(wishes)
    out.flush()
    return service.serve(lambda: read(arguments.config), os.dup(out.fileno()), Log(err), wishes, Notifier(os.environ))


def check(arguments: Namespace, out: TextIO, err: TextIO) -> int:
    """Say what a configuration means; exit 2 if it is wrong."""
    config = read(arguments.config)
    bundle = Store(config.store).open_current(Log(err).say) if config.store else open_bundle(config.bundle or "")
    manifest = bundle.manifest
    checking.check(config, manifest)
    out.writelines(f"{line}\n" for line in checking.explain(config, manifest))
    out.writelines(f"warning: {line}\n" for line in checking.warnings(config, manifest))
    return 0


def replay(arguments: Namespace, out: TextIO, err: TextIO) -> int:
    """Take every recorded decision again; exit 1 if any comes out otherwise."""
    total = fires = 0
    differences = []
    for path in arguments.audit:
        for record in read_audit(path):
            difference = audit.replay(record)
            total, fires = total + 1, fires + bool(record.id)
            if difference is not None:
                differences.append(f"{path}: frame {record.seq}, rule {record.rule.name}: {difference}\n")
    out.writelines(differences)
    out.write(
        f"replayed {total} decisions, {fires} fired: {total - len(differences)} the same, {len(differences)} not\n"
    )
    return 1 if differences else 0


def review(arguments: Namespace, out: TextIO, err: TextIO) -> int:
    """List kept frames as a CSV for a person to fill in; exit 1 if something is damaged."""
    table = csv.writer(out, lineterminator="\n")
    table.writerow(COLUMNS)
    damaged = 0
    try:
        for path, doubt in kept(arguments.folder):
            if doubt is None:
                damaged += 1
                err.write(f"{printable(path.name)} is left out: what was kept beside it is damaged or missing\n")
            else:
                table.writerow((path.name, "", cell(doubt.label), f"{doubt.confidence:.4f}"))
    except OSError as error:
        raise Problem(f"{arguments.folder} cannot be read", error.strerror or str(error), "name DIR/review") from error
    return 1 if damaged else 0


def forget(arguments: Namespace, out: TextIO, err: TextIO) -> int:
    """Take back what the broker keeps of this device."""
    config = read(arguments.config)
    if config.mqtt is None:
        raise ConfigError(
            f"{arguments.config} names no broker", "there is no [mqtt]", "name the device's configuration"
        )
    bus.forget(config, config.mqtt)
    out.write(f"{config.mqtt.host} keeps nothing of {config.device} any more\n")
    return 0


def cell(text: str) -> str:
    """A label that no spreadsheet takes for a formula, and no terminal for a command."""
    return f"'{printable(text)}" if text.startswith(("=", "+", "-", "@")) else printable(text)


def read_audit(path: Path) -> list[audit.Record]:
    """The records of an audit file.

    Raises:
        Problem: it cannot be read.
    """
    try:
        return list(audit.read(path))
    except OSError as error:
        raise Problem(f"{path} cannot be read", error.strerror or str(error), "check the path") from error
    except msgspec.MsgspecError as error:
        raise Problem(f"{path} is not an audit file", str(error), "name an audit.jsonl of this version") from error
