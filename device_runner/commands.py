"""What the commands do. Each takes the parsed arguments and two streams, and returns the exit code."""

from __future__ import annotations

import json
import time
from argparse import Namespace
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from device_runner.bundle import Bundle, open_bundle
from device_runner.classify import Classifier
from device_runner.engines.base import Engine
from device_runner.errors import ImageError, Problem
from device_runner.postprocess import Answer
from device_runner.selftest import selftest as replay
from device_runner.text import printable, printable_lines

RECORD_SCHEMA = 1
"""Version of the JSON records; a reader should refuse any other."""

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
MAX_FILE_BYTES = 128 * 1024 * 1024  # a 25 MP BMP has 100 MB


def verify(arguments: Namespace, out: TextIO, err: TextIO) -> int:
    """Say what the bundle is; opening it verified it."""
    bundle = open_bundle(arguments.bundle)
    m, size = bundle.manifest, sum(map(len, bundle.files.values()))
    out.write(f"verified {printable(m.name)}: {m.target}, {len(m.labels)} labels\n")
    out.write(f"  {len(bundle.files)} files, {size} bytes, nothing missing, extra or changed\n")
    out.write(f"  manifest sha256 {bundle.sha256}\n")
    return 0


def selftest(arguments: Namespace, out: TextIO, err: TextIO) -> int:
    """Verify, then replay the golden images and say how close the answers are."""
    classifier = Classifier.open(arguments.bundle, arguments.engine, arguments.threads)
    out.write(describe(classifier.bundle, classifier.engine))
    return 0


def describe(bundle: Bundle, engine: Engine) -> str:
    """One line: the self-test passed, by how much and on what."""
    result = replay(bundle, engine)
    return (
        f"selftest ok: {result.n} golden images on {engine.name} {engine.version}; pixels differ by at most "
        f"{result.worst_pixel}, outputs by {result.worst_output:.3g} ({result.tolerance:.3g} allowed)\n"
    )


def classify(arguments: Namespace, out: TextIO, err: TextIO) -> int:
    """Name what is in each image. A bad image is reported and the run goes on; then the exit code is 1."""
    classifier = Classifier.open(arguments.bundle, arguments.engine, arguments.threads)
    if not arguments.no_selftest:
        err.write(describe(classifier.bundle, classifier.engine))
    all_good = True
    for path in find_images(arguments.images):
        try:
            seen = look(classifier, path, arguments.top, arguments.review_below)
            out.write(seen.record() if arguments.json else seen.line())
        except Problem as problem:
            all_good = False
            if arguments.json:
                out.write(error_record(path, problem))
            else:
                err.write(f"error: {printable(str(path))}: {printable_lines(str(problem))}\n")
        out.flush()
    return 0 if all_good else 1


def find_images(paths: Iterable[Path]) -> Iterator[Path]:
    """The files named, and for a folder the image files directly in it, sorted by name."""
    for path in paths:
        if path.is_dir():
            found = [p for p in sorted(path.iterdir()) if p.suffix.lower() in SUFFIXES and not p.name.startswith(".")]
            yield from found or [path]  # an empty folder is then reported as an image that cannot be read
        else:
            yield path


@dataclass(frozen=True, slots=True)
class Seen:
    """The answer for one image."""

    path: Path
    top: list[Answer]  # the best first
    review: bool  # the best is not confident enough to act on
    ms: float  # from reading the file to the answer

    def record(self) -> str:
        """As one line of JSON."""
        top = [asdict(answer) for answer in self.top]
        fields = {"schema": RECORD_SCHEMA, "image": str(self.path), "top": top, "review": self.review}
        return json.dumps({**fields, "ms": round(self.ms, 3)}) + "\n"

    def line(self) -> str:
        """For people."""
        answers = "  ".join(f"{printable(a.label)} {a.confidence:.3f}" for a in self.top)
        return f"{printable(str(self.path))}: {'review: ' if self.review else ''}{answers}\n"


def look(classifier: Classifier, path: Path, k: int, review_below: float) -> Seen:
    """Classify one file.

    Raises:
        Problem: the file cannot be read or decoded, or the engine fails on it.
    """
    start = time.perf_counter()
    top = classifier.classify(read_image(path), k)
    ms = (time.perf_counter() - start) * 1000
    return Seen(path, top, top[0].confidence < review_below, ms)


def read_image(path: Path) -> bytes:
    """The bytes of an image file; neither pipes nor enormous files are read."""
    try:
        if path.is_dir():
            raise ImageError("the folder holds no images", f"none ends in {', '.join(SUFFIXES)}", "name another folder")
        if not path.is_file():
            raise ImageError("there is no such image file", "the path leads to no regular file", "check the path")
        if path.stat().st_size > MAX_FILE_BYTES:
            raise ImageError("the file is too large", f"it has over {MAX_FILE_BYTES} bytes", "send a smaller image")
        return path.read_bytes()
    except OSError as error:
        raise ImageError("the file cannot be read", error.strerror or str(error), "check its permissions") from error


def error_record(path: Path, problem: Problem) -> str:
    """A failed image as one line of JSON."""
    error = {"what": problem.what, "why": problem.why, "fix": problem.fix}
    return json.dumps({"schema": RECORD_SCHEMA, "image": str(path), "error": error}) + "\n"
