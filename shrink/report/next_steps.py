"""What to type next, ready to paste."""

from __future__ import annotations

from pathlib import PurePath

from shrink.report.schema import Report
from shrink.report.text import shell

RUNNER = ("-m", "device_runner")


def next_steps(report: Report, out_dir: PurePath, python: str = "python") -> list[str]:
    """Commands in the order to try them: prove every bundle that was written, use the first, look.

    Args:
        out_dir: the directory of the report and the bundles, as the reader would type it.
        python: how the reader calls the Python that has `device_runner`.
    """
    bundles = [_path(out_dir / artifact.bundle) for artifact in report.artifacts if artifact.bundle is not None]
    prove = [shell((python, *RUNNER, "selftest", bundle)) for bundle in bundles]
    use = [shell((python, *RUNNER, "classify", bundle)) + " IMAGE" for bundle in bundles[:1]]
    look = [shell(("shrink", "report", _path(out_dir)))] if bundles else []
    return prove + use + look


def _path(path: PurePath) -> str:
    text = str(path)
    return f"./{text}" if text.startswith("-") else text  # else it reads as an option
