"""What can go wrong on the device, as one tree.

    Problem                 what, why, fix; exit code 1
    ├── BundleError         a bundle is damaged, incomplete, or from another version
    ├── EngineError         the runtime is missing or refused the model
    ├── ImageError          an image cannot be read, or is refused for its size or format
    ├── SelfTestError       golden inputs do not give the answers they must
    ├── ConfigError         the configuration is wrong; exit code 2
    ├── SourceError         a source of frames cannot be used
    ├── StoreError          the store of models is damaged or cannot be written
    ├── GaveUp              the model's process fails again and again; exit code 4
    └── Refused             a sound bundle that must not run here
        ├── Unsigned        no signature, or no release; exit code 10
        ├── WrongKey        a signature that no trusted key made over this release; exit code 11
        ├── Downgrade       a version below the one that was committed; exit code 12
        ├── WrongDevice     released for another kind of device; exit code 13
        ├── RunnerTooOld    needs a newer runner; exit code 14
        ├── Quarantined     failed its trial here before; exit code 15
        └── Mixed           the release speaks of another bundle; exit code 16

`shrink.errors` hangs its own branches on the same `Problem`, so both command lines print every
error the same way.
"""

from __future__ import annotations


class Problem(Exception):  # noqa: N818 - the root of the tree; its leaves are the errors
    """An error a user can act on: three lines, no traceback.

    Args:
        what: what happened, naming the thing it happened to.
        why: the reason, or what was expected.
        fix: what to do about it, such as a command.
    """

    exit_code: int = 1

    def __init__(self, what: str, why: str, fix: str) -> None:
        super().__init__(what, why, fix)
        self.what, self.why, self.fix = what, why, fix

    def __str__(self) -> str:
        return f"{self.what}\n  why: {self.why}\n  fix: {self.fix}"


class BundleError(Problem):
    """A bundle that must not be loaded."""


class EngineError(Problem):
    """A runtime that is not installed, or refuses the model."""


class ImageError(Problem):
    """An image that cannot be decoded or is refused."""


class SelfTestError(Problem):
    """The model on this device does not give its golden answers."""


class ConfigError(Problem):
    """A configuration that cannot be followed."""

    exit_code = 2


class SourceError(Problem):
    """A source of frames that cannot be used."""


class StoreError(Problem):
    """A store of models that is damaged or cannot be written."""


class GaveUp(Problem):
    """The model's process failed too often in too short a time."""

    exit_code = 4


class Refused(Problem):
    """A bundle that is whole, but must not run on this device."""


class Unsigned(Refused):
    """The device asks for a signed release, and there is none."""

    exit_code = 10


class WrongKey(Refused):
    """No trusted key signed this release."""

    exit_code = 11


class Downgrade(Refused):
    """An older version than the one that runs."""

    exit_code = 12


class WrongDevice(Refused):
    """Released for another kind of device."""

    exit_code = 13


class RunnerTooOld(Refused):
    """The release needs a newer runner."""

    exit_code = 14


class Quarantined(Refused):
    """This very bundle failed its trial on this device."""

    exit_code = 15


class Mixed(Refused):
    """The release was written for another bundle."""

    exit_code = 16
