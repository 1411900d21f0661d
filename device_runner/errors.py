"""What can go wrong on the device, as one tree.

    Problem                 what, why, fix; exit code 1
    ├── BundleError         a bundle is damaged, incomplete, or from another version
    ├── EngineError         the runtime is missing or refused the model
    ├── ImageError          an image cannot be read, or is refused for its size or format
    └── SelfTestError       golden inputs do not give the answers they must

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
